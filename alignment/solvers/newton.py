"""Newton steps held back by how far the linearised gradient can be trusted."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks

Array = jax.Array


class GnsNewtonRun(NamedTuple):
    x: Array  # [n]
    gammas: Array  # [steps], the radius that each step was taken with
    norms: Array  # [steps], |g| before each step


def gns_newton_step(gradient: Array, hessian: Array, gamma: float | Array) -> Array:
    """-(H + (|g| / gamma) I)^-1 g: Newton's step with the gradient's norm over a radius as regulariser.

    H = 0 gives -gamma g / |g|; gamma -> infinity Newton's step; and for H positive semidefinite the step is at most
    gamma long. Without a gradient there is no step.

    Args:
      gradient: g `[n]`.
      hessian: H `[n, n]`, positive semidefinite: the Hessian of a convex function, Gauss-Newton or Fisher.
      gamma: radius, in (0, inf).

    Raises:
      AssertionError: shapes do not go together or are not floating. ValueError: a static gamma out of range.

    Paper: Semenov et al., 2025, arXiv 2506.13710.
    """
    checks.number("gamma", gamma, 0.0)
    (gradient,), (hessian,) = checks.floats(gradient=gradient), checks.floats(hessian=hessian)
    if hessian.shape != (gradient.size, gradient.size) or gradient.ndim != 1:
        raise AssertionError(
            f"hessian must have shape (n, n) for a gradient [n], got {hessian.shape}, {gradient.shape}"
        )
    norm = jnp.linalg.norm(gradient)
    # Without a gradient the system may be singular; its solution is 0 whatever stands on the diagonal.
    ridge = jnp.where(norm > 0, norm / gamma, 1.0)
    return -jnp.linalg.solve(hessian + ridge * jnp.eye(gradient.size, dtype=hessian.dtype), gradient)


def gns_newton(
    gradient: Callable[[Array], Array],
    hessian: Callable[[Array], Array],
    x: Array,
    *,
    steps: int,
    gamma: float = 1.0,
    trials: int = 20,
) -> GnsNewtonRun:
    """Steps of `gns_newton_step` with a radius that is halved until the linearised gradient holds, and then doubled.

        |grad f(x + h) - g - H h| <= |g| |h| / gamma

    is asked of the step h itself, in place of all |h| <= gamma as in the definition of the radius.

    Args:
      gradient: of f, `[n]` -> `[n]`.
      hessian: H, `[n]` -> `[n, n]`, positive semidefinite; an approximation will do.
      x: `[n]`, where to begin.
      steps: at least 1.
      gamma: first radius, in (0, inf).
      trials: how often it is halved in one step at most, at least 1.

    Raises:
      ValueError: a static number out of range.

    Paper: Semenov et al., 2025, arXiv 2506.13710.
    """
    checks.positive_integer("steps", steps)
    checks.positive_integer("trials", trials)
    checks.number("gamma", gamma, 0.0)
    (x,) = checks.floats(x=x)

    def one(carry, _):
        x, gamma = carry
        g, h = gradient(x), hessian(x)
        norm = jnp.linalg.norm(g)

        def too_far(state):
            gamma, tried = state
            step = gns_newton_step(g, h, gamma)
            error = jnp.linalg.norm(gradient(x + step) - g - h @ step)
            return (error > norm * jnp.linalg.norm(step) / gamma) & (tried < trials)

        gamma, _ = jax.lax.while_loop(too_far, lambda s: (s[0] / 2, s[1] + 1), (gamma, 0))
        return (x + gns_newton_step(g, h, gamma), 2 * gamma), (gamma, norm)

    (x, _), (gammas, norms) = jax.lax.scan(one, (x, jnp.asarray(gamma, x.dtype)), None, length=steps)
    return GnsNewtonRun(x, gammas, norms)
