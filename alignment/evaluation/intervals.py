"""Intervals of what was measured on a sample: Wilson's for shares, the bootstrap over clusters for anything."""

import statistics
from collections.abc import Callable, Sequence

import numpy as np

from alignment import checks
from alignment.evaluation import arrays


def wilson_interval(rate: float, count: int, *, level: float = 0.95) -> tuple[float, float]:
    """The share's values that a normal test at `level` would not reject: never outside [0, 1], nor empty at 0 or 1.

        (rate + z^2 / 2n -+ z sqrt(rate (1 - rate) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    For outcomes with ties, or means over samples of a prompt, it errs towards too wide: they vary less than a coin.

    Raises: ValueError for a rate outside [0, 1], no observations, or a level outside (0, 1).

    Paper: Wilson, 1927, Probable Inference, the Law of Succession, and Statistical Inference (JASA 22).
    """
    checks.number("rate", rate, 0.0, 1.0, closed="both")
    checks.number("level", level, 0.0, 1.0)
    checks.positive_integer("count", count)
    z = statistics.NormalDist().inv_cdf((1 + level) / 2)
    centre = rate + z * z / (2 * count)
    half = z * np.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return float(max(0.0, (centre - half) / scale)), float(min(1.0, (centre + half) / scale))


def bootstrap(
    statistic: Callable[[np.ndarray], float | np.ndarray], clusters: Sequence, *, rounds: int = 1000, seed: int = 0
) -> np.ndarray:
    """Values of a statistic on samples, with replacement, of whole clusters. `[rounds, ...]`.

    Entries of one cluster (the two orders of a prompt, the checkpoints of a run) depend on each other, and are drawn
    together or not at all.

    Args:
      statistic: takes counts `[N]` (int, how often each entry was drawn) and gives a number or an array.
      clusters: label of each entry, N of them.
      rounds: samples.
      seed: of the draws; the same seed draws the same.

    Raises: ValueError without entries or rounds.
    """
    checks.positive_integer("rounds", rounds)
    labels, numbers = arrays.groups(clusters)
    if not labels:
        raise ValueError("clusters must name at least one entry")
    rng = np.random.default_rng(seed)
    draws = (np.bincount(rng.integers(len(labels), size=len(labels)), minlength=len(labels)) for _ in range(rounds))
    return np.array([statistic(drawn[numbers]) for drawn in draws])


def percentiles(values: np.ndarray, *, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """The central `level` of values `[rounds, ...]`: (low, high), each `[...]`.

    Between two values it takes the outer one, so that infinite ones stay infinite. NaN rounds (a model that no battle
    of the sample was about) are left out; all NaN gives NaN.
    """
    checks.number("level", level, 0.0, 1.0)
    tail = 50 * (1 - level)
    values = np.asarray(values, np.float64)
    some = ~np.isnan(values).all(axis=0)
    kept = np.where(some, values, 0.0)
    low = np.nanpercentile(kept, tail, axis=0, method="lower")
    high = np.nanpercentile(kept, 100 - tail, axis=0, method="higher")
    return np.where(some, low, np.nan), np.where(some, high, np.nan)
