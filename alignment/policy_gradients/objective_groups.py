"""Estimators and surrogates for several rewards per completion: `objective_rewards` and `objective_advantages` [N, K].

Groups are those of `group_methods`: `group_ids` and `valid` [N], in any order, over devices (`axis_name`). A group
whose rewards are equal under an objective has advantage 0 under it.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep
from alignment.policy_gradients import grouping, objectives
from alignment.policy_gradients.surrogates import ppo

Array = jax.Array
_stop = jax.lax.stop_gradient
_LARGEST_LOG_RATIO = 20.0


def _z_scores(rewards: Array, same: Array, eps: float, ddof: float, axis_name: Any) -> Array:
    """z-score of each column of `rewards` [n, K] within its group."""

    def of_objective(column):
        of = grouping.moments(grouping.whole(column, axis_name), same, ddof=ddof)
        return grouping.standardised(column, of.mean, of.std, eps)

    return jax.vmap(of_objective, in_axes=1, out_axes=1)(rewards)


def _checked(objective_rewards: Array, group_ids: Array, valid: Array, eps: float, ddof: float) -> Array:
    checks.number("eps", eps, 0.0, closed="left")
    checks.number("ddof", ddof, 0.0, 1.0, closed="both")
    rewards = objectives.checked(valid, objective_rewards=objective_rewards)
    checks.integers(group_ids=group_ids)
    checks.same_shape(valid=valid, group_ids=group_ids)
    if rewards.ndim != 2:
        raise AssertionError(f"objective_rewards must have shape ('N', 'K'), got {rewards.shape}")
    return rewards


def objective_advantages(
    objective_rewards: Array,
    group_ids: Array,
    valid: Array,
    *,
    eps: float = 1e-4,
    ddof: int = 1,
    axis_name: Any = None,
) -> Array:
    """A_ik = (r_ik - mean of the group) / (deviation of the group + eps), for each objective k on its own.

    What methods that weigh the objectives' gradients or advantages start from (PAMA, MGDA, PCGrad, gradient weights).

    Args:
      objective_rewards: reward of each completion under each objective. Held fixed.
      group_ids: integer, shared by the completions of one prompt.
      valid: bool, False for rows that are not there.
      eps: added to the deviation, in [0, inf).
      ddof: subtracted from the count of the deviation, 0 or 1.
      axis_name: mapped axis (or axes) over which the batch is split; groups may lie on several devices.

    Shapes: objective_rewards `[N, K]`, group_ids and valid `[N]`; result float32 `[N, K]`. No gradient passes.

    Raises:
      AssertionError: shapes do not agree, rewards not floating, ids not integer, `valid` not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Shao et al., 2024, arXiv 2402.03300 (GRPO's advantage), per objective.
    """
    rewards = _checked(objective_rewards, group_ids, valid, eps, ddof)
    scores = _z_scores(rewards, grouping.same_group(group_ids, valid, axis_name), eps, ddof, axis_name)
    return jnp.where(valid[:, None], scores, 0.0)


def mo_grpo_advantages(
    objective_rewards: Array,
    group_ids: Array,
    valid: Array,
    *,
    weights: Sequence[float] = (0.5, 0.5),
    eps: float = 1e-4,
    ddof: int = 1,
    axis_name: Any = None,
) -> Array:
    """GRPO on the weighted sum: R = sum_k w_k r_k, A = (R - mean of the group) / (deviation of the group + eps).

    The objective with the largest deviation rules: see `mo_grpo_normalized_advantages`.

    Args:
      objective_rewards: reward of each completion under each objective. Held fixed.
      group_ids: integer, shared by the completions of one prompt.
      valid: bool, False for rows that are not there.
      weights: w, one for each objective, at least 0, with sum 1.
      eps: added to the deviation, in [0, inf).
      ddof: subtracted from the count of the deviation, 0 or 1.
      axis_name: mapped axis (or axes) over which the batch is split; groups may lie on several devices.

    Shapes: objective_rewards `[N, K]`, group_ids and valid `[N]`; result float32 `[N]`. No gradient passes.

    Raises:
      AssertionError: shapes do not agree, rewards not floating, ids not integer, `valid` not bool.
      ValueError: weights are not K numbers of the simplex, or a static hyperparameter out of range.

    Paper: Li et al., 2025, arXiv 2503.21819. No code was available; eps is TRL's.
    """
    rewards = _checked(objective_rewards, group_ids, valid, eps, ddof)
    summed = rewards @ checks.simplex("weights", weights, rewards.shape[1]).astype(rewards.dtype)
    same = grouping.same_group(group_ids, valid, axis_name)
    return keep(_z_scores(summed[:, None], same, eps, ddof, axis_name)[:, 0], valid)


def mo_grpo_normalized_advantages(
    objective_rewards: Array,
    group_ids: Array,
    valid: Array,
    *,
    weights: Sequence[float] = (0.5, 0.5),
    eps: float = 1e-4,
    ddof: int = 1,
    axis_name: Any = None,
) -> Array:
    """A = sum_k w_k (r_k - mean of the group) / (deviation of r_k in the group + eps): every objective on one scale.

    Scaling one objective changes nothing; one that is equal for the whole group adds 0. An objective with a tiny
    deviation is blown up unless eps is larger.

    Args:
      objective_rewards: reward of each completion under each objective. Held fixed.
      group_ids: integer, shared by the completions of one prompt.
      valid: bool, False for rows that are not there.
      weights: w, one for each objective, at least 0, with sum 1.
      eps: added to the deviations, in [0, inf).
      ddof: subtracted from the count of the deviations, 0 or 1.
      axis_name: mapped axis (or axes) over which the batch is split; groups may lie on several devices.

    Shapes: objective_rewards `[N, K]`, group_ids and valid `[N]`; result float32 `[N]`. No gradient passes.

    Raises:
      AssertionError: shapes do not agree, rewards not floating, ids not integer, `valid` not bool.
      ValueError: weights are not K numbers of the simplex, or a static hyperparameter out of range.

    Paper: a variant of Li et al., 2025, arXiv 2503.21819, that later work recommends.
    """
    rewards = _checked(objective_rewards, group_ids, valid, eps, ddof)
    scores = _z_scores(rewards, grouping.same_group(group_ids, valid, axis_name), eps, ddof, axis_name)
    weights = checks.simplex("weights", weights, rewards.shape[1]).astype(rewards.dtype)
    return keep(scores @ weights, valid)


def best_of_group_advantages(rewards: Array, group_ids: Array, valid: Array, *, axis_name: Any = None) -> Array:
    """G for the best of a group of G, 0 for the rest: with `reinforce` and the mean over completions, NLL of the best.

    Rejection sampling as a policy gradient. Of equals the first; a group of one is trained on its own sample.

    Args:
      rewards: score of each completion. Held fixed.
      group_ids: integer, shared by the completions of one prompt.
      valid: bool, False for rows that are not there.
      axis_name: mapped axis (or axes) over which the batch is split; groups may lie on several devices.

    Shapes: all `[N]`; result float32 `[N]`. No gradient passes.

    Raises:
      AssertionError: shapes differ or are not [N], rewards not floating, ids not integer, `valid` not bool.

    Paper: Wang et al., 2024, arXiv 2402.18571 (directional preference alignment, on v . r).
    """
    rewards = grouping.checked_rewards(rewards, group_ids, valid)
    same = grouping.same_group(group_ids, valid, axis_name)
    best = grouping.best_of_group(rewards, same, axis_name)
    return keep(jnp.where(best, jnp.sum(same, axis=-1), 0).astype(rewards.dtype), valid)


def ppo_of_objective(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    objective_advantages: Array,
    mask: Array,
    *,
    objective: int = 0,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
) -> Array:
    """PPO's clipped surrogate with the advantages of one objective alone: max(-A_k r, -A_k clip(r, 1 - eps, 1 + eps)).

    One term per objective, so that each has a gradient of its own (`config.training.gradient`).

    Args:
      policy_token_logps: log-prob of each completion token under the policy. Trained.
      behaviour_token_logps: the same under the policy that sampled. Held fixed.
      objective_advantages: of each completion under each objective. Held fixed.
      mask: bool, True on completion tokens.
      objective: k, in [0, K).
      eps_low, eps_high: how far the ratio may fall and rise, in [0, inf).

    Shapes: log-probs and mask `[..., T]`, objective_advantages `[..., K]`; result float32 `[..., T]`, 0 if masked.

    Raises:
      AssertionError: shapes do not agree, log-probs or advantages not floating, mask not bool.
      ValueError: no such objective, or static eps_low or eps_high out of range.

    Paper: Schulman et al., 2017, arXiv 1707.06347; per objective in Lu et al., 2025, arXiv 2509.11452.
    """
    (advantages,) = checks.floats(objective_advantages=objective_advantages)
    if advantages.shape[:-1] != jnp.shape(mask)[:-1] or advantages.ndim != jnp.ndim(mask):
        raise AssertionError(
            f"objective_advantages must have shape {(*jnp.shape(mask)[:-1], 'K')}, got {advantages.shape}"
        )
    if isinstance(objective, bool) or not 0 <= objective < advantages.shape[-1]:
        raise ValueError(f"objective must lie in [0, {advantages.shape[-1]}), got {objective}")
    of_tokens = jnp.broadcast_to(advantages[..., objective, None], jnp.shape(mask))
    return ppo(policy_token_logps, behaviour_token_logps, of_tokens, mask, eps_low=eps_low, eps_high=eps_high)


def c_morl_barrier(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    objective_rewards: Array,
    mask: Array,
    valid: Array,
    *,
    objective: int = 0,
    b: float = 0.9,
    t: float = 20.0,
    eps: float = 0.2,
    floor: float = 1e-3,
    axis_name: Any = None,
) -> Array:
    """-(1/t) mean over j != i of log max(clip(u, 1 - eps, 1 + eps) J_j - b J_j, floor): keeps all others above b J_j.

    The interior-point term of C-MORL's second stage, beside the clipped surrogate on objective i alone: extends a front
    from a policy whose returns are J, losing at most 1 - b of any other objective. J_j, the batch's mean reward, is a
    constant, and so the gradient moves the ratio u up or down for all samples alike. Rewards are meant to be positive:
    for J_j < 0 the constraint starts violated, at the floor, without a gradient. Shift them.

    Args:
      policy_token_logps: log-prob of each completion token under the policy. Trained.
      behaviour_token_logps: the same under the policy that sampled. Held fixed.
      objective_rewards: reward of each completion under each objective. Held fixed.
      mask: bool, True on completion tokens.
      valid: bool, False for rows that are not there; they do not count in J.
      objective: i, the one that is maximised, in [0, K).
      b: share of every other objective that has to stay, in (0, 1).
      t: sharpness of the barrier, in (0, inf); to infinity it vanishes.
      eps: clip of the ratio, in [0, 1).
      floor: of the slack inside the logarithm, in (0, inf).
      axis_name: mapped axis (or axes) over which the batch is split; J is that of the whole batch.

    Shapes: log-probs and mask `[N, T]`, objective_rewards `[N, K]`, valid `[N]`; result float32 `[N, T]`, 0 behind the
    mask; 0 with one objective.

    Raises:
      AssertionError: shapes do not agree, log-probs or rewards not floating, mask or valid not bool.
      ValueError: no such objective, or a static hyperparameter out of range.

    Paper: Liu et al., 2024, arXiv 2410.02236. The published code drops row i and not column i of the constraints and so
    constrains the maximised objective too; the paper is followed.
    """
    for name, value in (("t", t), ("floor", floor)):
        checks.number(name, value, 0.0)
    checks.number("b", b, 0.0, 1.0)
    checks.number("eps", eps, 0.0, 1.0, closed="left")
    policy, behaviour = checks.floats(
        policy_token_logps=policy_token_logps, behaviour_token_logps=behaviour_token_logps
    )
    checks.leading_shape(valid=valid, policy_token_logps=policy)
    rewards = objectives.checked(valid, objective_rewards=objective_rewards)
    count = rewards.shape[-1]
    if isinstance(objective, bool) or not 0 <= objective < count:
        raise ValueError(f"objective must lie in [0, {count}), got {objective}")
    log_ratios = keep(policy, mask) - keep(_stop(behaviour), mask)
    ratios = jnp.exp(jnp.clip(log_ratios, -_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO))
    rows = jnp.maximum(objectives.total(valid.astype(rewards.dtype), axis_name), 1)
    means = objectives.total(rewards, axis_name) / rows
    others = jnp.delete(means, objective, assume_unique_indices=True)
    slack = jnp.clip(ratios, 1 - eps, 1 + eps)[..., None] * others - b * others
    return keep(-jnp.sum(jnp.log(jnp.maximum(slack, floor)), axis=-1) / (t * max(count - 1, 1)), mask)


def mogfn_trajectory_balance(
    policy_logps: Array,
    token_values: Array,
    rewards: Array,
    mask: Array,
    *,
    beta: float = 4.0,
    floor: float = 1e-8,
) -> Array:
    """(log Z + log pi(y|x, w) - beta log R(y|w))^2: trajectory balance of a GFlowNet that is told the preference w.

    At 0 for every y the policy draws y with probability R^beta / Z, whatever it was trained on. For text written from
    left to right the backward probability is 1. log Z is what the value head says before the first token: it sees the
    prompt, and with it w. With beta log R = r / b + log ref it is the optimum of KL-regularised RLHF.

    Args:
      policy_logps: log-prob of each completion under the policy. Trained.
      token_values: the value head before each token; only the first one counts. Trained.
      rewards: R, the objectives scalarised by w, in (0, 1]; no gradient passes.
      mask: bool, True on completion tokens.
      beta: exponent of the reward, in [0, inf); 0 is uniform sampling.
      floor: R is raised to it before the logarithm, in (0, inf).

    Shapes: policy_logps and rewards `[...]`, token_values and mask `[..., T]`; result float32 `[...]`, in nats^2.

    Raises:
      AssertionError: shapes do not agree, log-probs, values or rewards not floating, mask not bool.
      ValueError: static beta or floor out of range.

    Paper: Jain et al., 2022, arXiv 2210.12765. The published code's Tchebycheff reward grows with the distance from the
    ideal point; `alignment.multi_objective.tchebycheff_scalarization` falls with it.
    """
    checks.number("beta", beta, 0.0, closed="left")
    checks.number("floor", floor, 0.0)
    (policy, rewards), (values,) = (
        checks.floats(policy_logps=policy_logps, rewards=rewards),
        checks.floats(token_values=token_values),
    )
    checks.leading_shape(policy_logps=policy, token_values=values)
    first = keep(values, mask)[..., 0]
    return jnp.square(first + policy - beta * jnp.log(jnp.maximum(_stop(rewards), floor)))
