"""How many candidates rejection sampling needs until what it keeps is a sample of the optimal policy (2309.06657)."""

import functools

import jax
import jax.numpy as jnp

from alignment import analysis, games
from alignment.data.recipes.statistical_rejection_sampling import statistical_rejection_sampling_fixed
from experiments.reproductions import style

RESPONSES = 20
SMALL = {"seeds": 2, "prompts": 256, "counts": (8, 16), "betas": (0.5,)}


def kept_counts(key, logps, rewards, *, count: int, kept: int, beta: float, prompts: int):
    """How often each response was kept when `kept` of `count` candidates of every prompt are: f[RESPONSES]."""

    def some(key):
        of_candidates, of_passes = jax.random.split(key)
        candidates = jax.random.categorical(of_candidates, logps, shape=(prompts // 16, count))
        uniforms = jax.random.uniform(of_passes, (prompts // 16, kept, count))
        # With at least `kept` candidates and as many passes, every place is filled.
        chosen = statistical_rejection_sampling_fixed(rewards[candidates], uniforms, k=kept, beta=beta)
        responses = jnp.take_along_axis(candidates, chosen, axis=-1)
        return jnp.bincount(responses.reshape(-1), length=RESPONSES)

    return jnp.sum(jax.lax.map(some, jax.random.split(key, 16)), axis=0)


def _standardised(rewards, p):
    """Of mean 0 and deviation 1 under p."""
    centred = rewards - p @ rewards
    return centred / jnp.sqrt(p @ jnp.square(centred))


def tables(*, seeds=5, prompts=2048, kept=8, counts=(8, 16, 32, 64, 128), at=64, beta=0.5,
           betas=(0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0)):  # fmt: skip
    keys = jax.random.split(jax.random.key(0), seeds)
    logps = jax.nn.log_softmax(jax.random.normal(jax.random.key(1), (seeds, RESPONSES)))
    rewards = jax.random.normal(jax.random.key(2), (seeds, RESPONSES))
    rewards = jax.vmap(_standardised)(rewards, jnp.exp(logps))

    @functools.partial(jax.jit, static_argnames="count")
    def laws(betas, count):
        """Log of the law of the kept, f[betas, seeds, RESPONSES]."""

        def one(beta, key, logps, rewards):
            found = kept_counts(key, logps, rewards, count=count, kept=kept, beta=beta, prompts=prompts)
            return jnp.log(found / jnp.sum(found))

        return jax.vmap(lambda beta: jax.vmap(functools.partial(one, beta))(keys, logps, rewards))(betas)

    def drawn(law):
        """As many independent draws of a law: how far sampling alone puts them from it."""
        draws = jax.vmap(lambda key, x: jax.random.categorical(key, x, shape=(prompts * kept,)))(keys, law)
        return jnp.log(jax.vmap(lambda x: jnp.bincount(x, length=RESPONSES))(draws) / (prompts * kept))

    optimum = analysis.kl_regularised_optimum(logps, rewards, beta=beta)
    by_count = {count: laws(jnp.array([beta]), count)[0] for count in counts}
    by_beta = dict(zip(betas, laws(jnp.array(betas), at), strict=True))
    noise = games.total_variation(drawn(optimum), optimum)
    distances = [
        {"seed": s, "candidates": count, "distance_to": name, "total_variation": float(value)}
        for count, found in by_count.items()
        for name, target in (("optimal policy", optimum), ("sampling policy", logps))
        for s, value in enumerate(games.total_variation(found, target))
    ]
    floor = [{"seed": s, "total_variation": float(x)} for s, x in enumerate(noise)]

    def mean(law):
        return jnp.sum(jnp.exp(law) * rewards, axis=-1)

    def top(key, logps, rewards):
        candidates = jax.random.categorical(key, logps, shape=(prompts, at))
        return jnp.mean(jax.lax.top_k(rewards[candidates], kept)[0])

    best = jax.vmap(top)(keys, logps, rewards)
    rows = []
    for b in betas:
        columns = {
            f"best {kept} of {at}": best,
            "optimal policy": mean(analysis.kl_regularised_optimum(logps, rewards, beta=b)),
            f"kept {kept} of {at}": mean(by_beta[b]),
            "sampling policy": mean(logps),
        }
        rows += [
            {"seed": s, "beta": b, "law": name, "reward": float(value)}
            for name, values in columns.items()
            for s, value in enumerate(values)
        ]
    return {"distances": distances, "sampling_noise": floor, "rewards": rows}


def _mean(rows, column: str) -> float:
    return sum(row[column] for row in rows) / len(rows)


def mean_distance(tables, count: int) -> float:
    """From the optimal policy, over the problems."""
    rows = style.select(tables["distances"], candidates=count, distance_to="optimal policy")
    return _mean(rows, "total_variation")


def mean_noise(tables) -> float:
    """Distance of as many exact draws of the optimal policy from it, over the problems."""
    return _mean(tables["sampling_noise"], "total_variation")


def mean_reward(tables, beta: float, law: str) -> float:
    """Mean reward under a law, over the problems."""
    return _mean(style.select(tables["rewards"], beta=beta, law=law), "reward")


def figure(tables):
    drawn, axes = style.panels(2)
    for target in style.distinct(tables["distances"], "distance_to"):
        rows = style.select(tables["distances"], distance_to=target)
        style.band(axes[0], rows, "candidates", "total_variation", label=f"to the {target}", marker="o")
    axes[0].axhline(mean_noise(tables), color="0.4", ls="--", label="exact draws of the optimal policy")
    axes[0].set(
        xscale="log",
        yscale="log",
        ylim=(5e-4, 2),
        xlabel="candidates for 8 kept",
        ylabel="total variation of the law of the kept",
    )
    for law, line in zip(style.distinct(tables["rewards"], "law"), (":", "-", "-", ":"), strict=True):
        style.band(axes[1], style.select(tables["rewards"], law=law), "beta", "reward", label=law, ls=line)
    axes[1].set(xscale="log", xlabel="beta of the target", ylabel="mean reward, deviations of a sample")
    axes[0].legend(loc="lower left")
    axes[1].legend()
    return drawn
