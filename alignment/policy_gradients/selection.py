"""Choices of prompts and of rollouts per prompt, by the numbers of `curricula` and `success_trackers`.

What comes back are indices or counts, so these are not kernels: they run on the host, between steps.
"""

import heapq

import jax
import jax.numpy as jnp
import numpy as np

from alignment import checks

Array = jax.Array


def draw_without_replacement(key: Array, weights: Array, count: int) -> Array:
    """`count` different indices, drawn one after the other with probability proportional to the weights that are left.

    By Gumbel noise on the log weights, of which the largest are such a draw; an index of weight 0 comes last.

    Args:
      key: of jax.random.
      weights: at least 0, not all 0; need not add up to 1.
      count: how many, at most as many as there are weights.

    Shapes: weights `[P]`; result int32 `[count]`, in the order drawn.

    Raises:
      AssertionError: weights not floating.
      ValueError: count not in 1 .. P.

    Sampling of SPO (arXiv 2509.13232) and GAIN-RL (arXiv 2506.02281).
    """
    (weights,) = checks.floats(weights=weights)
    _check_count(count, weights.shape[0])
    scores = jnp.log(weights) + jax.random.gumbel(key, weights.shape, weights.dtype)
    return jax.lax.top_k(scores, count)[1]


def smallest(distances: Array, count: int) -> Array:
    """Indices of the `count` smallest, the smallest first; of equal ones the earlier.

    Shapes: distances `[P]`; result int32 `[count]`.

    Raises:
      AssertionError: distances not floating.
      ValueError: count not in 1 .. P.

    The choice of PCL (arXiv 2510.01135), with `pcl_distances` of the pool.
    """
    (distances,) = checks.floats(distances=distances)
    _check_count(count, distances.shape[0])
    return jax.lax.top_k(-distances, count)[1]


def ranks(concentrations: Array) -> Array:
    """Place of each value when sorted downwards, 0 for the largest; of equal ones the earlier comes first.

    Shapes: concentrations `[P]`; result int32 `[P]`.

    Raises:
      AssertionError: concentrations not floating.

    The order of GAIN-RL (arXiv 2506.02281), by `angle_concentration`.
    """
    (concentrations,) = checks.floats(concentrations=concentrations)
    order = jnp.argsort(-concentrations)
    return jnp.zeros_like(order).at[order].set(jnp.arange(order.shape[0]))


def _check_count(count: int, size: int) -> None:
    checks.positive_integer("count", count)
    if count > size:
        raise ValueError(f"count must be an integer in [1, {size}], got {count}")


def knapsack_allocation(
    success_rates, *, total: int, lowest: int = 2, highest: int = 128, clamp: float = 0.0, unit: int = 1
) -> np.ndarray:
    """Rollouts per prompt that maximise the sum of `knapsack_value`, `total` of them at most: Knapsack RL.

    Every prompt gets `lowest`; the rest go `unit` by `unit` to the prompt whose value rises most. That is optimal, as
    the value is concave in the number of rollouts. Ties go to the prompt that has fewer, then to the earlier. What
    nobody gains from (every p 0 or 1, or everyone at `highest`) is not given out.

    Args:
      success_rates: p of each prompt, in [0, 1], from earlier rollouts.
      total: of all rollouts.
      lowest, highest: rollouts of one prompt.
      clamp: p is taken into [clamp, 1 - clamp], in [0, 1/2]. An estimate of 0 from a few failures has value 0 for ever:
        with 0 such prompts get `lowest`.
      unit: rollouts that are given out together, at least 1: a multiple of it is added to `lowest`.

    Shapes: success_rates `[P]`; result int64 `[P]`.

    Raises:
      ValueError: a rate or clamp out of range, not 1 <= lowest <= highest, total below P * lowest, unit below 1.

    Paper: Li et al., 2025, arXiv 2509.25849 (by dynamic programming: `knapsack_allocation_exact`, for comparison).
    """
    rates = _checked_rates(success_rates, total, lowest, highest, clamp, unit)
    counts = np.full(rates.shape, lowest, np.int64)
    queue = [(-_marginal(p, lowest, unit), lowest, i) for i, p in enumerate(rates) if lowest + unit <= highest]
    heapq.heapify(queue)
    left = total - int(counts.sum())
    while left >= unit and queue and queue[0][0] < 0:
        _, size, i = heapq.heappop(queue)
        counts[i] = size = size + unit
        left -= unit
        if size + unit <= highest:
            heapq.heappush(queue, (-_marginal(rates[i], size, unit), size, i))
    return counts


def knapsack_allocation_exact(
    success_rates, *, total: int, lowest: int = 2, highest: int = 128, clamp: float = 0.0, unit: int = 1
) -> np.ndarray:
    """The same maximum by dynamic programming over prompts and budgets, O(P * total * (highest - lowest)).

    Args, shapes and errors as for `knapsack_allocation`, whose sum of values it has; the counts can differ where two
    allocations are worth the same. Paper: Li et al., 2025, arXiv 2509.25849.
    """
    rates = _checked_rates(success_rates, total, lowest, highest, clamp, unit)
    spare = (total - lowest * rates.size) // unit
    best, choices = np.zeros(spare + 1), []
    for p in rates:
        sizes = np.arange(lowest, min(highest, lowest + spare * unit) + 1, unit)
        values = (1 - p**sizes - (1 - p) ** sizes) * p * (1 - p) ** 2
        table = np.full((sizes.size, spare + 1), -np.inf)
        for extra, value in enumerate(values):
            table[extra, extra:] = best[: spare + 1 - extra] + value
        choices.append(table.argmax(axis=0))
        best = table.max(axis=0)
    counts, budget = np.zeros(rates.shape, np.int64), spare
    for i in reversed(range(rates.size)):
        extra = int(choices[i][budget])
        counts[i], budget = lowest + extra * unit, budget - extra
    return counts


def _marginal(p: float, size: int, unit: int) -> float:
    """Value(size + unit, p) - Value(size, p)."""
    return float(p * (1 - p) ** 2 * sum(p**n * (1 - p) + (1 - p) ** n * p for n in range(size, size + unit)))


def _checked_rates(success_rates, total: int, lowest: int, highest: int, clamp: float, unit: int) -> np.ndarray:
    rates = np.asarray(success_rates, np.float64)
    if rates.ndim != 1 or not ((rates >= 0) & (rates <= 1)).all():
        raise ValueError("success_rates must have shape ('P',) and lie in [0, 1]")
    checks.number("clamp", clamp, 0.0, 0.5, closed="both")
    for name, value in (("total", total), ("lowest", lowest), ("highest", highest), ("unit", unit)):
        checks.positive_integer(name, value)
    if highest < lowest:
        raise ValueError(f"highest must be an integer in [{lowest}, inf), got {highest}")
    if total < lowest * rates.size:
        raise ValueError(f"total must be an integer in [{lowest * rates.size}, inf), got {total}")
    return np.clip(rates, clamp, 1 - clamp)
