"""From several rewards per completion to one number: what an RL method then maximises.

`objective_rewards` [..., K] holds the reward under each of K objectives, `valid` [...] is False for rows that are not
there. Applied to the reward of each sample, as here, one that is not linear has another optimum than applied to
expected rewards. A KL penalty is added once, after the sum.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep
from alignment.losses.stateful import StatefulKernel
from alignment.policy_gradients import objectives

Array = jax.Array
_stop = jax.lax.stop_gradient


def linear_scalarization(objective_rewards: Array, valid: Array, *, weights: Sequence[float] = (0.5, 0.5)) -> Array:
    """R = sum_k w_k r_k: the baseline; its maximisers are the convex hull of the front only.

    Args:
      objective_rewards: reward of each completion under each objective. Held fixed.
      valid: bool, False for rows that are not there.
      weights: w, one for each objective, at least 0, with sum 1.

    Shapes: objective_rewards `[..., K]`, valid `[...]`; result float32 `[...]`, 0 where not valid.

    Raises:
      AssertionError: shapes do not agree, rewards not floating, valid not bool.
      ValueError: weights are not K numbers of the simplex.

    Paper: standard practice (the baseline of Zhou et al., 2023, arXiv 2310.03708).
    """
    rewards = objectives.checked(valid, objective_rewards=objective_rewards)
    return rewards @ checks.simplex("weights", weights, rewards.shape[-1]).astype(rewards.dtype)


def standardized_linear_scalarization(
    objective_rewards: Array,
    valid: Array,
    *,
    weights: Sequence[float] = (0.5, 0.5),
    means: Sequence[float] = (0.0, 0.0),
    deviations: Sequence[float] = (1.0, 1.0),
) -> Array:
    """R = sum_k w_k (r_k - m_k) / s_k, m and s measured once on samples of the reference: a common scale first.

    Args:
      objective_rewards: reward of each completion under each objective. Held fixed.
      valid: bool, False for rows that are not there.
      weights: w, one for each objective, at least 0, with sum 1.
      means: m, mean of each objective on the reference's samples.
      deviations: s, their standard deviations, above 0; an objective that is constant there has no scale.

    Shapes: objective_rewards `[..., K]`, valid `[...]`; result float32 `[...]`, 0 where not valid.

    Raises:
      AssertionError: shapes do not agree, rewards not floating, valid not bool.
      ValueError: weights are not K numbers of the simplex, or means or deviations not K numbers in range.

    Paper: standard practice (the baseline of Rame et al., 2023, arXiv 2306.04488).
    """
    rewards = objectives.checked(valid, objective_rewards=objective_rewards)
    count = rewards.shape[-1]
    weights = checks.simplex("weights", weights, count).astype(rewards.dtype)
    for value in deviations:
        checks.number("each of deviations", value, 0.0)
    scaled = (rewards - checks.constants("means", means, count)) / checks.constants("deviations", deviations, count)
    return keep(scaled.astype(rewards.dtype) @ weights, valid)


def preference_scalarization(objective_rewards: Array, preference_weights: Array, valid: Array) -> Array:
    """R = v . r with each row's own preference v: what a policy that is told v is trained to maximise.

    Scaling v by a positive number changes no order among the completions of one prompt and preference.

    Args:
      objective_rewards: reward of each completion under each objective. Held fixed.
      preference_weights: v of each row; directions may have negative parts. Held fixed.
      valid: bool, False for rows that are not there.

    Shapes: objective_rewards and preference_weights `[..., K]`, valid `[...]`; result float32 `[...]`, else 0.

    Raises:
      AssertionError: shapes do not agree, rewards or preferences not floating, valid not bool.

    Paper: Wang et al., 2024, arXiv 2402.18571 (directional preference alignment).
    """
    rewards = objectives.checked(valid, objective_rewards=objective_rewards)
    preferences = objectives.checked(valid, preference_weights=preference_weights)
    checks.same_shape(objective_rewards=rewards, preference_weights=preferences)
    return jnp.sum(rewards * preferences, axis=-1)


def _gaps(objective_rewards: Array, valid: Array, weights: Sequence[float], ideal: Any) -> Array:
    """w_k (ideal_k - r_k), [..., K]."""
    rewards = objectives.checked(valid, objective_rewards=objective_rewards)
    weights = checks.simplex("weights", weights, rewards.shape[-1]).astype(rewards.dtype)
    if not isinstance(ideal, jax.Array):
        ideal = checks.constants("ideal", ideal, rewards.shape[-1])
    return weights * (ideal.astype(rewards.dtype) - rewards)


def tchebycheff_scalarization(
    objective_rewards: Array,
    valid: Array,
    *,
    weights: Sequence[float] = (0.5, 0.5),
    ideal: Sequence[float] = (1.0, 1.0),
) -> Array:
    """U = -max_k w_k (z*_k - r_k): minus the worst weighted distance to the ideal point; reaches every kind of front.

    Args:
      objective_rewards: reward of each completion under each objective. Held fixed.
      valid: bool, False for rows that are not there.
      weights: w, one for each objective, at least 0, with sum 1.
      ideal: z*, the best value of each objective, or a little more.

    Shapes: objective_rewards `[..., K]`, valid `[...]`; result float32 `[...]`, 0 where not valid.

    Raises:
      AssertionError: shapes do not agree, rewards not floating, valid not bool.
      ValueError: weights are not K numbers of the simplex, or ideal not K numbers.

    Paper: the limit of Lin et al., 2024, arXiv 2402.19078.
    """
    return keep(-jnp.max(_gaps(objective_rewards, valid, weights, ideal), axis=-1), valid)


def smooth_tchebycheff_scalarization(
    objective_rewards: Array,
    valid: Array,
    *,
    weights: Sequence[float] = (0.5, 0.5),
    ideal: Sequence[float] = (1.0, 1.0),
    mu: float = 0.1,
) -> Array:
    """U = -mu log sum_k exp(w_k (z*_k - r_k) / mu): between the hard one less mu log K, and the hard one.

    Args:
      objective_rewards: reward of each completion under each objective. Held fixed.
      valid: bool, False for rows that are not there.
      weights: w, one for each objective, at least 0, with sum 1.
      ideal: z*, the best value of each objective, or a little more.
      mu: smoothness, in (0, inf); towards 0 it is the hard form.

    Shapes: objective_rewards `[..., K]`, valid `[...]`; result float32 `[...]`, 0 where not valid.

    Raises:
      AssertionError: shapes do not agree, rewards not floating, valid not bool.
      ValueError: weights are not K numbers of the simplex, ideal not K numbers, or static mu out of range.

    Paper: Lin et al., 2024, arXiv 2402.19078.
    """
    checks.number("mu", mu, 0.0)
    gaps = _gaps(objective_rewards, valid, weights, ideal)
    return keep(-mu * jax.nn.logsumexp(gaps / mu, axis=-1), valid)


# ------------------------------------------------------------------------------ an ideal point that follows the rewards


class IdealState(NamedTuple):
    """best: float32 [K], the highest reward seen under each objective; -inf before the first batch."""

    best: Array


def _ideal_init(*, weights: Sequence[float] = (0.5, 0.5), slack: float = 0.1) -> IdealState:
    checks.number("slack", slack, 0.0, closed="left")
    checks.simplex("weights", weights, len(weights))
    return IdealState(jnp.full(len(weights), -jnp.inf, jnp.float32))


def _highest(rewards: Array, valid: Array, axis_name: Any) -> Array:
    best = jnp.max(jnp.where(valid[..., None], rewards, -jnp.inf).reshape(-1, rewards.shape[-1]), axis=0)
    return best if axis_name is None else jax.lax.pmax(best, axis_name)


def _ideal_loss(
    objective_rewards: Array,
    valid: Array,
    state: IdealState,
    *,
    weights: Sequence[float] = (0.5, 0.5),
    slack: float = 0.1,
    axis_name: Any = None,
) -> tuple[Array, dict[str, Array]]:
    """`tchebycheff_scalarization` whose ideal point is the best seen so far (this batch's too), plus a slack.

    The slack keeps the best completion of an objective from having distance 0 to the ideal, where the objective would
    stop mattering.

    Args:
      objective_rewards: reward of each completion under each objective. Held fixed.
      valid: bool, False for rows that are not there.
      state: from `tchebycheff_running_ideal.init` or `.update`.
      weights: w, one for each objective, at least 0, with sum 1.
      slack: added to the best, in units of the rewards, in [0, inf).
      axis_name: mapped axis (or axes) over which the batch is split.

    Shapes: objective_rewards `[N, K]`, valid `[N]`, state.best `[K]`; values float32 `[N]`, 0 where not valid; aux
    holds both arrays.

    Raises:
      AssertionError: shapes do not agree, rewards not floating, valid not bool.
      ValueError: weights are not K numbers of the simplex, or static slack out of range.

    Paper: the hard form of Lin et al., 2024, arXiv 2402.19078; the ideal as in morl-baselines.
    """
    checks.number("slack", slack, 0.0, closed="left")
    rewards = objectives.checked(valid, objective_rewards=objective_rewards)
    best = _stop(objectives.vector(rewards.shape[-1], best=state.best))
    best = jnp.maximum(best, _highest(rewards, valid, axis_name))
    # Nothing seen at all: no row counts then either.
    ideal = jnp.where(jnp.isfinite(best), best, 0.0) + slack
    values = keep(-jnp.max(_gaps(rewards, valid, weights, ideal), axis=-1), valid)
    return values, {"objective_rewards": rewards, "valid": valid}


def _ideal_update(
    state: IdealState,
    aux: dict[str, Array],
    *,
    weights: Sequence[float] = (0.5, 0.5),
    slack: float = 0.1,
    axis_name: Any = None,
) -> IdealState:
    """The best of before and of the batch."""
    del weights, slack
    highest = _highest(aux["objective_rewards"], aux["valid"], axis_name)
    return IdealState(jnp.maximum(state.best, highest.astype(state.best.dtype)))


tchebycheff_running_ideal = StatefulKernel(init=_ideal_init, loss=_ideal_loss, update=_ideal_update)
"""Tchebycheff against the best seen so far; see `tchebycheff_running_ideal.loss`."""
