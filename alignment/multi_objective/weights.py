"""Weights of the objectives that follow the training: guided by hypervolume, by the worst group, or by each token."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.stateful import StatefulKernel
from alignment.multi_objective import pareto
from alignment.policy_gradients import grouping, objectives

Array = jax.Array
_stop = jax.lax.stop_gradient
_ARCHIVE = 256  # points that the memory of `hv_guided_rewards` holds


# ------------------------------------------------------------------------------------------------ hypervolume-guided


def hv_meta_reward(gain: Array, *, base: float = 0.5, scale: float = 1.5) -> Array:
    """m = base + scale * tanh(c): how much the reward is worth after a gain c >= 0 of hypervolume; in [0.5, 2) here.

    Args:
      gain: of the hypervolume by the last point; below 0 it counts as 0. Held fixed.
      base: without a gain, in (0, inf).
      scale: what a large gain adds, in [0, inf).

    Shapes: gain scalar; result float32 scalar.

    Raises:
      AssertionError: gain not a floating scalar.
      ValueError: static base or scale out of range.

    Paper: Lu et al., 2025, arXiv 2509.11452.
    """
    (gain,) = checks.floats(gain=gain)
    if gain.ndim:
        raise AssertionError(f"gain must be a scalar, got shape {gain.shape}")
    checks.number("base", base, 0.0)
    checks.number("scale", scale, 0.0, closed="left")
    return base + scale * jnp.tanh(jnp.maximum(_stop(gain), 0.0))


class HypervolumeState(NamedTuple):
    """points: float32 [256, K], the archive; count: int32 [], how many have been put there; meta: float32 [], m;
    reference: float32 [K], below which nothing counts."""

    points: Array
    count: Array
    meta: Array
    reference: Array


def _check_hv(weights, reference, base, scale) -> None:
    checks.simplex("weights", weights, len(weights))
    checks.constants("reference", reference, len(weights))
    checks.number("base", base, 0.0)
    checks.number("scale", scale, 0.0, closed="left")


def _hv_init(
    *,
    weights: Sequence[float] = (0.5, 0.5),
    reference: Sequence[float] = (0.0, 0.0),
    base: float = 0.5,
    scale: float = 1.5,
) -> HypervolumeState:
    _check_hv(weights, reference, base, scale)
    size = len(weights)
    return HypervolumeState(
        jnp.zeros((_ARCHIVE, size), jnp.float32), jnp.zeros((), jnp.int32), jnp.ones((), jnp.float32),
        jnp.asarray(reference, jnp.float32),
    )  # fmt: skip


def _hv_loss(
    objective_rewards: Array,
    valid: Array,
    state: HypervolumeState,
    *,
    weights: Sequence[float] = (0.5, 0.5),
    reference: Sequence[float] = (0.0, 0.0),
    base: float = 0.5,
    scale: float = 1.5,
) -> tuple[Array, dict[str, Array]]:
    """r = m sum_k w_k r_k, m = base + scale tanh(c), c the hypervolume that the last batch's mean rewards added.

    The archive grows by a point only if the point adds hypervolume; m is 1 in the first step. It multiplies all rewards
    of a step by one number, so an advantage that is divided by the deviation of its group (GRPO) does not see it: use
    RLOO, REINFORCE or group means alone.

    Args:
      objective_rewards: reward of each completion under each objective, maximised (negate what is minimised). Held
        fixed.
      valid: bool, False for rows that are not there.
      state: from `hv_guided_rewards.init` or `.update`.
      weights: w, one for each objective, at least 0, with sum 1.
      reference: the reference point, one number per objective: the initial model's mean rewards.
      base: m without a gain, in (0, inf).
      scale: what a large gain adds to m, in [0, inf).

    Shapes: objective_rewards `[..., K]`, valid `[...]`; values float32 `[...]`, 0 where not valid; aux holds both.

    Raises:
      AssertionError: shapes do not agree, rewards not floating, valid not bool.
      ValueError: weights or reference are not K numbers in range, or static base or scale out of range.

    Paper: Lu et al., 2025, arXiv 2509.11452. The paper's points are held-out metrics after each step; here they are the
    mean rewards of each rollout.
    """
    _check_hv(weights, reference, base, scale)
    rewards = objectives.checked(valid, objective_rewards=objective_rewards)
    weights = checks.simplex("weights", weights, rewards.shape[-1]).astype(rewards.dtype)
    (meta,) = checks.floats(meta=state.meta)
    return _stop(meta).astype(rewards.dtype) * (rewards @ weights), {"objective_rewards": rewards, "valid": valid}


def _hv_update(
    state: HypervolumeState,
    aux: dict[str, Array],
    *,
    weights: Sequence[float] = (0.5, 0.5),
    reference: Sequence[float] = (0.0, 0.0),
    base: float = 0.5,
    scale: float = 1.5,
    axis_name: Any = None,
) -> HypervolumeState:
    """The next m and archive from the mean rewards of the whole batch; with a full archive the oldest point goes."""
    _check_hv(weights, reference, base, scale)
    rewards, valid = aux["objective_rewards"], aux["valid"]
    count = objectives.total(valid.astype(rewards.dtype), axis_name)
    point = objectives.total(rewards, axis_name) / jnp.maximum(count, 1)
    there = jnp.arange(_ARCHIVE) < state.count
    gain = pareto.hypervolume_gain(state.points, there, point, state.reference)
    place = state.count % _ARCHIVE
    adds = gain > 0
    points = jnp.where(adds, state.points.at[place].set(point.astype(jnp.float32)), state.points)
    new = HypervolumeState(
        points, state.count + adds.astype(jnp.int32), hv_meta_reward(gain, base=base, scale=scale).astype(jnp.float32),
        state.reference,
    )  # fmt: skip
    return jax.tree.map(lambda after, before: jnp.where(count > 0, after, before), new, state)


hv_guided_rewards = StatefulKernel(init=_hv_init, loss=_hv_loss, update=_hv_update)
"""A scalarised reward that is worth more while the front advances; see `hv_guided_rewards.loss`."""


# --------------------------------------------------------------------------------------------------------------- PAMA


def pama_advantages(objective_advantages: Array, valid: Array) -> Array:
    """s = max(0, min_k A_k): the min-norm combination of the objectives' advantages, none of them negative.

    PAMA replaces MGDA's problem over gradients by min over the simplex of (sum_k c_k A_k)^2 at each sample, whose
    solution is the projection of 0 on [min A, max A]. "Noon" PPO sets negative advantages to 0 first, and what is left
    is this: a sample that some objective does not like teaches nothing. With the clipped surrogate (`ppo`) on top.

    Args:
      objective_advantages: of each objective, on a common scale (standardise each first). Held fixed.
      valid: bool, False for what is not there.

    Shapes: objective_advantages `[..., K]` (per completion or per token), valid `[...]`; result float32 `[...]`, 0
    where not valid.

    Raises:
      AssertionError: shapes do not agree, advantages not floating, valid not bool.

    Paper: He and Maghsudi, 2025, arXiv 2508.07768. Whether its closed form is per token or per batch is not clear from
    the sources at hand; per sample follows the theorem. No code was available.
    """
    advantages = objectives.checked(valid, objective_advantages=objective_advantages)
    return jnp.maximum(jnp.min(advantages, axis=-1), 0.0)


def pama_signed_advantages(objective_advantages: Array, valid: Array) -> Array:
    """`pama_advantages` without Noon: min_k A_k if all are above 0, max_k A_k if all are below, else 0.

    A sample on whose sign the objectives disagree teaches nothing.

    Args:
      objective_advantages: of each objective, on a common scale. Held fixed.
      valid: bool, False for what is not there.

    Shapes: objective_advantages `[..., K]`, valid `[...]`; result float32 `[...]`, 0 where not valid.

    Raises:
      AssertionError: shapes do not agree, advantages not floating, valid not bool.

    Paper: He and Maghsudi, 2025, arXiv 2508.07768.
    """
    advantages = objectives.checked(valid, objective_advantages=objective_advantages)
    low, high = jnp.min(advantages, axis=-1), jnp.max(advantages, axis=-1)
    return jnp.clip(jnp.zeros_like(low), low, high)


# ------------------------------------------------------------------------------------------------------------- max-min


def maxmin_rewards(objective_rewards: Array, valid: Array, *, axis_name: Any = None) -> Array:
    """The reward of the group of users that is worst off: the column with the smallest mean over the batch.

    max over policies of min over groups of E[r_g] by a subgradient step on the worst group. One group is plain RLHF.

    Args:
      objective_rewards: reward of each completion under each group's reward model, on a common scale. Held fixed.
      valid: bool, False for rows that are not there.
      axis_name: mapped axis (or axes) over which the batch is split; the means are those of the whole batch.

    Shapes: objective_rewards `[N, G]`, valid `[N]`; result float32 `[N]`, 0 where not valid; of equals the first group.

    Raises:
      AssertionError: shapes do not agree, rewards not floating, valid not bool.

    Paper: Chakraborty et al., 2024, arXiv 2402.08925 (MaxMin-RLHF).
    """
    rewards = objectives.checked(valid, objective_rewards=objective_rewards)
    worst = jnp.argmin(objectives.total(rewards, axis_name))
    return jnp.take(rewards, worst, axis=-1)


def maxmin_assignments(margins: Array, annotator_ids: Array, valid: Array, *, axis_name: Any = None) -> Array:
    """The E step of MaxMin-RLHF: each user belongs to the reward model that explains all of the user's pairs best.

        g(u) = argmax_g sum over pairs of u of log s(r_g(y_w) - r_g(y_l));   weight of a pair in model g is [g = g(u)]

    The M step is Bradley-Terry of each model on its pairs. The likelihood never falls from round to round.
    Start from different random models; one that no user is left to has to be drawn anew.

    Args:
      margins: r_g(chosen) - r_g(rejected) of each pair under each of G reward models. Held fixed.
      annotator_ids: integer, who labelled the pair.
      valid: bool, False for rows that are not there.
      axis_name: mapped axis (or axes) over which the batch is split; a user's pairs may lie on several devices.

    Shapes: margins `[B, G]`, annotator_ids and valid `[B]`; result float32 `[B, G]`, one 1 in each valid row, of equals
    the first.

    Raises:
      AssertionError: shapes do not agree, margins not floating, ids not integer, valid not bool.

    Paper: Chakraborty et al., 2024, arXiv 2402.08925 (MaxMin-RLHF).
    """
    margins = objectives.checked(valid, margins=margins)
    checks.integers(annotator_ids=annotator_ids)
    checks.same_shape(valid=valid, annotator_ids=annotator_ids)
    same = grouping.same_group(annotator_ids, valid, axis_name).astype(margins.dtype)
    of_users = same @ grouping.whole(jax.nn.log_sigmoid(margins), axis_name)
    chosen = jax.nn.one_hot(jnp.argmax(of_users, axis=-1), margins.shape[-1], dtype=margins.dtype)
    return jnp.where(valid[:, None], chosen, 0.0)
