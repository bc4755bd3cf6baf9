"""Ratings of models by the Bradley-Terry likelihood of their battles, on Elo's scale, with bootstrap intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from alignment import checks
from alignment.evaluation import arrays, intervals

PER_NAT = 400 / np.log(10)  # Elo points: 400 are odds of ten to one
ANCHOR_RATING = 1000.0


class Ratings(NamedTuple):
    """Columns `[M]`, best first: model, rating, its interval, score = 100 P(beats the anchor), battles, status.

    status is "" or says why a rating is not finite: "never wins", "never loses", "never met the anchor".
    """

    model: list[str]
    rating: np.ndarray
    low: np.ndarray
    high: np.ndarray
    score: np.ndarray
    battles: np.ndarray
    status: list[str]


def bradley_terry_elo(
    models: Sequence[str],
    opponents: Sequence[str],
    outcomes: Sequence[float],
    weights: Sequence[float],
    prompts: Sequence,
    *,
    anchor: str,
    prior: float = 0.0,
    rounds: int = 100,
    level: float = 0.95,
    seed: int = 0,
) -> Ratings:
    """Elo = 1000 + 400 / ln 10 * theta, theta of maximal likelihood with theta(anchor) = 0.

        sum_n w_n [ s_n log s(theta_a - theta_b) + (1 - s_n) log s(theta_b - theta_a) ],  s: the logistic function

    P(a beats b) = 1 / (1 + 10^((R_b - R_a) / 400)). Where the likelihood has no maximum it grows without bound, and
    the limit is given: a model that (directly or through others) scores against the anchor's circle and never gives a
    point back has the rating inf, the reverse -inf, and one without a chain of battles to the anchor NaN; the others
    are fitted among themselves. `prior` > 0 makes all ratings finite.

    Args:
      models, opponents: names of the two sides of each battle.
      outcomes: of `models`: 1 won, 1/2 tie, 0 lost, or a share in between.
      weights: how many battles each counts for (3 for a strong verdict), in (0, inf).
      prompts: label of each battle's prompt. The bootstrap draws prompts, because the two orders of one prompt depend
        on each other (the public code draws battles).
      anchor: the model with the rating 1000.
      prior: tied battles against the anchor that every other model is given, in [0, inf).
      rounds, level, seed: of the bootstrap; v0.1 of Arena-Hard uses 100 rounds and 95 %.

    Shapes: `[N]` each; results `[M]`.

    Raises: ValueError for an anchor without battles, a battle of a model with itself, lengths that differ, outcomes
      outside [0, 1], weights that are not positive.

    Paper: Li et al., 2024 (From Crowdsourced Data to High-Quality Benchmarks), arXiv 2406.11939; its code before v2
    duplicates rows and counts half of each tie as a win, which is the same likelihood.
    """
    battles = _battles(models, opponents, outcomes, weights, prompts, anchor)
    features = np.zeros((len(battles.outcomes), 0))
    return _rate(battles, features, anchor, prior, rounds, level, seed)


def length_controlled_elo(
    models: Sequence[str],
    opponents: Sequence[str],
    outcomes: Sequence[float],
    weights: Sequence[float],
    prompts: Sequence,
    lengths: Sequence[float],
    baseline_lengths: Sequence[float],
    *,
    anchor: str,
    prior: float = 0.0,
    rounds: int = 100,
    level: float = 0.95,
    seed: int = 0,
) -> Ratings:
    """`bradley_terry_elo` with a term for style in each battle's log-odds: phi * z, and ratings at z = 0.

    z is (len_a - len_b) / (len_a + len_b) over its standard deviation; it is not centred, as two answers of one length
    shall differ by their ratings alone (the public code centres it). `lengths` are of `models`' answers,
    `baseline_lengths` of `opponents`'; at least one of a battle must be positive. Everything else: `bradley_terry_elo`.

    Shapes: `[N]` each; results `[M]`.

    Raises: ValueError as `bradley_terry_elo`, and for lengths that are negative or both 0.

    Paper: Li et al., 2024, arXiv 2406.11939 (style control, as in its code from v2 on).
    """
    battles = _battles(models, opponents, outcomes, weights, prompts, anchor)
    arrays.same_length(models=models, lengths=lengths, baseline_lengths=baseline_lengths)
    ours, theirs = arrays.vector("lengths", lengths), arrays.vector("baseline_lengths", baseline_lengths)
    if (ours < 0).any() or (theirs < 0).any() or not (ours + theirs).all():
        raise ValueError("lengths and baseline_lengths must be at least 0, and one of a battle positive")
    share = (ours - theirs) / (ours + theirs)
    spread = share.std()
    features = (share / spread if spread > 0 else np.zeros_like(share))[:, None]
    return _rate(battles, features, anchor, prior, rounds, level, seed)


class _Battles(NamedTuple):
    names: list[str]
    first: np.ndarray
    second: np.ndarray
    outcomes: np.ndarray
    weights: np.ndarray
    prompts: Sequence


def _battles(models, opponents, outcomes, weights, prompts, anchor) -> _Battles:
    arrays.same_length(models=models, opponents=opponents, outcomes=outcomes, weights=weights, prompts=prompts)
    values, weights = arrays.shares("outcomes", outcomes), arrays.vector("weights", weights)
    if (weights <= 0).any():
        raise ValueError(f"weights must lie in (0, inf), got {weights.min():g}")
    names, numbers = arrays.groups([*models, *opponents])
    if anchor not in names:
        raise ValueError(f"anchor {anchor!r} has no battle; there are: {', '.join(names)}")
    first, second = np.split(numbers, 2)
    if (first == second).any():
        raise ValueError(f"a battle of {names[first[np.argmax(first == second)]]} with itself says nothing")
    return _Battles(names, first, second, values, weights, prompts)


def _rate(battles: _Battles, features, anchor, prior, rounds, level, seed) -> Ratings:
    checks.number("prior", prior, 0.0, closed="left")
    names, first, second, outcomes, weights, prompts = battles
    home = names.index(anchor)
    others = np.array([i for i in range(len(names)) if i != home])
    if prior > 0:
        first, second = np.append(first, others), np.append(second, np.full(len(others), home))
        outcomes, weights = np.append(outcomes, np.full(len(others), 0.5)), np.append(weights, [prior] * len(others))
        features = np.append(features, np.zeros((len(others), features.shape[1])), axis=0)

    def ratings(counts: np.ndarray) -> np.ndarray:
        # A battle of the prior is in every sample.
        drawn = weights * np.append(counts, np.ones(len(weights) - len(counts)))
        return ANCHOR_RATING + PER_NAT * _thetas(first, second, outcomes, drawn, features, len(names), home)

    values = ratings(np.ones(len(prompts)))
    if np.isnan(values[home]):
        raise ValueError("the term for length has no finite value: which answer is longer decides too many battles")
    low, high = intervals.percentiles(intervals.bootstrap(ratings, prompts, rounds=rounds, seed=seed), level=level)
    scores = 100 / (1 + 10 ** ((ANCHOR_RATING - values) / 400))
    # A weight counts for so many battles in the likelihood, but a strong verdict is still one battle.
    count = np.bincount(battles.first, minlength=len(names)) + np.bincount(battles.second, minlength=len(names))
    said = {np.inf: "never loses", -np.inf: "never wins"}
    status = ["never met the anchor" if np.isnan(v) else said.get(v, "") for v in values]
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")
    return Ratings(
        [names[i] for i in order], values[order], low[order], high[order], scores[order], count[order],
        [status[i] for i in order],
    )  # fmt: skip


def _thetas(first, second, outcomes, weights, features, models: int, home: int) -> np.ndarray:
    """Log-strengths `[M]` of maximal likelihood, 0 for `home`; +-inf and NaN as `bradley_terry_elo` says."""
    drawn = weights > 0
    first, second, outcomes, weights, features = (
        x[drawn] for x in (first, second, outcomes, weights, features)
    )  # fmt: skip
    scored = np.zeros((models, models), bool)  # [a, b]: a has a point from b
    np.logical_or.at(scored, (first, second), outcomes > 0)
    np.logical_or.at(scored, (second, first), outcomes < 1)
    below, above = _reached(scored, home), _reached(scored.T, home)
    theta = np.full(models, np.nan)
    theta[above & ~below], theta[below & ~above] = np.inf, -np.inf
    circle = above & below
    among = circle[first] & circle[second]
    numbers = np.cumsum(circle) - 1
    first, second = numbers[first[among]], numbers[second[among]]
    outcomes, weights, features = outcomes[among], weights[among], features[among]
    if not features.shape[1]:  # Battles of one pair are one row.
        pair, rows = np.unique(first * models + second, return_inverse=True)
        points, weights = np.bincount(rows, weights * outcomes), np.bincount(rows, weights)
        first, second, outcomes = pair // models, pair % models, points / weights
        features = np.zeros((len(pair), 0))
    theta[circle] = _newton(first, second, outcomes, weights, features, int(circle.sum()), numbers[home])
    return theta


def _reached(edges: np.ndarray, start: int) -> np.ndarray:
    found = np.zeros(len(edges), bool)
    found[start] = True
    while (grown := found | edges[found].any(axis=0)).sum() > found.sum():
        found = grown
    return found


def _newton(first, second, outcomes, weights, features, models: int, home: int) -> np.ndarray:
    design = np.zeros((len(first), models + features.shape[1]))
    rows = np.arange(len(first))
    design[rows, first], design[rows, second] = 1.0, -1.0
    design[:, models:] = features
    free = np.arange(design.shape[1]) != home
    design, beta = design[:, free], np.zeros(free.sum())

    def log_likelihood(beta):
        logits = design @ beta
        return -weights @ (outcomes * np.logaddexp(0, -logits) + (1 - outcomes) * np.logaddexp(0, logits))

    value = log_likelihood(beta)
    for _ in range(100):
        p = 1 / (1 + np.exp(-design @ beta))
        gradient = design.T @ (weights * (outcomes - p))
        curvature = (design * (weights * p * (1 - p))[:, None]).T @ design
        # Without spread a feature has no curvature and no say: the least-norm step leaves it at 0.
        step = np.linalg.lstsq(curvature, gradient, rcond=1e-12)[0]
        while (found := log_likelihood(beta + step)) < value - 1e-12 * abs(value):
            step = step / 2
        beta, value = beta + step, found
        if np.abs(step).max(initial=0.0) < 1e-8:
            break
    # Only a feature can separate wins from losses within a circle, and then its coefficient grows until all are sure.
    if features.shape[1] and np.abs(design @ beta).max(initial=0.0) > 30:
        return np.full(models, np.nan)
    theta = np.zeros(len(free))
    theta[free] = beta
    return theta[:models]
