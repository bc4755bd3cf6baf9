"""BO-REP: hypergradients with normalised momentum, for upper functions whose curvature grows with their gradient."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks

Array = jax.Array


class BoRepRun(NamedTuple):
    x: Array  # [n]
    y: Array  # [p]
    adjoint: Array  # z [p], tracks H_yy^-1 F_y
    momentum: Array  # m [n]
    path: Array  # [steps, n], x after every step


def hypergradient_estimate(upper: Callable, lower: Callable, x: Array, y: Array, adjoint: Array) -> Array:
    """F_x - H_xy z: the gradient of F(x, y*(x)) if y is the lower solution and z = H_yy^-1 F_y.

    Args:
      upper, lower: F and g, (x, y) -> `[]`.
      x, y, adjoint: `[n]`, `[p]` and z `[p]`.

    Paper: Hao et al., 2024, Bilevel Optimization under Unbounded Smoothness: A New Algorithm and Convergence Analysis
      (ICLR).
    """
    mixed = jax.grad(lambda x: jnp.vdot(jax.grad(lower, argnums=1)(x, y), adjoint))(x)
    return jax.grad(upper)(x, y) - mixed


def bo_rep(
    upper: Callable,
    lower: Callable,
    x: Array,
    y: Array,
    *,
    steps: int,
    eta: float = 0.01,
    nu: float = 0.1,
    beta: float = 0.9,
    lower_rate: float = 0.1,
    refinement_steps: int = 100,
    lower_steps: int = 10,
    period: int = 2,
) -> BoRepRun:
    """x <- x - eta m / |m|, m a moving average of `hypergradient_estimate`; the lower variable moves only now and then.

        z <- z - nu (H_yy z - F_y),   m <- beta m + (1 - beta) h,   y refined at first, then in every `period`-th step

    Every step has length eta, so a gradient that explodes does no harm; and since x moves no further, y need not follow
    in every step. Without a gradient x stays.

    Args:
      upper, lower: F and g, (x, y) -> `[]`; g strongly convex in y.
      x, y: `[n]` and `[p]`, where to begin; z begins at 0, and m at 0.
      steps: at least 1.
      eta, nu, lower_rate: step sizes of x, z and y, in (0, inf).
      beta: in [0, 1).
      refinement_steps, lower_steps: gradient steps of y at first and then, at least 1.
      period: y moves in every period-th step, the first among them, at least 1.

    Raises:
      ValueError: a static number out of range.

    Paper: Hao et al., 2024, ICLR (see `hypergradient_estimate`); full gradients in place of its samples, and plain
      descent for its epochs of descent in a shrinking ball.
    """
    counts = {"steps": steps, "refinement_steps": refinement_steps, "lower_steps": lower_steps, "period": period}
    for name, count in counts.items():
        checks.positive_integer(name, count)
    for name, value in (("eta", eta), ("nu", nu), ("lower_rate", lower_rate)):
        checks.number(name, value, 0.0)
    checks.number("beta", beta, 0.0, 1.0, closed="left")
    x, y = checks.floats(x=x)[0], checks.floats(y=y)[0]

    def refined(x, y, count):
        gradient = jax.grad(lower, argnums=1)
        return jax.lax.fori_loop(0, count, lambda _, y: y - lower_rate * gradient(x, y), y)

    def step(carry, k):
        x, y, z, m = carry
        y = jax.lax.cond(k % period == 0, lambda y: refined(x, y, lower_steps), lambda y: y, y)
        of_lower = lambda y: jax.grad(lower, argnums=1)(x, y)  # noqa: E731
        curvature = jax.jvp(of_lower, (y,), (z,))[1]
        z = z - nu * (curvature - jax.grad(upper, argnums=1)(x, y))
        m = beta * m + (1 - beta) * hypergradient_estimate(upper, lower, x, y, z)
        norm = jnp.linalg.norm(m)
        x = x - jnp.where(norm > 0, eta / jnp.where(norm > 0, norm, 1.0), 0.0) * m
        return (x, y, z, m), x

    start = (x, refined(x, y, refinement_steps), jnp.zeros_like(y), jnp.zeros_like(x))
    (x, y, z, m), path = jax.lax.scan(step, start, jnp.arange(steps))
    return BoRepRun(x, y, z, m, path)
