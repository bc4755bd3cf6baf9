"""Two-player zero-sum matrix games by regret matching, which is counterfactual regret minimisation with one decision.

The row player receives `payoffs[a, b]`, the column player minus that. In a game of several decisions CFR runs the same
update in every information set, on values weighted by how probably the others reach it; here that weight is 1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks

Array = jax.Array


class RegretMatching(NamedTuple):
    """After each step the averages of the strategies so far, which converge; and the regrets at the end.

    Shapes: rows float32 `[steps, ..., A]`, columns `[steps, ..., B]`, row_regrets `[..., A]`, column_regrets
    `[..., B]`.
    """

    rows: Array
    columns: Array
    row_regrets: Array
    column_regrets: Array


def regret_matching_strategy(regrets: Array) -> Array:
    """s(a) = max(R(a), 0) / sum_b max(R(b), 0), and uniform if no regret is positive.

    Args:
      regrets: cumulative, of each action.

    Shapes: `[..., A]`; result float32 `[..., A]`.

    Raises:
      AssertionError: not floating.

    Paper: Hart and Mas-Colell, 2000, and, for LSPO, Xu et al., 2025, arXiv 2502.04686.
    """
    (regrets,) = checks.floats(regrets=regrets)
    positive = jnp.maximum(regrets, 0.0)
    total = jnp.sum(positive, axis=-1, keepdims=True)
    return jnp.where(total > 0, positive / jnp.where(total > 0, total, 1.0), 1.0 / regrets.shape[-1])


def _game(payoffs: Array) -> Array:
    (payoffs,) = checks.floats(payoffs=payoffs)
    if payoffs.ndim < 2:
        raise AssertionError(f"payoffs must have shape (..., A, B), got {payoffs.shape}")
    return payoffs


def exploitability(payoffs: Array, row_strategy: Array, column_strategy: Array) -> Array:
    """(max_a (U y)_a - min_b (x U)_b) / 2: what a best response wins on the mean of both players.

    At least 0, and 0 at a Nash equilibrium only. Of an antisymmetric game with x = y it is max_a (U x)_a.

    Args:
      payoffs: U[a, b], of the row player.
      row_strategy: x, probabilities.
      column_strategy: y, probabilities.

    Shapes: payoffs `[..., A, B]`, row_strategy `[..., A]`, column_strategy `[..., B]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.

    Paper: standard practice; for LSPO Xu et al., 2025, arXiv 2502.04686.
    """
    payoffs = _game(payoffs)
    (rows,), (columns,) = checks.floats(row_strategy=row_strategy), checks.floats(column_strategy=column_strategy)
    shape = payoffs.shape
    if rows.shape != shape[:-1] or columns.shape != (*shape[:-2], shape[-1]):
        raise AssertionError(
            f"row_strategy {rows.shape} and column_strategy {columns.shape} do not go with payoffs {shape}"
        )
    of_rows = jnp.einsum("...ab,...b->...a", payoffs, columns)
    of_columns = jnp.einsum("...ab,...a->...b", payoffs, rows)
    return 0.5 * (jnp.max(of_rows, axis=-1) - jnp.min(of_columns, axis=-1))


def regret_matching(payoffs: Array, *, steps: int = 1000) -> RegretMatching:
    """Both players play `regret_matching_strategy`; R(a) += u(a) - s.u, and the average strategy is what comes out.

    Both move at once, each against the other's present strategy, beginning with uniform ones. Exploitability of the
    averages after T steps is at most D sqrt(max(A, B) / T), D the largest payoff less the smallest.

    Args:
      payoffs: of the row player.
      steps: at least 1; 1e3 to 1e5.

    Shapes: payoffs `[..., A, B]`; a `RegretMatching`.

    Raises:
      AssertionError: payoffs not floating or without two axes.
      ValueError: steps out of range.

    Paper: Zinkevich et al., 2007 (counterfactual regret minimisation), as in Xu et al., 2025, arXiv 2502.04686 (LSPO),
    who use the deep variant on a game of many decisions.
    """
    checks.positive_integer("steps", steps)
    payoffs = _game(payoffs)
    *leading, a, b = payoffs.shape
    regrets = jnp.zeros((*leading, a), payoffs.dtype), jnp.zeros((*leading, b), payoffs.dtype)

    def step(carry, t):
        regrets, means = carry
        rows, columns = (regret_matching_strategy(r) for r in regrets)
        gains = jnp.einsum("...ab,...b->...a", payoffs, columns), -jnp.einsum("...ab,...a->...b", payoffs, rows)
        played = rows, columns
        regrets = tuple(
            r + g - jnp.sum(s * g, axis=-1, keepdims=True) for r, g, s in zip(regrets, gains, played, strict=True)
        )
        means = tuple(m + (s - m) / (t + 1) for m, s in zip(means, played, strict=True))
        return (regrets, means), means

    (regrets, _), (rows, columns) = jax.lax.scan(step, (regrets, regrets), jnp.arange(steps))
    return RegretMatching(rows, columns, *regrets)
