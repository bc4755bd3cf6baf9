"""Win rates of pairwise comparisons, ties as half a win, with what is known of their error."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from alignment import checks
from alignment.evaluation import arrays, intervals

VERDICTS = {"A>>B": 1.0, "A>B": 1.0, "A=B": 0.5, "B=A": 0.5, "B>A": 0.0, "A<B": 0.0, "B>>A": 0.0, "A<<B": 0.0}
"""What a judge says of answers A and B, and A's outcome."""


class WinRate(NamedTuple):
    """win_rate in [0, 1] with Wilson's interval and the bootstrap's; wins, ties, losses and n count prompts."""

    win_rate: float
    low: float
    high: float
    bootstrap_low: float
    bootstrap_high: float
    standard_error: float
    wins: int
    ties: int
    losses: int
    n: int


class WinRateMatrix(NamedTuple):
    """model [M] and win_rate [M, M]: of the row's model against the column's; NaN where they never met."""

    model: list[str]
    win_rate: np.ndarray


def outcomes_of_scores(first: Sequence[float], second: Sequence[float], *, tie_within: float = 0.0) -> np.ndarray:
    """1, 1/2 or 0 `[N]`: first above second by more than `tie_within`, within it, or below.

    Raises: ValueError for lengths that differ, scores that are not finite, a negative `tie_within`.
    """
    arrays.same_length(first=first, second=second)
    checks.number("tie_within", tie_within, 0.0, closed="left")
    difference = arrays.vector("first", first) - arrays.vector("second", second)
    return np.where(np.abs(difference) <= tie_within, 0.5, (difference > 0).astype(np.float64))


def outcome_of_verdict(verdict: str) -> float:
    """A's outcome; ValueError for what is no verdict of `VERDICTS`."""
    if verdict not in VERDICTS:
        raise ValueError(f"verdict {verdict!r} is not one of {', '.join(VERDICTS)}")
    return VERDICTS[verdict]


def verdict_weight(verdict: str, *, strong: float = 3.0) -> float:
    """`strong` for A>>B and B>>A, 1 for the others: a strong verdict counts as so many battles (Arena-Hard: 3)."""
    outcome_of_verdict(verdict)
    checks.number("strong", strong, 0.0)
    return strong if ">>" in verdict or "<<" in verdict else 1.0


def win_rate(
    outcomes: Sequence[float], prompts: Sequence, *, level: float = 0.95, rounds: int = 1000, seed: int = 0
) -> WinRate:
    """(wins + ties / 2) / n, with standard error std(outcomes, ddof=1) / sqrt(n) and intervals.

    Outcomes of one prompt (several samples, or a judge asked in both orders) are averaged first, and n counts prompts:
    otherwise the error comes out too small. A prompt is a win where its mean is above 1/2.

    Args:
      outcomes: 1 won, 1/2 tie, 0 lost; or any share in between, as of a judge's probabilities.
      prompts: label of each outcome's prompt.
      level: of Wilson's interval (`low`, `high`) and of the bootstrap's over prompts.
      rounds, seed: of the bootstrap.

    Shapes: `[N]` each. The standard error of a single prompt is NaN.

    Raises: ValueError for outcomes outside [0, 1], lengths that differ, nothing at all, a static value out of range.
    """
    arrays.same_length(outcomes=outcomes, prompts=prompts)
    labels, numbers = arrays.groups(prompts)
    means = arrays.group_means(arrays.shares("outcomes", outcomes), numbers)
    n, rate = len(labels), float(means.mean())
    error = float(means.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    low, high = intervals.wilson_interval(rate, n, level=level)
    drawn = intervals.bootstrap(lambda counts: counts @ means / n, range(n), rounds=rounds, seed=seed)
    again = intervals.percentiles(drawn, level=level)
    wins, losses = int((means > 0.5).sum()), int((means < 0.5).sum())
    return WinRate(rate, low, high, float(again[0]), float(again[1]), error, wins, n - wins - losses, losses, n)


def win_rate_matrix(
    models: Sequence[str], opponents: Sequence[str], outcomes: Sequence[float], prompts: Sequence
) -> WinRateMatrix:
    """Win rates of all pairs of models that met, both directions of each battle. Rate [i, j] + rate [j, i] = 1.

    Prompts are averaged first, as in `win_rate`. Shapes: `[N]` each; a model against itself is 1/2 by definition.

    Raises: ValueError for outcomes outside [0, 1] or lengths that differ.
    """
    arrays.same_length(models=models, opponents=opponents, outcomes=outcomes, prompts=prompts)
    values = arrays.shares("outcomes", outcomes)
    names, numbers = arrays.groups([*models, *opponents])
    row, column = np.split(numbers, 2)
    # Each battle from both sides; then the mean of each (row, column, prompt), then over prompts.
    cells = [*zip(row, column, prompts, strict=True), *zip(column, row, prompts, strict=True)]
    keys, of_cell = arrays.groups(cells)
    means = arrays.group_means(np.concatenate([values, 1 - values]), of_cell)
    total, count = np.zeros((2, len(names), len(names)))
    for (i, j, _), mean in zip(keys, means, strict=True):
        total[i, j] += mean
        count[i, j] += 1
    rates = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    np.fill_diagonal(rates, 0.5)
    return WinRateMatrix(names, rates)


def policy_win_rate(first: np.ndarray, preferences: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Exact: sum over y, y' of first(y) P(y beats y') second(y'), for policies over a finite set.

    Shapes: `[..., Y]`, `[..., Y, Y]`, `[..., Y]`; result `[...]`. With P + P' = 1 the two directions sum to 1, and a
    policy against itself has 1/2.

    Raises: ValueError for shapes that do not fit or preferences outside [0, 1].
    """
    first, preferences, second = (np.asarray(x, np.float64) for x in (first, preferences, second))
    y = first.shape[-1]
    if second.shape[-1:] != (y,) or preferences.shape[-2:] != (y, y):
        raise ValueError(f"shapes {first.shape}, {preferences.shape}, {second.shape} must be [Y], [Y, Y], [Y]")
    if not ((preferences >= 0) & (preferences <= 1)).all():
        raise ValueError("preferences must lie in [0, 1]")
    return np.einsum("...i,...ij,...j->...", first, preferences, second)
