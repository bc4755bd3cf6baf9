"""How far a judge's confidence can be trusted: calibration, confident errors, selective prediction."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from alignment import checks
from alignment.evaluation import arrays, intervals


class Calibration(NamedTuple):
    """Of N answers with a confidence each; see `judge_calibration`. All in [0, 1]."""

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    ece: float
    brier: float
    wrong_at_080: float
    wrong_at_090: float
    wrong_at_095: float
    aurc: float
    n: int


class Reliability(NamedTuple):
    """Per bin `[bins]`: mean confidence, accuracy (NaN where empty) and how many."""

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


class RiskCoverage(NamedTuple):
    """coverage k / N and risk, the error rate among the k most confident, each `[N]`."""

    coverage: np.ndarray
    risk: np.ndarray


class BrierParts(NamedTuple):
    """Brier score = reliability - resolution + uncertainty."""

    reliability: float
    resolution: float
    uncertainty: float


def _checked(confidences, correct) -> tuple[np.ndarray, np.ndarray]:
    arrays.same_length(confidences=confidences, correct=correct)
    right = arrays.vector("correct", correct)
    if not np.isin(right, (0, 1)).all():
        raise ValueError("correct must be true or false (or 1 or 0) everywhere")
    return arrays.shares("confidences", confidences), right


def judge_calibration(
    confidences: Sequence[float],
    correct: Sequence[bool],
    *,
    bins: int = 10,
    rounds: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Calibration:
    """Accuracy with a bootstrap interval, ECE, Brier score, errors among confident answers, area under risk-coverage.

    Args:
      confidences: in [0, 1], what the judge says of its answer.
      correct: whether the answer is right. For a similarity to the gold answer, first `similarity_threshold`.
      bins: of the ECE, of equal width.
      rounds, level, seed: of the bootstrap of the accuracy.

    Shapes: `[N]` each.

    Raises: ValueError for confidences outside [0, 1], `correct` that is neither true nor false, lengths that differ.

    Paper: Kim et al., 2025 (ObjexMT), arXiv 2508.16889.
    """
    confidence, right = _checked(confidences, correct)
    n = len(right)
    drawn = intervals.bootstrap(lambda counts: counts @ right / n, range(n), rounds=rounds, seed=seed)
    low, high = intervals.percentiles(drawn, level=level)
    wrong = [wrong_at_confidence(confidence, right, at=at) for at in (0.8, 0.9, 0.95)]
    return Calibration(
        float(right.mean()), float(low), float(high), expected_calibration_error(confidence, right, bins=bins),
        brier_score(confidence, right), *wrong, area_under_risk_coverage(confidence, right), n,
    )  # fmt: skip


def reliability(confidences: Sequence[float], correct: Sequence[bool], *, bins: int = 10) -> Reliability:
    """Mean confidence and accuracy in bins [i / bins, (i + 1) / bins), the last one closed. Shapes: `[N]`; `[bins]`."""
    confidence, right = _checked(confidences, correct)
    checks.positive_integer("bins", bins)
    # 0.29 * 100 is 28.999...: what is an edge in decimals shall be one here.
    place = np.minimum(np.floor(np.round(confidence * bins, 9)).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, weights=x, minlength=bins) / count for x in (confidence, right)]
    return Reliability(*means, count)


def expected_calibration_error(confidences: Sequence[float], correct: Sequence[bool], *, bins: int = 10) -> float:
    """sum over bins of (n_bin / N) |mean confidence - accuracy|. Shapes: `[N]` each."""
    confidence, accuracy, count = reliability(confidences, correct, bins=bins)
    return float(np.sum(np.where(count > 0, count * np.abs(confidence - accuracy), 0.0)) / count.sum())


def brier_score(confidences: Sequence[float], correct: Sequence[bool]) -> float:
    """mean (confidence - correct)^2. Shapes: `[N]` each."""
    confidence, right = _checked(confidences, correct)
    return float(np.mean((confidence - right) ** 2))


def brier_parts(confidences: Sequence[float], correct: Sequence[bool]) -> BrierParts:
    """The Brier score by distinct confidences: how far off, how well told apart, how uncertain the whole is.

    Shapes: `[N]` each. Paper: Murphy, 1973, A New Vector Partition of the Probability Score.
    """
    confidence, right = _checked(confidences, correct)
    within, base = arrays.mean_over_ties(confidence, right), right.mean()
    return BrierParts(
        float(np.mean((confidence - within) ** 2)), float(np.mean((within - base) ** 2)), float(base * (1 - base))
    )


def wrong_at_confidence(confidences: Sequence[float], correct: Sequence[bool], *, at: float) -> float:
    """The share of wrong answers among those with a confidence of at least `at`; NaN if there are none.

    The conditional form: what the abstract of arXiv 2508.16889 quotes. One of the public scripts divides by all N.
    Shapes: `[N]` each.
    """
    confidence, right = _checked(confidences, correct)
    checks.number("at", at, 0.0, 1.0, closed="both")
    sure = confidence >= at
    return float(1 - right[sure].mean()) if sure.any() else float("nan")


def risk_coverage(confidences: Sequence[float], correct: Sequence[bool]) -> RiskCoverage:
    """risk(k / N) = 1 - mean of `correct` over the k most confident; equal confidences are averaged over their orders.

    Spoken confidences are few numbers, so without that average the curve would depend on the order of the file.
    Shapes: `[N]` each.
    """
    confidence, right = _checked(confidences, correct)
    right = arrays.mean_over_ties(confidence, right)[np.argsort(-confidence, kind="stable")]
    k = np.arange(1, len(right) + 1)
    return RiskCoverage(k / len(right), 1 - np.cumsum(right) / k)


def area_under_risk_coverage(confidences: Sequence[float], correct: Sequence[bool]) -> float:
    """The trapezoids under `risk_coverage` from 1/N to 1; 0 for a single answer. Shapes: `[N]` each."""
    coverage, risk = risk_coverage(confidences, correct)
    return float(np.sum((risk[1:] + risk[:-1]) / 2 * np.diff(coverage)))


def similarity_threshold(similarities: Sequence[float], labels: Sequence[bool]) -> float:
    """argmax over t = 0, 0.01, ..., 1 of the F1 of [similarity >= t] against human labels; the first maximum.

    Raises: ValueError for similarities outside [0, 1], no positive label, lengths that differ.

    Shapes: `[N]` each. Paper: Kim et al., 2025, arXiv 2508.16889 (0.61 from 100 items in its first
    version, 0.66 from 300 in the last).
    """
    similarity, positive = _checked(similarities, labels)
    if not positive.any():
        raise ValueError("labels must have at least one that is true")
    # In hundredths: 0.29 of the data and 29 / 100 of the grid shall be equal.
    called = np.round(similarity * 100, 9)[None, :] >= np.arange(101)[:, None]
    hits = called @ positive
    f1 = 2 * hits / (called.sum(axis=1) + positive.sum())
    return int(np.argmax(f1)) / 100
