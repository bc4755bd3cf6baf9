"""Which loss finds the policy that the preferences came from, and when the chosen lose probability (2505.23761)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from alignment import analysis, losses
from experiments.reproductions import style

SMALL = {"seeds": 2, "steps": 20, "every": 10, "sharpness": (0.5, 1.5)}
CLASSES, BETA = 32, 0.5


def _without_reference(loss, **hyperparameters):
    return lambda w, l, rw, rl: loss(w, l, jnp.zeros_like(rw), jnp.zeros_like(rl), **hyperparameters)


def _simpo(w, l, rw, rl):
    lengths = jnp.ones(jnp.broadcast_shapes(w.shape, l.shape), jnp.int32)
    return losses.simpo(*jnp.broadcast_arrays(w, l), lengths, lengths, beta=BETA, gamma=0.25)


METHODS = {
    "DPO": functools.partial(losses.dpo, beta=BETA),
    "DPO without reference": _without_reference(losses.dpo, beta=BETA),
    "SimPO": _simpo,
    "hinge": functools.partial(losses.rso_hinge_norm, gamma=BETA),
    **{f"IPO, tau {tau:g}": functools.partial(losses.ipo, tau=tau) for tau in (0.5, 0.25, 0.1, 0.05)},
}


@functools.partial(jax.jit, static_argnames=("steps", "every"))
def trained(number, reference, chosen, rejected, *, steps, every, learning_rate):
    """Log-probs every `every` steps, f[steps / every, V], of descent on all pairs y_w ~ chosen, y_l ~ rejected."""
    weights = jnp.exp(chosen[:, None] + rejected[None, :])
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps, 0.01))

    def expected(logits):
        logps = jax.nn.log_softmax(logits)
        sides = jnp.broadcast_arrays(logps[:, None], logps[None, :], reference[:, None], reference[None, :])
        return jnp.sum(weights * jax.lax.switch(number, list(METHODS.values()), *sides))

    def step(carry, _):
        logits, state = carry
        updates, state = optimizer.update(jax.grad(expected)(logits), state)
        return (optax.apply_updates(logits, updates), state), None

    def stretch(carry, _):
        carry, _ = jax.lax.scan(step, carry, None, length=every)
        return carry, jax.nn.log_softmax(carry[0])

    return jax.lax.scan(stretch, (reference, optimizer.init(reference)), None, length=steps // every)[1]


def kl(first, second):
    return jnp.maximum(jnp.sum(jnp.exp(first) * (first - second), -1), 0.0)  # -1e-7 is float32's zero


def recovered(seeds, steps, every, learning_rate):
    """KL(target || policy) of every loss: random reference and target, rejected drawn as the theory asks."""
    keys = jax.random.split(jax.random.key(0), (seeds, 2))
    reference, target = (jax.nn.log_softmax(jax.vmap(lambda k: jax.random.normal(k, (CLASSES,)))(k)) for k in keys.T)
    rejected = jnp.log(analysis.did_rejected_distribution(reference, target, beta=BETA))
    sizes = {"steps": steps, "every": every, "learning_rate": learning_rate}
    rows = []
    for number, method in enumerate(METHODS):
        logps = jax.vmap(lambda *data, n=number: trained(n, *data, **sizes))(reference, reference, rejected)
        kls = jnp.concatenate([kl(target, reference)[:, None], kl(target[:, None], logps)], 1)
        rows += [
            {"method": method, "seed": seed, "step": every * k, "kl_nats": float(value)}
            for seed, of_seed in enumerate(np.asarray(kls))
            for k, value in enumerate(of_seed)
        ]
    return rows


def displaced(seeds, steps, every, learning_rate, sharpness):
    """Entropy of what DPO learnt against what it did to the chosen, for targets that sharpen or flatten a long tail."""
    exponents = jnp.array(sharpness)

    def one(key, exponent):
        first, second = jax.random.split(key)
        noise = 0.3 * jax.random.normal(first, (CLASSES,)), 0.3 * jax.random.normal(second, (CLASSES,))
        reference = jax.nn.log_softmax(-1.5 * jnp.log(jnp.arange(1.0, CLASSES + 1)) + noise[0])
        target = jax.nn.log_softmax(exponent * reference + noise[1])
        chosen = jax.nn.log_softmax(reference + BETA * (target - reference))
        logps = trained(0, reference, chosen, reference, steps=steps, every=every, learning_rate=learning_rate)[-1]
        information = analysis.entropy(analysis.did_distribution(logps, reference))
        return information, jnp.exp(chosen) @ (logps - reference), kl(target, logps)

    keys = jax.random.split(jax.random.key(1), seeds)
    found = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(keys, exponents)
    columns = ("did_entropy_nats", "chosen_change_nats", "kl_nats")
    return [
        {"seed": seed, "sharpness": exponent} | dict(zip(columns, (float(x[seed, i]) for x in found), strict=True))
        for seed in range(seeds)
        for i, exponent in enumerate(sharpness)
    ]


def tables(
    *, seeds=5, steps=2000, every=50, learning_rate=0.02, sharpness=(0.4, 0.55, 0.7, 0.85, 1.15, 1.3, 1.5, 1.75)
):
    return {
        "recovery": recovered(seeds, steps, every, learning_rate),
        "displacement": displaced(seeds, steps, every, learning_rate, sharpness),
    }


def figure(tables):
    drawn, (left, right) = style.panels(2)
    for number, method in enumerate(METHODS):
        dashes = {"linestyle": "--"} if number >= len(style.COLOURS) else {}
        rows = style.select(tables["recovery"], method=method)
        style.band(left, rows, "step", "kl_nats", label=method, color=(style.COLOURS * 2)[number], **dashes)
    left.set(xlabel="gradient steps", ylabel="KL(target || policy), nats", yscale="log", title="the same pairs for all")
    left.set_ylim(bottom=1e-5)
    kinds = {"sharpens": lambda a: a > 1, "flattens": lambda a: a < 1}
    for (kind, belongs), marker in zip(kinds.items(), style.MARKERS, strict=False):
        rows = [r for r in tables["displacement"] if belongs(r["sharpness"])]
        x, y = ([r[c] for r in rows] for c in ("did_entropy_nats", "chosen_change_nats"))
        right.plot(x, y, marker, label=f"target {kind} the reference")
    right.axhline(0, color="0.5", lw=0.8)
    right.set(xlabel="entropy of the learnt DID, nats", ylabel="chosen log-prob, change (nats)", title="DPO")
    right.legend()
    drawn.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return drawn
