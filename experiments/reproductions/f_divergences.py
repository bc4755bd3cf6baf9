"""f-DPG: which of two modes a policy that cannot have both takes, by the divergence it minimises (arXiv 2302.08215)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from alignment import analysis, policy_gradients
from experiments.reproductions import style

SMALL = {"seeds": 2, "steps": 20, "samples": 16}
GRID = jnp.linspace(-1.5, 1.5, 61)
BETA = 0.25  # of the target
DIVERGENCES = {
    "reverse KL": policy_gradients.f_dpg_reverse_kl,
    "reverse chi-squared": policy_gradients.f_dpg_reverse_chi_squared,
    "total variation": policy_gradients.f_dpg_total_variation,
    "Jensen-Shannon": policy_gradients.f_dpg_jensen_shannon,
    "forward KL": policy_gradients.f_dpg_forward_kl,
    "chi-squared": policy_gradients.f_dpg_chi_squared,
}


def rewards():
    """Two peaks, the right one a little higher."""
    return 0.9 * jnp.exp(-jnp.square((GRID + 0.6) / 0.3)) + jnp.exp(-jnp.square((GRID - 0.6) / 0.3))


def target() -> tuple[jax.Array, jax.Array]:
    """log P of the grid and log Z: RLHF's optimum, for a broad base model."""
    base = jax.nn.log_softmax(-jnp.square(GRID) / 2)
    scores = policy_gradients.rlhf_target(base, rewards(), beta=BETA)
    return scores, jax.nn.logsumexp(scores)


def policy(parameters):
    """The family: one discretised Gaussian, of a mean and the logarithm of a deviation."""
    mean, log_deviation = parameters
    return jax.nn.log_softmax(-jnp.square((GRID - mean) * jnp.exp(-log_deviation)) / 2)


def train(key, kernel, *, steps, samples, learning_rate):
    """log-probs of the grid under the last policy."""
    scores, log_partition = target()
    of_start, of_steps = jax.random.split(key)
    start = jnp.stack([0.3 * jax.random.normal(of_start), jnp.log(0.2)])
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def step(carry, key):
        parameters, baseline, state = carry
        places = jax.random.categorical(key, policy(parameters), shape=(samples,))

        def loss(parameters):
            logps = policy(parameters)[places]
            partitions = jnp.broadcast_to(log_partition, logps.shape)
            valid = jnp.ones(logps.shape, bool)
            # Drawn from the policy itself; the kernel holds the second log-probs fixed.
            values, aux = kernel.loss(logps, logps, scores[places], partitions, valid, baseline)
            return jnp.mean(values), aux

        gradient, aux = jax.grad(loss, has_aux=True)(parameters)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(parameters, updates), kernel.update(baseline, aux), state), None

    carry = (start, kernel.init(), optimizer.init(start))
    (parameters, *_), _ = jax.lax.scan(step, carry, jax.random.split(of_steps, steps))
    return policy(parameters)


def tables(*, seeds=10, steps=2000, samples=128, learning_rate=0.01):
    keys = jax.random.split(jax.random.key(0), seeds)

    @jax.jit
    @jax.vmap
    def all_divergences(key):
        return [train(key, k, steps=steps, samples=samples, learning_rate=learning_rate) for k in DIVERGENCES.values()]

    scores, log_partition = target()
    places = np.asarray(GRID).tolist()
    density = [
        {"divergence": "target", "seed": 0, "x": x, "probability": float(p)}
        for x, p in zip(places, jnp.exp(scores - log_partition), strict=True)
    ]
    ends = [_end("target", 0, scores - log_partition)]
    for name, logps in zip(DIVERGENCES, all_divergences(keys), strict=True):
        for s in range(seeds):
            density += [
                {"divergence": name, "seed": s, "x": x, "probability": float(p)}
                for x, p in zip(places, jnp.exp(logps[s]), strict=True)
            ]
            ends.append(_end(name, s, logps[s]))
    return {"densities": density, "ends": ends}


def _end(name, seed, logps):
    p = jnp.exp(logps)
    return {
        "divergence": name,
        "seed": seed,
        "reward": float(p @ rewards()),
        "entropy_nats": float(analysis.entropy(p)),
        "on_the_right": float(jnp.sum(jnp.where(GRID > 0, p, 0.0))),
    }


def mean_end(tables, divergence: str) -> dict[str, float]:
    """Means over the seeds: reward and entropy, and how uneven the two sides are, |2 p(right) - 1|."""
    rows = style.select(tables["ends"], divergence=divergence)
    uneven = [abs(2 * row["on_the_right"] - 1) for row in rows]
    means = {key: sum(row[key] for row in rows) / len(rows) for key in ("reward", "entropy_nats", "on_the_right")}
    return {**means, "uneven": sum(uneven) / len(uneven)}


def figure(tables):
    drawn, axes = style.panels(2)
    names = style.distinct(tables["ends"], "divergence")
    for name, colour, marker in zip(names, (style.COLOURS[-1], *style.COLOURS), ("*", *style.MARKERS), strict=False):
        rows = style.select(tables["densities"], divergence=name, seed=0)
        line = {"color": "0.6", "lw": 5} if name == "target" else {"color": colour}
        axes[0].plot([r["x"] for r in rows], [r["probability"] for r in rows], label=name, **line)
        ends = style.select(tables["ends"], divergence=name)
        size = 200 if name == "target" else 45
        axes[1].scatter(
            [r["entropy_nats"] for r in ends], [r["reward"] for r in ends], s=size, color=colour, marker=marker,
            label=name, alpha=0.8,
        )  # fmt: skip
    axes[0].set(xlabel="place on the line", ylabel="probability", title="one seed")
    axes[1].set(xlabel="entropy, nats", ylabel="mean reward", title="every seed")
    axes[1].legend(fontsize=9)
    return drawn
