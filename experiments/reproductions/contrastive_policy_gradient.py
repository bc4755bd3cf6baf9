"""Off-policy gradients on three arms: the contrast of two rewards needs no importance weight (arXiv 2406.19185)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from alignment import analysis, losses, policy_gradients
from experiments.reproductions import style

SMALL = None
REWARDS, SAMPLER, BETA = jnp.array([2.5, 2.0, 1.0]), jnp.array([0.1, 0.2, 0.7]), 0.5
REFERENCE = jax.nn.log_softmax(jnp.zeros(3))
OPTIMUM = analysis.kl_regularised_optimum(REFERENCE, REWARDS, beta=BETA)


def copg(logps, pair):
    there = jnp.ones((2, 1), bool)
    return policy_gradients.copg(logps[pair], REFERENCE[pair], REWARDS[pair], there, beta=BETA)


def ipo(logps, pair):
    """IPO hears which arm of the pair has the larger reward, and not by how much; of an arm and itself nothing."""
    chosen, rejected = jnp.min(pair), jnp.max(pair)  # the arms stand in the order of their rewards
    loss = losses.ipo(logps[chosen], logps[rejected], REFERENCE[chosen], REFERENCE[rejected], tau=BETA)
    return jnp.where(chosen == rejected, 0.0, loss)


def policy_gradient(baseline_of, logps, pair):
    """-(R_b - baseline) log pi of both arms, R_b = R - beta log(pi / ref) and the first factor held fixed."""
    regularised = REWARDS - BETA * (logps - REFERENCE)
    advantages = jax.lax.stop_gradient(regularised - baseline_of(logps, regularised))
    return -jnp.sum(advantages[pair] * logps[pair])


METHODS = {
    "CoPG": copg,
    "PG without a baseline": functools.partial(policy_gradient, lambda logps, regularised: 0.0),
    "PG less the sampler's mean R": functools.partial(policy_gradient, lambda logps, regularised: SAMPLER @ REWARDS),
    "PG less the sampler's mean R_b": functools.partial(
        policy_gradient, lambda logps, regularised: SAMPLER @ regularised
    ),
    "PG less the policy's mean R_b": functools.partial(
        policy_gradient, lambda logps, regularised: jnp.exp(logps) @ regularised
    ),
    "IPO": ipo,
}


def regret(logps):
    """What E[R] - beta KL(pi || ref) lacks to its maximum, which is beta KL(pi || optimum); 1e-7 is float32's zero."""
    return jnp.maximum(BETA * jnp.exp(logps) @ (logps - OPTIMUM), 1e-7)


@functools.partial(jax.jit, static_argnames=("method", "steps"))
def exact(method, *, steps, learning_rate):
    """Log-probs at the end of descent on the expectation over all nine pairs."""
    first, second = jnp.divmod(jnp.arange(9), 3)
    pairs, weights = jnp.stack([first, second], -1), SAMPLER[first] * SAMPLER[second]

    def loss(logits):
        return weights @ jax.vmap(METHODS[method], (None, 0))(jax.nn.log_softmax(logits), pairs)

    def step(logits, _):
        return logits - learning_rate * jax.grad(loss)(logits), None

    return jax.nn.log_softmax(jax.lax.scan(step, REFERENCE, None, length=steps)[0])


@functools.partial(jax.jit, static_argnames=("method", "steps", "pairs"))
def sampled(method, keys, *, steps, pairs, learning_rate):
    """Regret after each step on pairs drawn from the sampler, f[seeds, steps]."""

    def loss(logits, drawn):
        return jnp.mean(jax.vmap(METHODS[method], (None, 0))(jax.nn.log_softmax(logits), drawn))

    def step(logits, key):
        drawn = jax.random.categorical(key, jnp.log(SAMPLER), shape=(pairs, 2))
        logits = logits - learning_rate * jax.grad(loss)(logits, drawn)
        return logits, regret(jax.nn.log_softmax(logits))

    return jax.vmap(lambda key: jax.lax.scan(step, REFERENCE, jax.random.split(key, steps))[1])(keys)


def tables(*, seeds=10, steps=1500, pairs=32, learning_rate=0.05, exact_steps=2000, every=30):
    keys = jax.random.split(jax.random.key(0), seeds)
    regrets, ends = [], []
    for method in METHODS:
        values = np.asarray(sampled(method, keys, steps=steps, pairs=pairs, learning_rate=learning_rate))
        regrets += [
            {"method": method, "seed": seed, "step": step, "regret": float(values[seed, step - 1])}
            for seed in range(seeds)
            for step in range(every, steps + 1, every)
        ]
        logps = exact(method, steps=exact_steps, learning_rate=learning_rate)
        ends += [{"method": method, "arm": a, "probability": float(p)} for a, p in enumerate(jnp.exp(logps), 1)]
    ends += [{"method": "optimum", "arm": a, "probability": float(p)} for a, p in enumerate(jnp.exp(OPTIMUM), 1)]
    return {"regrets": regrets, "ends": ends}


def figure(tables):
    drawn, (left, right) = style.panels(2)
    for method in METHODS:
        style.band(left, style.select(tables["regrets"], method=method), "step", "regret", label=method)
    left.set(xlabel="gradient steps", ylabel="regret (regularised reward)", yscale="log", title="sampled pairs")
    methods = style.distinct(tables["ends"], "method")
    colours = dict(zip(METHODS, style.COLOURS, strict=False)) | {"optimum": "0.6"}
    for number, method in enumerate(methods):
        rows = style.select(tables["ends"], method=method)
        right.bar([r["arm"] + (number - 3) * 0.12 for r in rows], [r["probability"] for r in rows], 0.11,
                  color=colours[method], label=method if method == "optimum" else None)  # fmt: skip
    right.set(xlabel="arm (reward 2.5, 2, 1; drawn 0.1, 0.2, 0.7)", ylabel="probability", title="exact gradients, end")
    right.set_xticks([1, 2, 3])
    right.legend()
    drawn.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return drawn
