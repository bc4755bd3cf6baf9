"""The penalty method: the lower problem as a penalty on how far its objective is above its minimum."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks

Array = jax.Array


class PenaltyRun(NamedTuple):
    x: Any
    penalised: Any  # y, near the minimiser of sigma f + g
    lower: Any  # z, near the minimiser of g
    path: Any  # x after every step, a leading axis of steps


def _same(x: Any) -> Any:
    return x


def penalty_objective(upper: Callable, lower: Callable, x: Any, penalised: Any, lower_solution: Any, *, sigma: float):
    """f(x, y) + [g(x, y) - g(x, z)] / sigma; with both minimisers psi_sigma(x), and its gradient in x is psi_sigma's.

        psi_sigma(x) = (1 / sigma) [min_y (sigma f(x, y) + g(x, y)) - min_z g(x, z)]

    The minimisers are held (no gradient passes through them): by the envelope theorem none is needed, so first
    derivatives suffice. For g strongly convex in y the gradient tends to that of f(x, y*(x)) as sigma -> 0, with an
    error of O(sigma). `scalebio` is this with alpha = 1 / sigma and an f that does not read x.

    Args:
      upper, lower: f and g, (x, y) -> `[]`.
      x: outer variable. Differentiate with respect to it.
      penalised: y, a minimiser of sigma f(x, .) + g(x, .).
      lower_solution: z, a minimiser of g(x, .).
      sigma: in (0, inf).

    Raises:
      ValueError: a static sigma out of range.

    Paper: Kwon et al., 2023, arXiv 2309.01753.
    """
    checks.number("sigma", sigma, 0.0)
    y, z = jax.lax.stop_gradient((penalised, lower_solution))
    return upper(x, y) + (lower(x, y) - lower(x, z)) / sigma


def penalty_bilevel(
    upper: Callable,
    lower: Callable,
    x: Any,
    y: Any,
    *,
    steps: int,
    inner_steps: int = 10,
    sigma: float = 0.1,
    rate: float = 0.1,
    inner_rate: float = 0.1,
    project: Callable[[Any], Any] = _same,
) -> PenaltyRun:
    """x <- project(x - rate * gradient of psi_sigma), y and z followed by gradient steps from where they last were.

    The inner error enters the gradient divided by sigma: `inner_steps` and `inner_rate` have to make it small against
    sigma. Where g has several minimisers psi may jump; the value function is all that is smooth there.

    Args:
      upper, lower: f and g, (x, y) -> `[]`.
      x, y: where the outer variable, and both copies of the inner one, begin.
      steps, inner_steps: at least 1.
      sigma, rate, inner_rate: in (0, inf).
      project: onto the set that x has to stay in.

    Raises:
      ValueError: a static number out of range.

    Paper: Kwon et al., 2023, arXiv 2309.01753; full gradients in place of its samples.
    """
    for name, count in (("steps", steps), ("inner_steps", inner_steps)):
        checks.positive_integer(name, count)
    for name, value in (("sigma", sigma), ("rate", rate), ("inner_rate", inner_rate)):
        checks.number(name, value, 0.0)

    def descended(function, start):
        def one(_, at):
            return jax.tree.map(lambda a, g: a - inner_rate * g, at, jax.grad(function)(at))

        return jax.lax.fori_loop(0, inner_steps, one, start)

    def step(carry, _):
        x, y, z = carry
        y = descended(lambda y: sigma * upper(x, y) + lower(x, y), y)
        z = descended(lambda z: lower(x, z), z)
        gradient = jax.grad(lambda x: penalty_objective(upper, lower, x, y, z, sigma=sigma))(x)
        x = project(jax.tree.map(lambda a, g: a - rate * g, x, gradient))
        return (x, y, z), x

    x, y = jax.tree.map(jnp.asarray, (x, y))
    (x, y, z), path = jax.lax.scan(step, (x, y, y), None, length=steps)
    return PenaltyRun(x, y, z, path)
