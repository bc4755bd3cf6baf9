"""Objective mismatch: how well what is trained on or selected by agrees with what is wanted, over runs or examples."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignment import checks
from alignment.evaluation import arrays, intervals

Array = jax.Array


class Mismatch(NamedTuple):
    """Correlations with intervals, what selecting by the proxy costs in gold, and n rows of so many runs."""

    pearson: float
    pearson_low: float
    pearson_high: float
    spearman: float
    spearman_low: float
    spearman_high: float
    kendall: float
    kendall_low: float
    kendall_high: float
    selection_regret: float
    n: int
    runs: int


class TurningPoint(NamedTuple):
    """Where gold peaks along the KL, and the slope of gold against proxy from there on (NaN if it peaks at the end)."""

    kl: float
    gold: float
    slope_after: float


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation of two vectors `[N]`; NaN if one is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 0 else float("nan")


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """`pearson` of the ranks, which equal values share."""
    return pearson(arrays.average_ranks(x), arrays.average_ranks(y))


def kendall(x: np.ndarray, y: np.ndarray) -> float:
    """tau-b = sum_{i<j} sign(dx) sign(dy) / sqrt(#{dx != 0} #{dy != 0}); NaN if one is constant. `[N]` each."""
    dx, dy = (np.sign(v[:, None] - v[None, :]) for v in (x, y))
    scale = np.sqrt(np.count_nonzero(dx) * np.count_nonzero(dy))
    return float((dx * dy).sum() / scale) if scale > 0 else float("nan")


def selection_regret(proxies: Sequence[float], golds: Sequence[float]) -> float:
    """max gold - gold of the row with the highest proxy: at least 0; equal proxies are averaged over. `[N]` each."""
    arrays.same_length(proxies=proxies, golds=golds)
    proxy, gold = arrays.vector("proxies", proxies), arrays.vector("golds", golds)
    return float(gold.max() - gold[proxy == proxy.max()].mean())


def objective_mismatch(
    proxies: Sequence[float],
    golds: Sequence[float],
    runs: Sequence,
    *,
    rounds: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Mismatch:
    """Pearson, Spearman and Kendall's tau-b of two columns of a table of runs, and the regret of selecting by one.

    One link of the chain at a time: reward-model accuracy against the reward that the policy reaches, that reward
    against what the user scores downstream.

    Args:
      proxies: what one selects by, for example reward-model accuracy.
      golds: what one wants.
      runs: label of each row's run: checkpoints of one run are not independent, so the bootstrap draws runs.
      rounds, level, seed: of the bootstrap. Samples in which a column is constant are left out of it.

    Shapes: `[N]` each.

    Raises: ValueError for a constant column (it correlates with nothing), fewer than 3 rows, lengths that differ,
      values that are not finite.

    Paper: Lambert and Calandra, 2023 (The Alignment Ceiling), arXiv 2311.00168. It is a position paper: the report is
    what its three links need to be measured.
    """
    arrays.same_length(proxies=proxies, golds=golds, runs=runs)
    columns = {"proxies": arrays.vector("proxies", proxies), "golds": arrays.vector("golds", golds)}
    x, y = columns.values()
    if len(x) < 3:
        raise ValueError(f"a correlation needs at least 3 rows, got {len(x)}")
    for name, values in columns.items():
        if (values == values[0]).all():
            raise ValueError(f"{name} are {values[0]:g} in every row: a constant column correlates with nothing")
    measures = (pearson, spearman, kendall)

    def drawn(counts):
        rows = np.repeat(np.arange(len(x)), counts)
        return [measure(x[rows], y[rows]) for measure in measures]

    low, high = intervals.percentiles(intervals.bootstrap(drawn, runs, rounds=rounds, seed=seed), level=level)
    values = [
        number
        for measure, below, above in zip(measures, low, high, strict=True)
        for number in (measure(x, y), float(below), float(above))
    ]
    return Mismatch(*values, selection_regret(x, y), len(x), len(set(runs)))


def turning_point(kls: Sequence[float], proxies: Sequence[float], golds: Sequence[float]) -> TurningPoint:
    """Where a run's gold score peaks on its way, and how gold follows the proxy from there to the end (least squares).

    Args:
      kls: distance from the start of each checkpoint, in nats; the rows are sorted by it.
      proxies: the score that is optimised.
      golds: the score that is meant.

    Shapes: `[N]` each. The slope is NaN where fewer than two different proxies are left.

    Raises: ValueError for lengths that differ or values that are not finite.

    Paper: Lambert and Calandra, 2023, arXiv 2311.00168; the curves are those of Gao et al., 2022, arXiv 2210.10760.
    """
    arrays.same_length(kls=kls, proxies=proxies, golds=golds)
    kl, proxy, gold = (
        arrays.vector(*pair) for pair in (("kls", kls), ("proxies", proxies), ("golds", golds))
    )  # fmt: skip
    order = np.argsort(kl, kind="stable")
    kl, proxy, gold = kl[order], proxy[order], gold[order]
    peak = int(np.argmax(gold))
    x, y = proxy[peak:] - proxy[peak:].mean(), gold[peak:]
    slope = float(x @ y / (x @ x)) if (x != 0).any() else float("nan")
    return TurningPoint(float(kl[peak]), float(gold[peak]), slope)


def distance_weights(distances: Array, valid: Array, *, scale: float, axis_name: Any = None) -> Array:
    """w_i = exp(-d_i / scale) over its mean: weights with which a model's loss cares for what lies near a good policy.

    Likelihood on a data set need not track the return of a policy that uses the model; examples far from where the
    policy goes count less. For reward models d is the distance of a pair from the policy's distribution, such as the
    negative log-prob of its completions. Only differences of distances matter. A small `scale` leaves few examples:
    look at `effective_sample_size`.

    Args:
      distances: of each example. Held fixed.
      valid: False for padding rows, whose weight is 0 and which no mean knows of.
      scale: in (0, inf), in the unit of the distances.
      axis_name: mapped axis that the batch is split over, for the mean.

    Shapes: `[N]`, bool `[N]`; result float32 `[N]`, mean 1 over the valid ones. No gradient passes.

    Raises: AssertionError for shapes or dtypes; ValueError for a scale out of range.

    Paper: Lambert et al., 2020 (Objective Mismatch in Model-based Reinforcement Learning), arXiv 2002.04523.
    """
    (distances,) = checks.floats(distances=distances)
    checks.boolean(valid=valid)
    checks.same_shape(distances=distances, valid=valid)
    checks.number("scale", scale, 0.0)
    logits = jnp.where(valid, -jax.lax.stop_gradient(jnp.where(valid, distances, 0.0)) / scale, -jnp.inf)
    # A shift changes nothing, and keeps the exponentials of the nearest from underflowing. -1e30: no valid row at all.
    highest = jnp.maximum(jnp.max(logits), -1e30)
    if axis_name is not None:
        highest = jax.lax.pmax(highest, axis_name)
    near = jnp.where(valid, jnp.exp(logits - highest), 0.0)
    total, count = jnp.sum(near), jnp.sum(valid)
    if axis_name is not None:
        total, count = jax.lax.psum(total, axis_name), jax.lax.psum(count, axis_name)
    return near * count / jnp.where(total > 0, total, 1.0)


def effective_sample_size(weights: Array) -> Array:
    """(sum w)^2 / sum w^2: N for equal weights, 1 if one has them all. Shapes: `[..., N]`; result float32 `[...]`."""
    (weights,) = checks.floats(weights=weights)
    square = jnp.sum(weights**2, axis=-1)
    return jnp.sum(weights, axis=-1) ** 2 / jnp.where(square > 0, square, 1.0)
