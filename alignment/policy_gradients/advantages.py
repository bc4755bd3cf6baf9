"""From rewards to advantages: baselines, returns, and their normalisation over a group or over the batch.

One number per completion `[N]` from the estimators with a baseline per prompt, one per token `[N, T]` from those with a
return per token. Nothing here is differentiated. Completions of one prompt share a number in `group_ids`; the rows of a
group need not stand together, nor be equally many, nor on one device. Rows that are not `valid` count in no statistic
and have the advantage 0. What a group without a spread gets is said in each docstring, and is never NaN or huge.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep
from alignment.policy_gradients.whitening import masked_whiten

Array = jax.Array
_stop = jax.lax.stop_gradient


def _gather(axis_name: Any, *arrays: Array) -> tuple[Array, ...]:
    """The whole batch's arrays, in the order of the devices."""
    if axis_name is None:
        return arrays
    return tuple(jax.lax.all_gather(x, axis_name, tiled=True) for x in arrays)


def _check_groups(rewards: Array, group_ids: Array, valid: Array) -> Array:
    """The rewards in float32, 0 where the row does not count."""
    (rewards,) = checks.floats(rewards=rewards)
    checks.integers(group_ids=group_ids)
    checks.same_shape(rewards=rewards, group_ids=group_ids)
    if rewards.ndim != 1:  # groups by responses would broadcast to wrong numbers where there are as many of both
        raise AssertionError(f"rewards must have one axis, a row for each completion, got shape {rewards.shape}")
    return keep(_stop(rewards), valid)


def _deviations(rewards: Array, group_ids: Array, valid: Array, axis_name: Any) -> tuple[Array, Array, Array]:
    """For each of these rows r - mean of its group, the members of its group in the whole batch `[n, N]`, and r_j.

    Exactly 0 where all rewards of the group are equal: the mean of equal floats may be off by a rounding, and a
    division by their standard deviation would blow that up.
    """
    all_rewards, all_ids, all_valid = _gather(axis_name, rewards, group_ids, valid)
    same = (group_ids[:, None] == all_ids[None, :]) & (valid[:, None] & all_valid[None, :])
    count = jnp.maximum(jnp.sum(same, axis=-1), 1)
    others = jnp.where(same, all_rewards[None, :], rewards[:, None])
    differences = rewards[:, None] - others  # 0 for those who are not in the group
    return jnp.sum(differences, axis=-1) / count, same, all_rewards


def grpo_advantages(
    rewards: Array, group_ids: Array, valid: Array, *, eps: float = 1e-6, ddof: int = 1, axis_name: Any = None
) -> Array:
    """(r - mean of the group) / (std of the group + eps): the z-score of a completion among those of its prompt.

    0 in a group whose rewards are all equal, and in a group of one. With 0/1 rewards, success rate p and ddof 0 it is
    sqrt((1 - p) / p) for right answers and -sqrt(p / (1 - p)) for wrong ones.

    Args:
      rewards: of each completion. Held fixed, as is everything here.
      group_ids: integer; completions of one prompt share it.
      valid: bool, False for rows that do not count.
      eps: in (0, inf).
      ddof: 1 (divide the squares by k - 1) or 0 (by k).
      axis_name: mapped axis (or axes) over which the batch is split; groups may span it.

    Shapes: all `[N]`; result float32 `[N]`, in standard deviations.

    Raises:
      AssertionError: shapes differ, rewards not floating, group_ids not integer, valid not bool.
      ValueError: static eps out of range, ddof neither 0 nor 1.

    Paper: Shao et al., 2024, arXiv 2402.03300, which leaves eps and ddof open; 1 is that of verl, TRL and Tunix, 1e-6
    verl's eps (TRL 1e-4). verl gives a group of one its raw reward; here it has nothing to be compared with.
    """
    checks.number("eps", eps, 0.0)
    if ddof not in (0, 1):
        raise ValueError(f"ddof must be one of {{0, 1}}, got {ddof}")
    rewards = _check_groups(rewards, group_ids, valid)
    deviations, same, all_rewards = _deviations(rewards, group_ids, valid, axis_name)
    count = jnp.sum(same, axis=-1)
    means = rewards - deviations
    squares = jnp.sum(jnp.where(same, jnp.square(all_rewards[None, :] - means[:, None]), 0.0), axis=-1)
    std = jnp.sqrt(squares / jnp.maximum(count - ddof, 1))
    return _stop(keep(deviations / (std + eps), valid))


def grpo_process_advantages(
    token_rewards: Array,
    step_mask: Array,
    group_ids: Array,
    valid: Array,
    *,
    eps: float = 1e-6,
    axis_name: Any = None,
) -> Array:
    """A_t = sum of the normalised rewards of the steps that end at t or later: GRPO with a reward per reasoning step.

    Normalised as in `grpo_advantages`, with mean and standard deviation (ddof 1) over all steps of all completions of
    the group. 0 in a group whose step rewards are all equal, and after the last step of a completion.

    Args:
      token_rewards: reward of a step, at the token where the step ends. Held fixed, as is everything here.
      step_mask: bool, True on the last token of each step; what stands elsewhere is not looked at.
      group_ids: integer; completions of one prompt share it.
      valid: bool, False for rows that do not count.
      eps: in (0, inf).
      axis_name: mapped axis (or axes) over which the batch is split; groups may span it.

    Shapes: token_rewards and step_mask `[N, T]`; group_ids and valid `[N]`; result float32 `[N, T]`, in standard
    deviations.

    Raises:
      AssertionError: shapes do not agree, token_rewards not floating, group_ids not integer, the rest not bool.
      ValueError: static eps out of range.

    Paper: Shao et al., 2024, arXiv 2402.03300, process supervision.
    """
    checks.number("eps", eps, 0.0)
    (rewards,) = checks.floats(token_rewards=token_rewards)
    checks.boolean(valid=valid)
    checks.integers(group_ids=group_ids)
    checks.same_shape(group_ids=group_ids, valid=valid)
    checks.leading_shape(valid=valid, token_rewards=rewards)
    rewards = keep(_stop(rewards), step_mask)
    steps = step_mask & valid[:, None]

    def of_group(row_values: Array) -> Array:
        """Sum of a number per row over the rows of the same group, for these rows."""
        all_values, all_ids = _gather(axis_name, row_values, group_ids)
        return jnp.sum(jnp.where(group_ids[:, None] == all_ids[None, :], all_values[None, :], 0), axis=-1)

    def extreme(row_values: Array, pick: Any) -> Array:
        all_values, all_ids = _gather(axis_name, row_values, group_ids)
        far = row_values[:, None]
        return pick(jnp.where(group_ids[:, None] == all_ids[None, :], all_values[None, :], far), axis=-1)

    count = of_group(jnp.sum(steps, axis=-1))
    mean = of_group(jnp.sum(jnp.where(steps, rewards, 0.0), axis=-1)) / jnp.maximum(count, 1)
    away = jnp.where(steps, rewards - mean[:, None], 0.0)
    std = jnp.sqrt(of_group(jnp.sum(jnp.square(away), axis=-1)) / jnp.maximum(count - 1, 1))
    low = extreme(jnp.min(jnp.where(steps, rewards, jnp.inf), axis=-1), jnp.min)
    high = extreme(jnp.max(jnp.where(steps, rewards, -jnp.inf), axis=-1), jnp.max)
    scores = jnp.where((high > low)[:, None], away / (std + eps)[:, None], 0.0)
    return _stop(jnp.cumsum(scores[:, ::-1], axis=-1)[:, ::-1])


def dr_grpo_advantages(rewards: Array, group_ids: Array, valid: Array, *, axis_name: Any = None) -> Array:
    """r - mean of the group, not divided by its spread: (k - 1) / k of the leave-one-out advantage.

    Scales with the rewards, and does not make a prompt weigh more because its answers are nearly all right or wrong.
    0 in a group of one, and exactly 0 where all rewards of a group are equal.

    Args:
      rewards: of each completion. Held fixed, as is everything here.
      group_ids: integer; completions of one prompt share it.
      valid: bool, False for rows that do not count.
      axis_name: mapped axis (or axes) over which the batch is split; groups may span it.

    Shapes: all `[N]`; result float32 `[N]`, in the units of the rewards.

    Raises:
      AssertionError: shapes differ, rewards not floating, group_ids not integer, valid not bool.

    Paper: Liu et al., 2025, arXiv 2503.20783.
    """
    rewards = _check_groups(rewards, group_ids, valid)
    return _stop(keep(_deviations(rewards, group_ids, valid, axis_name)[0], valid))


def rloo_advantages(rewards: Array, group_ids: Array, valid: Array, *, axis_name: Any = None) -> Array:
    """r - mean of the group's other completions = k / (k - 1) * (r - mean of the group).

    The baseline does not depend on the completion it is taken from, so the gradient stays unbiased. A group of one has
    no baseline and keeps its raw reward; exactly 0 where all rewards of a larger group are equal.

    Args:
      rewards: of each completion, the KL penalty within. Held fixed, as is everything here.
      group_ids: integer; completions of one prompt share it.
      valid: bool, False for rows that do not count.
      axis_name: mapped axis (or axes) over which the batch is split; groups may span it.

    Shapes: all `[N]`; result float32 `[N]`, in the units of the rewards.

    Raises:
      AssertionError: shapes differ, rewards not floating, group_ids not integer, valid not bool.

    Paper: Ahmadian et al., 2024, arXiv 2402.14740; Kool et al., 2019. For a group of one as in verl.
    """
    rewards = _check_groups(rewards, group_ids, valid)
    deviations, same, _ = _deviations(rewards, group_ids, valid, axis_name)
    count = jnp.sum(same, axis=-1)
    return _stop(keep(jnp.where(count > 1, deviations * count / jnp.maximum(count - 1, 1), rewards), valid))


def remax_advantages(rewards: Array, greedy_rewards: Array, *, limit: float = 5.0) -> Array:
    """clip(r - r_greedy, -limit, limit): the reward of the greedy decode of the same prompt is the baseline.

    No critic, no group: one sample and one greedy decode per prompt, both by the current policy. Whatever the prompt
    adds to both rewards cancels.

    Args:
      rewards: of each completion. Held fixed, as is everything here.
      greedy_rewards: of the greedy completion of the same prompt.
      limit: in (0, inf]; applied after the baseline.

    Shapes: both `[...]`, usually `[N]`; result float32 `[...]`, in the units of the rewards.

    Raises:
      AssertionError: shapes differ, rewards not floating.
      ValueError: static limit out of range.

    Paper: Li et al., 2023, arXiv 2310.10505; the clip is the authors' code's, limit = inf the paper.
    """
    checks.number("limit", limit, 0.0, math.inf, closed="right")
    rewards, greedy = checks.floats(rewards=rewards, greedy_rewards=greedy_rewards)
    return _stop(jnp.clip(rewards - greedy, -limit, limit))


def _remax(rewards, greedy_rewards, behaviour, reference, mask, beta, limit) -> tuple[Array, Array]:
    """The advantage of each completion and the penalty beta * k1 of each token."""
    checks.number("beta", beta, 0.0, closed="left")
    behaviour, reference = checks.floats(behaviour_token_logps=behaviour, reference_token_logps=reference)
    advantages = remax_advantages(rewards, greedy_rewards, limit=limit)
    checks.leading_shape(rewards=advantages, behaviour_token_logps=behaviour)
    return advantages, beta * _stop(keep(behaviour, mask) - keep(reference, mask))


def remax_one_step_kl_advantages(
    rewards: Array,
    greedy_rewards: Array,
    behaviour_token_logps: Array,
    reference_token_logps: Array,
    mask: Array,
    *,
    beta: float = 0.1,
    limit: float = 5.0,
) -> Array:
    """A_t = clip(r - r_greedy, -limit, limit) - beta (log pi_old(y_t) - log ref(y_t)): the penalty of the token only.

    That a token leads to prefixes with a large KL is not held against it, so this is not the policy gradient of the
    penalised reward; `remax_kl_to_go_advantages` is.

    Args:
      rewards, greedy_rewards, limit: as in `remax_advantages`. Held fixed, as is everything here.
      behaviour_token_logps: log-prob of each completion token under the policy that sampled it.
      reference_token_logps: the same under the reference.
      mask: bool, True on completion tokens.
      beta: in [0, inf).

    Shapes: rewards `[...]`, usually `[N]`; the others `[..., T]`; result float32 `[..., T]`, in the units of the
    rewards, 0 behind the mask.

    Raises:
      AssertionError: shapes do not agree, rewards or log-probs not floating, mask not bool.
      ValueError: static beta or limit out of range.

    Paper: Li et al., 2023, arXiv 2310.10505, as the authors' code has it (with gamma = 1; for gamma < 1 that code also
    shrinks the terminal reward).
    """
    advantages, penalties = _remax(
        rewards, greedy_rewards, behaviour_token_logps, reference_token_logps, mask, beta, limit
    )
    return keep(advantages[..., None] - penalties, mask)


def remax_kl_to_go_advantages(
    rewards: Array,
    greedy_rewards: Array,
    behaviour_token_logps: Array,
    reference_token_logps: Array,
    mask: Array,
    *,
    beta: float = 0.1,
    limit: float = 5.0,
) -> Array:
    """A_t = clip(r - r_greedy, -limit, limit) - beta * (sum over s >= t of log pi_old(y_s) - log ref(y_s)).

    The reward-to-go of the KL-shaped reward minus the greedy baseline: unbiased for the penalised reward, where
    `remax_one_step_kl_advantages` is what the authors ran.

    Args:
      rewards, greedy_rewards, limit: as in `remax_advantages`. Held fixed, as is everything here.
      behaviour_token_logps: log-prob of each completion token under the policy that sampled it.
      reference_token_logps: the same under the reference.
      mask: bool, True on completion tokens.
      beta: in [0, inf).

    Shapes: rewards `[...]`, usually `[N]`; the others `[..., T]`; result float32 `[..., T]`, in the units of the
    rewards, 0 behind the mask.

    Raises:
      AssertionError: shapes do not agree, rewards or log-probs not floating, mask not bool.
      ValueError: static beta or limit out of range.

    Paper: Li et al., 2023, arXiv 2310.10505; this form is verl's (which does not clip: limit = inf).
    """
    advantages, penalties = _remax(
        rewards, greedy_rewards, behaviour_token_logps, reference_token_logps, mask, beta, limit
    )
    to_go = jnp.cumsum(penalties[..., ::-1], axis=-1)[..., ::-1]
    return keep(advantages[..., None] - to_go, mask)


def _backwards(step: Any, mask: Array, *arrays: Array) -> Array:
    """`step(carry, *values at t) -> carry` from the last token to the first, for all rows at once; the carry is `[...]`
    and skips the positions that do not count. Returns what it was after each, `[..., T]`."""

    def body(carry, inputs):
        counts, *values = inputs
        carry = jax.tree.map(lambda new, old: jnp.where(counts, new, old), step(carry, *values), carry)
        return carry, carry[0]

    time_first = [jnp.moveaxis(x, -1, 0) for x in (mask, *arrays)]
    zero = jnp.zeros_like(time_first[1][0])  # not jnp.zeros: under shard_map it must vary over the same axes
    return jnp.moveaxis(jax.lax.scan(body, (zero, zero), time_first, reverse=True)[1], 0, -1)


def gae(
    token_rewards: Array, behaviour_token_values: Array, mask: Array, *, gamma: float = 1.0, lam: float = 0.95
) -> dict[str, Array]:
    """A_t = delta_t + gamma lam A_{t+1}, delta_t = r_t + gamma V_{t+1} - V_t; returns A_t + V_t for the critic.

    V is 0 after the last token. Positions that do not count (padding, tokens of a tool) are stepped over: V_{t+1} and
    A_{t+1} are those of the next token that counts, with one decay. `gae_whitened` adds the usual normalisation of the
    advantages; the returns never see it. A truncated completion is taken to end where it was cut.

    Args:
      token_rewards: reward of each token. Held fixed, as is everything here.
      behaviour_token_values: the critic before each token, at the rollout.
      mask: bool, True on completion tokens; rewards elsewhere are not looked at.
      gamma: discount, in [0, 1].
      lam: 0 is the one-step TD error, 1 the Monte-Carlo return minus V; in [0, 1].

    Shapes: all `[..., T]`; `token_advantages` and `token_returns` float32 `[..., T]`, in the units of the rewards, 0
    behind the mask.

    Raises:
      AssertionError: shapes differ, rewards or values not floating, mask not bool.
      ValueError: static gamma or lam out of range.

    Paper: Schulman et al., 2015, arXiv 1506.02438.
    """
    checks.number("gamma", gamma, 0.0, 1.0, closed="both")
    checks.number("lam", lam, 0.0, 1.0, closed="both")
    rewards, values = checks.floats(token_rewards=token_rewards, behaviour_token_values=behaviour_token_values)
    rewards, values = keep(_stop(rewards), mask), keep(_stop(values), mask)

    def step(carry, reward, value):
        advantage, next_value = carry
        return reward + gamma * next_value - value + gamma * lam * advantage, value

    advantages = _backwards(step, mask, rewards, values)
    return {"token_advantages": keep(advantages, mask), "token_returns": keep(advantages + values, mask)}


def gae_whitened(
    token_rewards: Array,
    behaviour_token_values: Array,
    mask: Array,
    valid: Array,
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
    axis_name: Any = None,
) -> dict[str, Array]:
    """`gae` with the advantages, not the returns, whitened over all tokens of the batch (`masked_whiten`).

    Args:
      token_rewards, behaviour_token_values, mask, gamma, lam: as in `gae`. Held fixed, as is everything here.
      valid: bool, False for rows that do not count.
      axis_name: mapped axis (or axes) over which the batch is split; the moments are those of the whole batch.

    Shapes: valid `[N]`, the others `[N, T]`; `token_advantages` (in standard deviations) and `token_returns` (in the
    units of the rewards) float32 `[N, T]`, 0 behind the mask.

    Raises:
      AssertionError: shapes do not agree, rewards or values not floating, mask or valid not bool.
      ValueError: static gamma or lam out of range.

    Paper: Schulman et al., 2015, arXiv 1506.02438; whitened as in Ziegler et al., 2019, arXiv 1909.08593.
    """
    estimates = gae(token_rewards, behaviour_token_values, mask, gamma=gamma, lam=lam)
    whitened = masked_whiten(estimates["token_advantages"], mask, valid, axis_name=axis_name)
    return {**estimates, "token_advantages": whitened}


def reinforce_pp_advantages(
    token_rewards: Array, mask: Array, valid: Array, *, gamma: float = 1.0, axis_name: Any = None
) -> Array:
    """The discounted reward-to-go of each token, whitened over all tokens of the batch: REINFORCE++.

    G_t = r_t + gamma G_{t+1}, stepping over positions that do not count as `gae` does. The batch takes the place of
    the group: neither a critic nor several completions per prompt are needed.

    Args:
      token_rewards: reward of each token, from `kl_shaped_rewards`. Held fixed, as is everything here.
      mask: bool, True on completion tokens.
      valid: bool, False for rows that do not count.
      gamma: discount, in [0, 1].
      axis_name: mapped axis (or axes) over which the batch is split; the moments are those of the whole batch.

    Shapes: token_rewards and mask `[N, T]`; valid `[N]`; result float32 `[N, T]`, in standard deviations, 0 where
    nothing counts.

    Raises:
      AssertionError: shapes do not agree, token_rewards not floating, mask or valid not bool.
      ValueError: static gamma out of range.

    Paper: Hu et al., 2025, arXiv 2501.03262.
    """
    checks.number("gamma", gamma, 0.0, 1.0, closed="both")
    (rewards,) = checks.floats(token_rewards=token_rewards)
    rewards = keep(_stop(rewards), mask)
    returns = _backwards(lambda carry, reward: (reward + gamma * carry[0], carry[1]), mask, rewards)
    return masked_whiten(returns, mask, valid, axis_name=axis_name)


def reinforce_pp_baseline_advantages(
    rewards: Array, group_ids: Array, mask: Array, valid: Array, *, axis_name: Any = None
) -> Array:
    """r - mean of the group at every token, whitened over all tokens of the batch: REINFORCE++ with a baseline.

    The group says what is better, the batch how large an advantage is: no prompt is scaled up for a small spread. The
    KL goes into the loss (`kl_k2`) rather than into the reward.

    Args:
      rewards: of each completion. Held fixed, as is everything here.
      group_ids: integer; completions of one prompt share it.
      mask: bool, True on completion tokens.
      valid: bool, False for rows that do not count.
      axis_name: mapped axis (or axes) over which the batch is split; groups may span it.

    Shapes: rewards, group_ids and valid `[N]`; mask `[N, T]`; result float32 `[N, T]`, in standard deviations, 0 where
    nothing counts.

    Raises:
      AssertionError: shapes do not agree, rewards not floating, group_ids not integer, mask or valid not bool.

    Paper: Hu et al., 2025, arXiv 2501.03262.
    """
    advantages = dr_grpo_advantages(rewards, group_ids, valid, axis_name=axis_name)
    checks.boolean(mask=mask)
    checks.leading_shape(rewards=advantages, mask=mask)
    return masked_whiten(jnp.where(mask, advantages[:, None], 0.0), mask, valid, axis_name=axis_name)
