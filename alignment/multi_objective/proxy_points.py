"""The search for proxy points: how much of each reward is best by a metric that is trusted but expensive.

Two ways of Moskovitz et al., 2023, arXiv 2310.04373: fit the metric to what unconstrained runs passed through
(`joint_proxy_point`), or let the simplex of Nelder and Mead move the thresholds of one run that is never reset:
`nelder_mead` over a function that sets the thresholds, trains until `reached`, and returns the metric; `cached` asks it
once for thresholds that are nearly the same. The run keeps its weights between questions, so the function changes under
the search, and what is cached goes stale. Plain numpy on the host: these call a function of the user's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from alignment import checks

Metric = Callable[[np.ndarray], float]


class Found(NamedTuple):
    """Where the search ended: the thresholds f64 [N], the metric there, the calls it took, whether it converged."""

    thresholds: np.ndarray
    metric: float
    calls: int
    converged: bool


def nelder_mead(
    evaluate: Metric,
    simplex: np.ndarray,
    *,
    alpha: float = 1.0,
    gamma: float = 2.0,
    rho: float = 0.5,
    sigma: float = 0.5,
    tol: float = 0.01,
    max_calls: int = 200,
) -> Found:
    """Maximises `evaluate` by moving a simplex of N + 1 points: reflect, expand, contract, shrink.

    With f = -metric, the points sorted, c the centre of the best N and x the worst: reflect r = c + alpha (c - x),
    taken if it is better than the second worst; if it beats the best, expand e = c + gamma (r - c) and take the better
    of the two (the authors' code takes e only if it beats the best point, textbooks compare it with r, as here);
    contract k = c + rho (x - c), taken if better than x; else move all points towards the best by sigma. Ends when the
    deviation of f over the simplex is below tol.

    Args:
      evaluate: from thresholds f64 [N] to the metric, maximised; the only way in which the metric is looked at.
      simplex: f64 [N + 1, N], thresholds to begin with; they must span the space.
      alpha, gamma, rho, sigma: of the moves; gamma in (1, inf), rho and sigma in (0, 1).
      tol: in (0, inf).
      max_calls: of `evaluate`; in [N + 1, inf). A shrink is finished before the search stops.

    Raises:
      ValueError: a number out of range, or a simplex of the wrong shape or without volume; or the metric is not finite.
    """
    checks.number("alpha", alpha, 0.0)
    checks.number("gamma", gamma, 1.0)
    checks.number("rho", rho, 0.0, 1.0)
    checks.number("sigma", sigma, 0.0, 1.0)
    checks.number("tol", tol, 0.0)
    points = np.array(simplex, np.float64)
    size = points.shape[-1]
    if points.shape != (size + 1, size):
        raise ValueError(f"simplex must have shape (N + 1, N), got {points.shape}")
    if abs(np.linalg.det(points[1:] - points[0])) < 1e-12:
        raise ValueError("simplex must have a volume: its points lie in one plane")
    checks.number("max_calls", max_calls, size + 1, closed="left")
    calls = 0

    def f(point: np.ndarray) -> float:
        nonlocal calls
        calls += 1
        value = float(evaluate(point.copy()))
        if not np.isfinite(value):
            raise ValueError(f"the metric must be finite, got {value} at thresholds {point.tolist()}")
        return -value

    values = np.array([f(point) for point in points])
    while True:
        order = np.argsort(values, kind="stable")
        points, values = points[order], values[order]
        if values.std() < tol or calls >= max_calls:
            return Found(points[0], -values[0], calls, bool(values.std() < tol))
        centre, worst = points[:-1].mean(axis=0), points[-1]
        reflected = centre + alpha * (centre - worst)
        f_reflected = f(reflected)
        if f_reflected < values[0]:
            expanded = centre + gamma * (reflected - centre)
            f_expanded = f(expanded)
            better = f_expanded < f_reflected
            points[-1], values[-1] = (expanded, f_expanded) if better else (reflected, f_reflected)
        elif f_reflected < values[-2]:
            points[-1], values[-1] = reflected, f_reflected
        else:
            contracted = centre + rho * (worst - centre)
            f_contracted = f(contracted)
            if f_contracted < values[-1]:
                points[-1], values[-1] = contracted, f_contracted
            else:
                points[1:] = points[0] + sigma * (points[1:] - points[0])
                values[1:] = [f(point) for point in points[1:]]


def cached(evaluate: Metric, tolerance: float = 5e-3) -> Metric:
    """The same function, which answers from memory where every threshold is within `tolerance` of one asked before."""
    checks.number("tolerance", tolerance, 0.0, closed="left")
    asked: list[tuple[np.ndarray, float]] = []

    def answer(thresholds: np.ndarray) -> float:
        for point, value in asked:
            if np.all(np.abs(point - thresholds) <= tolerance):
                return value
        value = evaluate(thresholds)
        asked.append((np.array(thresholds), value))
        return value

    return answer


def reached(returns: Sequence[float], thresholds: Sequence[float], band: float = 0.05) -> bool:
    """Whether every return is within `band` (a share of the threshold's size) of its threshold.

    A threshold of 0 has no size: its return has to be within `band` itself.
    """
    checks.number("band", band, 0.0, closed="left")
    returns, thresholds = np.asarray(returns, np.float64), np.asarray(thresholds, np.float64)
    size = np.where(thresholds == 0, 1.0, np.abs(thresholds))
    return bool(np.all(np.abs(returns - thresholds) <= band * size))


def joint_proxy_point(returns: np.ndarray, metric: np.ndarray) -> np.ndarray:
    """The returns J, of all that were seen, at which a quadratic fitted to the metric is largest; f64 [N].

    Looked for among the points of the runs, so that nothing is extrapolated: beyond them a fit says nothing.

    Args:
      returns: f[P, N], mean reward of each component at P points of unconstrained runs.
      metric: f[P], the trusted metric there.

    Raises:
      ValueError: shapes do not agree, numbers are not finite, or fewer points than the quadratic has coefficients,
        1 + N + N (N + 1) / 2.
    """
    returns, metric = np.asarray(returns, np.float64), np.asarray(metric, np.float64)
    if returns.ndim != 2 or metric.shape != returns.shape[:1]:
        raise ValueError(f"returns must have shape (P, N) and metric (P,), got {returns.shape} and {metric.shape}")
    if not (np.isfinite(returns).all() and np.isfinite(metric).all()):
        raise ValueError("returns and metric must be finite")
    size = returns.shape[1]
    needed = 1 + size + size * (size + 1) // 2
    if len(metric) < needed:
        raise ValueError(f"a quadratic of {size} rewards needs {needed} points or more, got {len(metric)}")
    products = [returns[:, i] * returns[:, j] for i in range(size) for j in range(i, size)]
    design = np.stack([np.ones(len(metric)), *returns.T, *products], axis=1)
    fitted = design @ np.linalg.lstsq(design, metric, rcond=None)[0]
    return returns[int(np.argmax(fitted))]
