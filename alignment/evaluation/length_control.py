"""Length-controlled win rate: what the win rate would be if both answers had the same length."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from alignment import checks
from alignment.evaluation import arrays, intervals

STRENGTHS = np.logspace(-4, 4, 10)  # of the data against the penalty (C), chosen by cross-validation


class LengthControlledWinRates(NamedTuple):
    """Columns `[M]`: of each model the controlled and the raw win rate in [0, 1], of the former the bootstrap interval
    and the standard error of its predictions over prompts, and the coefficients."""

    model: list[str]
    win_rate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    standard_error: np.ndarray
    raw_win_rate: np.ndarray
    length_effect: np.ndarray  # phi: log-odds of an answer that is much longer
    model_effect: np.ndarray  # theta
    difficulty_effect: np.ndarray  # psi


def length_controlled_win_rate(
    models: Sequence[str],
    outcomes: Sequence[float],
    lengths: Sequence[float],
    baseline_lengths: Sequence[float],
    difficulties: Sequence[float],
    gamed: Sequence[bool],
    *,
    gamed_weight: float = 0.1,
    folds: int = 5,
    rounds: int = 100,
    level: float = 0.95,
    seed: int = 0,
) -> LengthControlledWinRates:
    """mean over prompts of s(theta + psi * gamma), from a logistic model of the judge fitted to each model's outcomes.

        P(model preferred) = s( theta + psi * gamma_x + phi * tanh( dlen / std(dlen) ) )

    dlen = length - baseline's length, std with ddof 1; soft labels; an L1 penalty whose strength has the least log loss
    in cross-validation. Where a model is always longer, theta and phi cannot be told apart: for that, rows of `gamed`
    answers (the baseline's own, told to be longer or shorter, so that theta is 0) join each fit with a small weight.

    Args:
      models: name of each outcome's model; all play against one baseline.
      outcomes: 1 where the judge prefers the model's answer, 0 the baseline's, or a share in between.
      lengths, baseline_lengths: of the two answers, in characters.
      difficulties: gamma of each prompt. The public list comes from a joint fit over many models; 0 everywhere leaves
        the term out (AlpacaEval's `length_controlled_minimal`).
      gamed: True for a gamed baseline's answer; such models get no row of their own.
      gamed_weight: of each row of these, 0.2 over two variants, in [0, inf).
      folds: of the cross-validation, over prompts; at least 2.
      rounds, level, seed: of the bootstrap over prompts, which keeps the strength of the penalty.

    Shapes: `[N]` each; results `[M]`. A single length difference for all prompts makes that feature 1 or 0 everywhere.
    The standard error is the public one: it is that of the mean of predictions, which differ by difficulty only, and
    does not know how uncertain the coefficients are; the interval does.

    Raises: ValueError for lengths that differ or a model with fewer outcomes than folds; outcomes outside [0, 1].

    Paper: Dubois et al., 2024 (Length-Controlled AlpacaEval), arXiv 2404.04475. Its `glm_winrate.py` is followed: the
    penalty is on all coefficients, and folds are taken in turn; the sign of dlen is that of the text, not of the code.
    """
    columns = {"outcomes": arrays.shares("outcomes", outcomes), "gamed": np.asarray(gamed, bool)}
    for name, values in (
        ("lengths", lengths), ("baseline_lengths", baseline_lengths), ("difficulties", difficulties)
    ):  # fmt: skip
        columns[name] = arrays.vector(name, values)
    arrays.same_length(models=models, **columns)
    checks.number("gamed_weight", gamed_weight, 0.0, closed="left")
    checks.number("folds", folds, 2, closed="left")
    names, numbers = arrays.groups(models)
    delta = columns["lengths"] - columns["baseline_lengths"]
    feature = np.zeros(len(delta))
    for number in range(len(names)):
        here = numbers == number
        spread = delta[here].std(ddof=1) if here.sum() > 1 else 0.0
        # Equal differences have no scale: what is left of them is their sign.
        feature[here] = np.tanh(delta[here] / spread) if spread > 0 else np.sign(delta[here])
    of_model = ~columns["gamed"]
    design = np.stack([feature, columns["difficulties"], of_model], axis=1).astype(np.float64)
    rows = []
    for number, name in enumerate(names):
        own = (numbers == number) & of_model
        if not own.any():
            continue
        if own.sum() < folds:
            raise ValueError(f"{name} has {own.sum()} outcomes, fewer than folds={folds}")
        used = own | columns["gamed"]
        weights = np.where(of_model, 1.0, gamed_weight)[used]
        rows.append(_row(name, design[used], columns["outcomes"][used], weights, own[used], folds, rounds, level, seed))
    if not rows:
        raise ValueError("gamed is true of every outcome; there is no model to compare")
    first, *numbers = zip(*rows, strict=True)
    return LengthControlledWinRates(list(first), *(np.array(column) for column in numbers))


def _row(name, design, outcomes, weights, own, folds, rounds, level, seed) -> tuple:
    turn = np.arange(len(outcomes)) % folds
    held_out = np.zeros(len(STRENGTHS))
    for fold in range(folds):
        inside = turn != fold
        beta = np.zeros(design.shape[1])
        for i, strength in enumerate(STRENGTHS):
            beta = l1_logistic(design[inside], outcomes[inside], strength * weights[inside], start=beta)
            held_out[i] += weights[~inside] @ _log_loss(design[~inside] @ beta, outcomes[~inside])
    strength = STRENGTHS[np.argmin(held_out)]
    even = design * [0.0, 1.0, 1.0]  # at equal lengths

    def fit(counts):
        return l1_logistic(design, outcomes, strength * weights * counts, start=beta)

    def win_rate(counts):
        predicted = 1 / (1 + np.exp(-even[own] @ fit(counts)))
        return counts[own] @ predicted / max(counts[own].sum(), 1)

    everything = np.ones(len(outcomes))
    beta = fit(everything)
    predicted = 1 / (1 + np.exp(-even[own] @ beta))
    low, high = intervals.percentiles(
        intervals.bootstrap(win_rate, range(len(outcomes)), rounds=rounds, seed=seed), level=level
    )
    error = predicted.std(ddof=1) / np.sqrt(len(predicted))
    phi, psi, theta = beta
    return name, predicted.mean(), low, high, error, outcomes[own].mean(), phi, theta, psi


def _log_loss(logits: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    return outcomes * np.logaddexp(0, -logits) + (1 - outcomes) * np.logaddexp(0, logits)


def l1_logistic(
    design: np.ndarray, outcomes: np.ndarray, weights: np.ndarray, *, start: np.ndarray | None = None
) -> np.ndarray:
    """argmin over beta of |beta|_1 + sum_n weights_n * log loss(design_n . beta, outcomes_n), outcomes in [0, 1].

    Newton steps on the log loss, each solved under the penalty (`_l1_quadratic`); at most 100 of them, until none moves
    a coefficient by 1e-8. Shapes: `[N, F]`, `[N]`, `[N]`; result `[F]`.
    """
    beta = np.zeros(design.shape[1]) if start is None else start.copy()

    def objective(beta):
        return np.abs(beta).sum() + weights @ _log_loss(design @ beta, outcomes)

    value = objective(beta)
    for _ in range(100):
        p = 1 / (1 + np.exp(-design @ beta))
        gradient = design.T @ (weights * (p - outcomes))
        curvature = (design * (weights * p * (1 - p))[:, None]).T @ design
        curvature += 1e-9 * np.eye(len(beta))
        aim = _l1_quadratic(beta, gradient, curvature)
        step = aim - beta
        while (found := objective(beta + step)) > value + 1e-12 * abs(value):
            step = step / 2
        beta, value = beta + step, found
        if np.abs(step).max() < 1e-8:
            break
    return beta


def _l1_quadratic(beta: np.ndarray, gradient: np.ndarray, curvature: np.ndarray) -> np.ndarray:
    """argmin over x of |x|_1 + gradient . (x - beta) + (x - beta)' curvature (x - beta) / 2.

    Coordinate descent finds which coefficients are not 0, and with what sign; given these the rest is a linear system.
    Alone it would creep where features are nearly collinear, as those of a model that is always longer are.
    """
    x = beta.copy()
    for _ in range(100):
        for _ in range(3):
            for j in range(len(x)):
                pull = curvature[j, j] * x[j] - gradient[j] - curvature[j] @ (x - beta)
                x[j] = np.sign(pull) * max(abs(pull) - 1.0, 0.0) / curvature[j, j]
        active = x != 0
        exact = np.zeros_like(x)
        sides = curvature[active] @ beta - gradient[active] - np.sign(x[active])
        exact[active] = np.linalg.solve(curvature[np.ix_(active, active)], sides)
        slopes = gradient + curvature @ (exact - beta)
        if (np.sign(exact) == np.sign(x)).all() and (np.abs(slopes[~active]) <= 1 + 1e-9).all():
            return exact
    return x
