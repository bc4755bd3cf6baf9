"""A reward model's accuracy on pairs against what is reached by selecting with it (arXiv 2311.00168)."""

import numpy as np

from alignment import evaluation
from experiments.reproductions import style

SMALL = None
DIMENSIONS, COUNT = 10, 256
NOISE, TAIL = "noise in all weights", "bias in the tail"


def reward_models(rng: np.random.Generator, gold: np.ndarray, models: int):
    """Yields (error, its size, score): scores of texts f[..., 10] by models that err more and more, in two ways.

    Noise moves all weights of the true linear reward. The bias rewards a direction that the truth does not know, but
    only of texts that are far out in it.
    """
    noise, direction = rng.standard_normal((2, DIMENSIONS))
    noise /= np.linalg.norm(noise)
    direction -= (direction @ gold) * gold
    direction /= np.linalg.norm(direction)
    for size in np.linspace(0, 4, models):
        yield NOISE, size, lambda texts, size=size: texts @ (gold + size * noise)
    for size in np.linspace(0, 6, models):
        yield TAIL, size, lambda texts, size=size: texts @ gold + size * np.maximum(texts @ direction - 1.5, 0.0)


def tables(*, seeds=5, models=30, pairs=4000, pools=16, pool=1024, rounds=200):
    scatter, curves, agreement = [], [], []
    counts = [2**i for i in range(pool.bit_length() - 1)]
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        gold = rng.standard_normal(DIMENSIONS)
        gold /= np.linalg.norm(gold)
        first, second = rng.standard_normal((2, pairs, DIMENSIONS))
        texts = rng.standard_normal((pools, pool, DIMENSIONS))
        rows, curve_of = [], {}
        for error, size, score in reward_models(rng, gold, models):
            right = (score(first) > score(second)) == (first @ gold > second @ gold)
            curve = evaluation.best_of_n_curve(score(texts), texts @ gold, counts=counts)
            curve_of[error, size] = curve
            reached = float(curve.gold[counts.index(COUNT)])
            row = {"seed": seed, "error": error, "size": float(size), "accuracy": float(right.mean()), "gold": reached}
            rows.append(row)
        scatter += rows
        # The worst bias, and the noise that costs as much accuracy: the same number on the validation pairs.
        worst = style.select(rows, error=TAIL)[-1]
        alike = min(style.select(rows, error=NOISE), key=lambda row: abs(row["accuracy"] - worst["accuracy"]))
        for row in (alike, worst):
            curve = curve_of[row["error"], row["size"]]
            curves += [
                {"seed": seed, "error": row["error"], "accuracy": row["accuracy"], "n": int(n), "gold": float(g),
                 "proxy": float(p)}
                for n, g, p in zip(curve.n, curve.gold, curve.proxy, strict=True)
            ]  # fmt: skip
        for name in (NOISE, TAIL, "both"):
            of_error = rows if name == "both" else style.select(rows, error=name)
            columns = [[row[key] for row in of_error] for key in ("accuracy", "gold")]
            found = evaluation.objective_mismatch(*columns, range(len(of_error)), rounds=rounds)
            agreement.append(
                {"seed": seed, "models": name, "spearman": found.spearman, "selection_regret": found.selection_regret}
            )
    return {"models": scatter, "curves": curves, "agreement": agreement}


def mean_agreement(tables, models: str) -> dict[str, float]:
    """Over the seeds: Spearman's correlation of accuracy and true reward, and what selecting by accuracy costs."""
    rows = style.select(tables["agreement"], models=models)
    return {key: sum(row[key] for row in rows) / len(rows) for key in ("spearman", "selection_regret")}


def mean_curve(tables, error: str, n: int) -> dict[str, float]:
    """Over the seeds: accuracy of the model of this error, and true reward and score of its best of n."""
    rows = style.select(tables["curves"], error=error, n=n)
    return {key: sum(row[key] for row in rows) / len(rows) for key in ("accuracy", "gold", "proxy")}


def figure(tables):
    drawn, axes = style.panels(2)
    for error, colour, marker in zip((NOISE, TAIL), style.COLOURS, style.MARKERS, strict=False):
        rows = style.select(tables["models"], error=error)
        points = [r["accuracy"] for r in rows], [r["gold"] for r in rows]
        axes[0].scatter(*points, s=20, color=colour, marker=marker, alpha=0.6, label=error)
        style.band(axes[1], style.select(tables["curves"], error=error), "n", "gold", label=error, color=colour)
    axes[0].set(xlabel="accuracy on held-out pairs", ylabel=f"true reward of the best of {COUNT}")
    axes[1].set(xscale="log", xlabel="n of best-of-n", ylabel="true reward", title="two models of the same accuracy")
    for axis in axes:
        axis.legend()
    return drawn
