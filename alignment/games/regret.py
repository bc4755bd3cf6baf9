"""How to score exploration: regret and what it hides, the shape of its growth, and who beats whom.

The first functions are of arrays on any device; `regret_growth` and `exploration_win_rates` are statistics of finished
runs, in float64 numpy on the host.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignment import checks

Array = jax.Array


def _runs(actions: Array, means: Array) -> Array:
    checks.integers(actions=actions)
    (means,) = checks.floats(means=means)
    if actions.ndim < 1 or actions.shape[:-1] != means.shape[:-1]:
        raise AssertionError(f"actions {actions.shape} and means {means.shape} must agree in all axes but the last")
    return means


def cumulative_regret(actions: Array, means: Array) -> Array:
    """Regret(T) = sum over t <= T of (max_k mu_k - mu_{a_t}), of means and not of sampled rewards; never falls.

    Args:
      actions: the arm of every pull.
      means: of the arms.

    Shapes: actions (integer) `[..., T]`, means `[..., K]`; result float32 `[..., T]`.

    Raises:
      AssertionError: shapes do not agree, actions not integer or means not floating.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE).
    """
    means = _runs(actions, means)
    gaps = jnp.max(means, axis=-1, keepdims=True) - means
    return jnp.cumsum(jnp.take_along_axis(gaps, actions, axis=-1), axis=-1)


def contextual_regret(users: Array, actions: Array, rewards: Array) -> Array:
    """Sum over t <= T of (max_k r(user_t, k) - r(user_t, a_t)): the best arm depends on the context.

    Args:
      users: whose context it was.
      actions: the arm of every pull.
      rewards: of the arms for each user.

    Shapes: users and actions (integer) `[..., T]`, rewards `[N, K]`; result float32 `[..., T]`.

    Raises:
      AssertionError: shapes do not agree, users or actions not integer, rewards not floating.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE).
    """
    checks.integers(users=users, actions=actions)
    checks.same_shape(users=users, actions=actions)
    (rewards,) = checks.floats(rewards=rewards)
    if rewards.ndim != 2:
        raise AssertionError(f"rewards must have shape (users, arms), got {rewards.shape}")
    gaps = jnp.max(rewards, axis=-1, keepdims=True) - rewards
    return jnp.cumsum(gaps[users, actions], axis=-1)


def optimal_fraction(actions: Array, means: Array) -> Array:
    """OptFrac: the share of pulls of a best arm.

    Args:
      actions: the arm of every pull.
      means: of the arms; all that share the largest are best.

    Shapes: actions (integer) `[..., T]`, means `[..., K]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes do not agree, actions not integer or means not floating.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE).
    """
    means = _runs(actions, means)
    best = (means == jnp.max(means, axis=-1, keepdims=True)).astype(means.dtype)
    return jnp.mean(jnp.take_along_axis(best, actions, axis=-1), axis=-1)


def least_pulled_share(actions: Array, means: Array) -> Array:
    """K MinFrac: K times the share of pulls of the arm pulled least; 1 is uniform, 0 is an arm never tried.

    Args:
      actions: the arm of every pull.
      means: of the arms; only their number counts.

    Shapes: actions (integer) `[..., T]`, means `[..., K]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes do not agree, actions not integer or means not floating.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE).
    """
    means = _runs(actions, means)
    arms = means.shape[-1]
    shares = jnp.mean(jax.nn.one_hot(actions, arms, dtype=means.dtype), axis=-2)
    return arms * jnp.min(shares, axis=-1)


def suffix_failure(actions: Array, means: Array) -> Array:
    """SuffFail(t): no best arm is pulled after step t, for every t; its mean over seeds is the failure frequency.

    Args:
      actions: the arm of every pull.
      means: of the arms.

    Shapes: actions (integer) `[..., T]`, means `[..., K]`; result bool `[..., T]`, entry t - 1 for the pulls after the
    t-th; the last one, after which nothing comes, is True.

    Raises:
      AssertionError: shapes do not agree, actions not integer or means not floating.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE), after Krishnamurthy et al., 2024, arXiv 2403.15371.
    """
    means = _runs(actions, means)
    best = jnp.take_along_axis(means == jnp.max(means, axis=-1, keepdims=True), actions, axis=-1)
    # How many best pulls are still to come after each.
    return jnp.sum(best, axis=-1, keepdims=True) - jnp.cumsum(best, axis=-1) == 0


class RegretGrowth(NamedTuple):
    """Regret(T) ~ logarithmic log(T)^power / Delta_min + linear T + constant; `residual` is the root mean square.

    Shapes: all float64 numpy `[...]`.
    """

    power: np.ndarray
    logarithmic: np.ndarray
    linear: np.ndarray
    constant: np.ndarray
    residual: np.ndarray


def regret_growth(
    regret: Array, minimum_gaps: Array, *, powers: Sequence[float] = (0.5, 1.0, 1.5, 2.0)
) -> RegretGrowth:
    """Least squares of lam_1 log(T)^a / Delta_min + b T + lam_2 for every power a; the one with the smallest residual.

    b near 0 means that the regret grows slower than linearly. Of powers that fit alike the first is taken.

    Args:
      regret: cumulative, of T = 1, 2, ...; at least four pulls. One run, or a mean of runs.
      minimum_gaps: Delta_min, above 0.
      powers: candidates of a, each in (0, inf): log(1)^a is undefined otherwise.

    Shapes: regret `[..., T]`, minimum_gaps `[...]`; a `RegretGrowth`.

    Raises:
      AssertionError: shapes do not agree.
      ValueError: fewer than four pulls, a gap that is not above 0, no powers or one out of range.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE). The fit is not in the published code; powers on a grid and
    coefficients of any sign are choices made here.
    """
    values, gaps = np.asarray(regret, np.float64), np.asarray(minimum_gaps, np.float64)
    checks.leading_shape(minimum_gaps=gaps, regret=values)
    pulls = values.shape[-1]
    if pulls < 4:
        raise ValueError(f"regret must have at least 4 pulls to fit 3 coefficients, got {pulls}")
    if not (gaps > 0).all():
        raise ValueError(f"minimum_gaps must lie in (0, inf), got {gaps.min():g}")
    if not powers:
        raise ValueError("powers must have at least one power")
    for power in powers:
        checks.number("each of powers", power, 0.0)
    t = np.arange(1, pulls + 1, dtype=np.float64)
    fits = []
    for power in powers:
        columns = np.stack([np.log(t) ** power, t, np.ones(pulls)], axis=-1)
        coefficients = values @ np.linalg.pinv(columns).T
        residual = np.sqrt(np.mean(np.square(values - coefficients @ columns.T), axis=-1))
        fits.append(
            (
                np.full(gaps.shape, power),
                coefficients[..., 0] * gaps,
                *np.moveaxis(coefficients[..., 1:], -1, 0),
                residual,
            )
        )
    stacked = [np.stack(parts) for parts in zip(*fits, strict=True)]
    # What differs by rounding only fits alike.
    best = np.argmax(stacked[-1] <= stacked[-1].min(axis=0) * (1 + 1e-6) + 1e-12, axis=0)
    return RegretGrowth(*(np.take_along_axis(part, best[None], axis=0)[0] for part in stacked))


def exploration_win_rates(rewards: Array, *, level: float = 0.05) -> np.ndarray:
    """Of each explorer, the share of (environment, opponent) pairs that it wins: more reward, and p < level.

    p is that of Student's two-sided t-test for two samples of equal variance, over the trials. Two explorers with no
    spread at all differ significantly if their means differ.

    Args:
      rewards: final cumulative reward of each explorer in each environment and trial; at least two of explorers and
        trials.
      level: in (0, 1).

    Shapes: rewards `[explorers, environments, trials]`; result float64 numpy `[explorers]`.

    Raises:
      AssertionError: not three axes.
      ValueError: level out of range, fewer than two explorers or trials.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE).
    """
    checks.number("level", level, 0.0, 1.0)
    values = np.asarray(rewards, np.float64)
    if values.ndim != 3:
        raise AssertionError(f"rewards must have shape (explorers, environments, trials), got {values.shape}")
    explorers, _, trials = values.shape
    if explorers < 2 or trials < 2:
        raise ValueError(f"rewards must be of at least 2 explorers and 2 trials, got {explorers} and {trials}")
    mean, variance = values.mean(-1), values.var(-1, ddof=1)
    lead = mean[:, None] - mean[None, :]
    spread = (variance[:, None] + variance[None, :]) / trials
    freedom = 2 * trials - 2
    # p = I_x(freedom / 2, 1 / 2), x = freedom / (freedom + t^2), t^2 = lead^2 / spread
    with np.errstate(invalid="ignore"):
        x = np.where(spread > 0, freedom * spread / (freedom * spread + np.square(lead)), lead == 0)
    p = np.asarray(jax.scipy.special.betainc(freedom / 2, 0.5, jnp.asarray(x, jnp.float32)))
    won = (lead > 0) & (p < level)
    return won.sum(axis=(1, 2)) / (won.shape[-1] * (explorers - 1))
