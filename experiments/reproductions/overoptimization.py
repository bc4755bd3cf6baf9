"""Best-of-n against proxy rewards learnt from pairs, alone and as ensembles (arXiv 2210.10760, 2310.02743)."""

import jax
import jax.numpy as jnp
import numpy as np

from alignment import evaluation, losses
from alignment.rewards import ensembles, overoptimization
from experiments.reproductions import style

SMALL = {"seeds": 2, "steps": 20, "pool": 256}
DIMENSIONS, WAVES = 4, 16  # a text is a point; the gold reward a sum of waves
MEMBERS, FEATURES = 5, 40
REWARDS = {
    "mean": ensembles.ensemble_mean,
    "UWO": lambda scores: ensembles.uncertainty_weighted(scores, penalty=0.5),
    "WCO": ensembles.worst_case,
}


def gold_reward(key, texts):
    of_waves, of_phases, of_heights = jax.random.split(key, 3)
    waves = jax.random.normal(of_waves, (DIMENSIONS, WAVES))
    phases = 2 * jnp.pi * jax.random.uniform(of_phases, (WAVES,))
    return jnp.cos(texts @ waves + phases) @ jax.random.normal(of_heights, (WAVES,))


def reward_model(key, chosen, rejected, pool, *, steps, learning_rate):
    """Scores of the pool by a Bradley-Terry model: a layer of random rectified features of its own, and trained
    weights of these."""
    of_directions, of_corners = jax.random.split(key)
    directions = jax.random.normal(of_directions, (DIMENSIONS, FEATURES))
    corners = 2 * jax.random.normal(of_corners, (FEATURES,))

    def features(texts):
        return jax.nn.relu(texts @ directions + corners) / FEATURES**0.5

    better, worse = features(chosen), features(rejected)

    def loss(weights):
        return jnp.mean(losses.bt_reward_loss(better @ weights, worse @ weights))

    def step(weights, _):
        return weights - learning_rate * jax.grad(loss)(weights), None

    weights, _ = jax.lax.scan(step, jnp.zeros(FEATURES), None, length=steps)
    return features(pool) @ weights


def scores(key, flips, *, pairs, pool, **fit):
    """Of one draw of everything: the pool's gold scores [N], standardised, and the members' [N, MEMBERS]."""
    of_gold, of_pairs, of_flips, of_pool, of_models = jax.random.split(key, 5)
    first, second = jax.random.normal(of_pairs, (2, pairs, DIMENSIONS))
    right = gold_reward(of_gold, first) > gold_reward(of_gold, second)
    label = (right ^ (jax.random.uniform(of_flips, (pairs,)) < flips))[:, None]
    chosen, rejected = jnp.where(label, first, second), jnp.where(label, second, first)
    texts = jax.random.normal(of_pool, (pool, DIMENSIONS))
    gold = gold_reward(of_gold, texts)
    members = jax.vmap(lambda key: reward_model(key, chosen, rejected, texts, **fit))(
        jax.random.split(of_models, MEMBERS)
    ).T
    members = ensembles.standardised(members, jnp.mean(members, axis=0), jnp.std(members, axis=0))
    return (gold - jnp.mean(gold)) / jnp.std(gold), members


def tables(*, seeds=8, flips=(0.0, 0.25), pairs=400, pool=4096, steps=400, learning_rate=4.0):
    counts = [2**i for i in range((pool // 4).bit_length())]
    curves, laws = [], []
    for flip in flips:
        golds, members = jax.jit(
            jax.vmap(
                lambda key, flip=flip: scores(
                    key, flip, pairs=pairs, pool=pool, steps=steps, learning_rate=learning_rate
                )
            )
        )(jax.random.split(jax.random.key(0), seeds))
        for s in range(seeds):
            gold = np.asarray(golds[s])[None]
            alone = [_curve(members[s, :, k], gold, counts) for k in range(MEMBERS)]
            found = {"single": jax.tree.map(lambda *x: np.mean(x, axis=0), *alone)}
            found |= {name: _curve(combine(members[s]), gold, counts) for name, combine in REWARDS.items()}
            for name, curve in found.items():
                law = overoptimization.fit_best_of_n(jnp.sqrt(curve.kl), jnp.asarray(curve.gold, jnp.float32))
                fitted = overoptimization.best_of_n_reward(jnp.sqrt(curve.kl), law.alpha, law.beta)
                laws.append(
                    {
                        "flips": flip, "reward": name, "seed": s, "alpha": float(law.alpha), "beta": float(law.beta),
                        "largest_error_of_fit": float(abs(fitted - curve.gold).max()),
                        "peak_n": int(curve.n[curve.gold.argmax()]), "peak_gold": float(curve.gold.max()),
                        "lost": float(overoptimization.overoptimization(jnp.asarray(curve.gold, jnp.float32))),
                    }
                )  # fmt: skip
                curves += [
                    {
                        "flips": flip, "reward": name, "seed": s, "n": int(n), "kl_nats": float(kl), "gold": float(g),
                        "proxy": float(p),
                    }
                    for n, kl, g, p in zip(curve.n, curve.kl, curve.gold, curve.proxy, strict=True)
                ]  # fmt: skip
    return {"curves": curves, "laws": laws}


def _curve(proxy, gold, counts):
    curve = evaluation.best_of_n_curve(np.asarray(proxy)[None], gold, counts=counts)
    return curve._replace(proxy=(curve.proxy - np.mean(proxy)) / np.std(proxy))


def mean_law(tables, flips: float, reward: str) -> dict[str, float]:
    """Means over the seeds of what the curves and their fits say."""
    rows = style.select(tables["laws"], flips=flips, reward=reward)
    keys = ("peak_gold", "lost", "alpha", "beta", "largest_error_of_fit")
    return {key: sum(row[key] for row in rows) / len(rows) for key in keys}


def median_peak(tables, flips: float, reward: str) -> int:
    """The n with the best gold score, the (upper) median over the seeds."""
    peaks = sorted(row["peak_n"] for row in style.select(tables["laws"], flips=flips, reward=reward))
    return peaks[len(peaks) // 2]


def mean_at(tables, flips: float, reward: str, n: int) -> dict[str, float]:
    """Means over the seeds of both scores of the best of n."""
    rows = style.select(tables["curves"], flips=flips, reward=reward, n=n)
    return {key: sum(row[key] for row in rows) / len(rows) for key in ("gold", "proxy")}


def figure(tables):
    drawn, axes = style.panels(3)
    flips = style.distinct(tables["curves"], "flips")
    for flip, colour in zip(flips, style.COLOURS, strict=False):
        rows = style.select(tables["curves"], flips=flip, reward="single")
        style.band(axes[0], rows, "kl_nats", "gold", color=colour, label=f"gold, {flip:.0%} flipped")
        style.band(axes[0], rows, "kl_nats", "proxy", color=colour, ls="--", label=f"proxy, {flip:.0%} flipped")
    for axis, flip in zip(axes[1:], flips, strict=True):
        for reward in style.distinct(tables["curves"], "reward"):
            rows = style.select(tables["curves"], flips=flip, reward=reward)
            style.band(axis, rows, "kl_nats", "gold", label=reward)
        axis.set(title=f"gold, {flip:.0%} of labels flipped", ylim=(-0.2, 2))
    axes[0].set(title="one reward model", ylabel="score, deviations of a sample")
    for axis in axes:
        axis.set(xlabel="KL of best-of-n, nats")
        axis.legend()
    return drawn
