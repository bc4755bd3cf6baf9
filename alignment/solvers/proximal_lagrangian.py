"""LV-HBA: bilevel problems whose lower level has constraints that couple both variables, without second derivatives."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks

Array = jax.Array


class LvHbaState(NamedTuple):
    x: Array  # [n]
    y: Array  # [p]
    theta: Array  # [p], the lower solution near y
    multipliers: Array  # lambda [m], at least 0
    proximal: Array  # z [m], what the multipliers are held near


def _same(x: Array, y: Array) -> tuple[Array, Array]:
    return x, y


def _keep(y: Array) -> Array:
    return y


def lv_hba_directions(
    upper: Callable,
    lower: Callable,
    constraints: Callable,
    state: LvHbaState,
    penalty: float | Array,
    *,
    gamma_1: float = 10.0,
    gamma_2: float = 10.0,
) -> tuple[Array, Array, Array]:
    """(d_x, d_y, d_z): the gradient of F / c + f - v, v the proximal Lagrangian value function at (theta, lambda).

        v(x, y, z) = min_theta max_{lambda >= 0} f(x, theta) + lambda . g(x, theta)
                     + |theta - y|^2 / (2 gamma_1) - |lambda - z|^2 / (2 gamma_2)

    With the saddle point in place of theta and lambda it is exact, by the envelope theorem. With theta = y, and lambda
    = z = 0, what is left is F's gradient over c in x. At a fixed point lambda = z.

    Args:
      upper, lower: F and f, (x, y) -> `[]`.
      constraints: g, (x, y) -> `[m]`, at most 0 where they hold.
      state: where; theta and lambda are those after their own step.
      penalty: c, above 0.
      gamma_1, gamma_2: proximal parameters, in (0, inf).

    Raises:
      ValueError: a static number out of range.

    Paper: Yao et al., 2024, Constrained Bi-Level Optimization: Proximal Lagrangian Value function Approach and
      Hessian-free Algorithm (ICLR); the published toy example has the same directions.
    """
    checks.number("gamma_1", gamma_1, 0.0)
    checks.number("gamma_2", gamma_2, 0.0)
    x, y, theta, multipliers, proximal = state
    upper_x, upper_y = jax.grad(upper, argnums=(0, 1))(x, y)
    lower_x, lower_y = jax.grad(lower, argnums=(0, 1))(x, y)
    value_x = jax.grad(lambda x: lower(x, theta) + jnp.sum(multipliers * constraints(x, theta)))(x)
    return (
        upper_x / penalty + lower_x - value_x,
        upper_y / penalty + lower_y - (y - theta) / gamma_1,
        -(multipliers - proximal) / gamma_2,
    )


def lv_hba(
    upper: Callable,
    lower: Callable,
    constraints: Callable,
    x: Array,
    y: Array,
    *,
    steps: int,
    alpha: float = 0.008,
    beta: float = 0.02,
    eta: float = 0.01,
    gamma_1: float = 10.0,
    gamma_2: float = 10.0,
    penalty: float = 1.0,
    bound: float = 1e3,
    project: Callable[[Array, Array], tuple[Array, Array]] = _same,
    project_lower: Callable[[Array], Array] = _keep,
) -> LvHbaState:
    """One loop of first-order steps: theta and lambda on the proximal Lagrangian, then x, y and z along the directions.

    In step k the penalty is c (k + 1)^0.3, so the lower level weighs more and more against F.

    Args:
      upper, lower: F and f, (x, y) -> `[]`.
      constraints: g, (x, y) -> `[m]`.
      x, y: `[n]` and `[p]`, where to begin; multipliers begin at 0.
      steps: at least 1.
      alpha, beta, eta: step sizes of (x, y), of z, and of theta and lambda, in (0, inf).
      gamma_1, gamma_2: in (0, inf).
      penalty: c, in (0, inf).
      bound: z stays in [0, bound].
      project: (x, y) onto {g(x, y) <= 0} and whatever else both have to obey.
      project_lower: theta onto the lower level's own set.

    Raises:
      ValueError: a static number out of range.

    Paper: Yao et al., 2024, ICLR (see `lv_hba_directions`); inequality constraints, as in the paper.
    """
    checks.positive_integer("steps", steps)
    positive = {"alpha": alpha, "beta": beta, "eta": eta, "gamma_1": gamma_1, "gamma_2": gamma_2}
    for name, value in {**positive, "penalty": penalty, "bound": bound}.items():
        checks.number(name, value, 0.0)

    def step(state, k):
        x, y, theta, multipliers, proximal = state
        pull = jax.grad(lambda t: lower(x, t) + jnp.sum(multipliers * constraints(x, t)))(theta)
        pushed = multipliers - eta * (-constraints(x, theta) + (multipliers - proximal) / gamma_2)
        theta = project_lower(theta - eta * (pull + (theta - y) / gamma_1))
        state = LvHbaState(x, y, theta, jnp.maximum(pushed, 0), proximal)
        directions = lv_hba_directions(
            upper, lower, constraints, state, penalty * (k + 1.0) ** 0.3, gamma_1=gamma_1, gamma_2=gamma_2
        )
        x, y = project(x - alpha * directions[0], y - alpha * directions[1])
        return state._replace(x=x, y=y, proximal=jnp.clip(proximal - beta * directions[2], 0, bound)), None

    x, y = checks.floats(x=x)[0], checks.floats(y=y)[0]
    none = jnp.zeros_like(constraints(x, y))
    return jax.lax.scan(step, LvHbaState(x, y, y, none, none), jnp.arange(steps))[0]
