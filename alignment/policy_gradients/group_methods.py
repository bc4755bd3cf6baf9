"""Advantages from the completions of a prompt and of the whole batch, beyond plain GRPO.

`rewards` [N] are scores of completions, `group_ids` [N] the same number for completions of one prompt, in any order and
of any group size, and `valid` [N] False for rows that are not there (padding, a filtered group): nothing in them is
looked at and their advantage is 0. An advantage is held fixed. Statistics are those of the whole batch, over devices
too (`axis_name`), so a minibatch has to hold all completions of its prompts. A group of equal rewards has deviation
exactly 0, and where a formula would divide by it the advantage is 0.
"""

from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep
from alignment.policy_gradients import grouping

Array = jax.Array
_stop = jax.lax.stop_gradient


def _check(eps: float, ddof: float) -> None:
    checks.number("eps", eps, 0.0, closed="left")
    checks.number("ddof", ddof, 0.0, 1.0, closed="both")


def lite_ppo_advantages(
    rewards: Array, group_ids: Array, valid: Array, *, eps: float = 1e-6, ddof: int = 1, axis_name: Any = None
) -> Array:
    """Lite PPO: A_i = (r_i - mean of the group) / (standard deviation of the batch + eps).

    The scale is one number for all rewards of the batch, not one per group: a group with a single success among many
    failures does not have its one success blown up. Scaling all rewards changes nothing, scaling those of one group
    does. A group of equal rewards (a single completion too) gets 0.

    Args:
      rewards: score of each completion. Held fixed.
      group_ids: integer, shared by the completions of one prompt.
      valid: bool, False for rows that are not there.
      eps: added to the deviation, in [0, inf).
      ddof: subtracted from the count of the deviation, 0 or 1.
      axis_name: mapped axis (or axes) over which the batch is split; the statistics are those of the whole batch.

    Shapes: all `[N]`; result float32 `[N]`. No gradient passes.

    Raises:
      AssertionError: shapes differ or are not [N], rewards not floating, ids not integer, `valid` not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Liu et al., 2025, arXiv 2508.08221; with the clipped surrogate, `token_mean`, no KL, no filter. TRL's
    `scale_rewards='batch'` agrees (it has eps 1e-4).
    """
    rewards = grouping.checked_rewards(rewards, group_ids, valid)
    _check(eps, ddof)
    everything = grouping.whole(rewards, axis_name)
    mean = grouping.moments(everything, grouping.same_group(group_ids, valid, axis_name), ddof=ddof).mean
    std = grouping.moments(everything, grouping.everyone(valid, axis_name), ddof=ddof).std
    return keep(grouping.standardised(rewards, mean, std, eps), valid)


def ngrpo_advantages(
    rewards: Array,
    group_ids: Array,
    valid: Array,
    *,
    max_reward: float = 1.0,
    num_virtual: int = 1,
    eps: float = 1e-6,
    ddof: int = 1,
    axis_name: Any = None,
) -> Array:
    """NGRPO: A_i = (r_i - m) / (s + eps), m and s of the group and `num_virtual` samples of the highest reward.

    The virtual samples take the positive part, so real advantages sum to less than 0 unless all completions have the
    highest reward (all are then 0). A group that is all wrong pushes all its completions down, by 1 / sqrt(G + 1) at
    one virtual sample, where GRPO would not learn. Needs a stricter clip for negative advantages (0.16, and 0.24 for
    positive ones), without which training diverges.

    Args:
      rewards: score of each completion. Held fixed.
      group_ids: integer, shared by the completions of one prompt.
      valid: bool, False for rows that are not there.
      max_reward: the highest reward that can be had, in (-inf, inf).
      num_virtual: how many virtual samples join each group, in [0, inf); 0 is GRPO.
      eps: added to the deviation, in [0, inf).
      ddof: subtracted from the count of the deviation, 0 or 1.
      axis_name: mapped axis (or axes) over which the batch is split; groups may lie on several devices.

    Shapes: all `[N]`; result float32 `[N]`. No gradient passes.

    Raises:
      AssertionError: shapes differ or are not [N], rewards not floating, ids not integer, `valid` not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Nan et al., 2025, arXiv 2509.18851. A prompt with one completion follows the formula too; the authors'
    `compute_ngrpo_outcome_advantage` gives it its raw reward.
    """
    rewards = grouping.checked_rewards(rewards, group_ids, valid)
    _check(eps, ddof)
    checks.number("max_reward", max_reward, -jnp.inf)
    checks.number("num_virtual", num_virtual, 0, closed="left")
    everything, same = grouping.whole(rewards, axis_name), grouping.same_group(group_ids, valid, axis_name)
    group = grouping.moments(everything, same, ddof=0)
    count = jnp.maximum(group.count + num_virtual, 1)
    mean = (group.count * group.mean + num_virtual * max_reward) / count
    squares = jnp.sum(jnp.where(same, jnp.square(everything[None, :] - mean[:, None]), 0.0), axis=-1)
    squares = squares + num_virtual * jnp.square(max_reward - mean)
    # Not from `squares`: of equal numbers it is only nearly 0.
    spread = (group.high > group.low) | ((num_virtual > 0) & (group.high != max_reward))
    std = jnp.where(spread, jnp.sqrt(squares / jnp.maximum(count - ddof, 1)), 0.0)
    return keep(grouping.standardised(rewards, mean, std, eps), valid)


def _checked_rows(rewards: Array, valid: Array) -> Array:
    (rewards,) = checks.floats(rewards=rewards)
    checks.boolean(valid=valid)
    return keep(_stop(rewards), valid)


def psr_advantages(rewards: Array, valid: Array) -> Array:
    """Positive sample reinforcement: A = r, so that with rewards 0 and 1 only correct completions train.

    On-policy its gradient is that of SFT on the correct samples, times their share. It sharpens the policy at the cost
    of its diversity.

    Args:
      rewards: 1 for a correct completion, 0 for a wrong one. Held fixed.
      valid: bool, False for rows that are not there.

    Shapes: both `[...]`, usually `[N]`; result float32 `[...]`. No gradient passes.

    Raises:
      AssertionError: shapes differ, rewards not floating, `valid` not bool.

    Paper: Zhu et al., 2025, arXiv 2506.01347.
    """
    return _checked_rows(rewards, valid)


def nsr_advantages(rewards: Array, valid: Array) -> Array:
    """Negative sample reinforcement: A = r - 1, so that with rewards 0 and 1 only wrong completions train.

    Probability taken from a wrong completion goes to the others in proportion to what they have, which keeps the
    policy's own ranking and its entropy. Has no baseline: the scale of the update is the error rate.

    Args:
      rewards: 1 for a correct completion, 0 for a wrong one. Held fixed.
      valid: bool, False for rows that are not there.

    Shapes: both `[...]`, usually `[N]`; result float32 `[...]`. No gradient passes.

    Raises:
      AssertionError: shapes differ, rewards not floating, `valid` not bool.

    Paper: Zhu et al., 2025, arXiv 2506.01347.
    """
    return keep(_checked_rows(rewards, valid) - 1.0, valid)


def weighted_reinforce_advantages(rewards: Array, valid: Array, *, positive_weight: float = 0.1) -> Array:
    """Weighted REINFORCE: A = w for a correct completion, -1 for a wrong one.

    w = 1 is REINFORCE with rewards of +-1; a small w keeps most of the diversity of `nsr_advantages` and its stability.

    Args:
      rewards: 1 for a correct completion, 0 for a wrong one; above 1/2 counts as correct. Held fixed.
      valid: bool, False for rows that are not there.
      positive_weight: w, in [0, inf).

    Shapes: both `[...]`, usually `[N]`; result float32 `[...]`. No gradient passes.

    Raises:
      AssertionError: shapes differ, rewards not floating, `valid` not bool.
      ValueError: static positive_weight out of range.

    Paper: Zhu et al., 2025, arXiv 2506.01347.
    """
    rewards = _checked_rows(rewards, valid)
    checks.number("positive_weight", positive_weight, 0.0, closed="left")
    return keep(jnp.where(rewards > 0.5, positive_weight, -1.0).astype(rewards.dtype), valid)


def stratified_grpo_advantages(
    rewards: Array,
    strata: Array,
    group_ids: Array,
    valid: Array,
    *,
    alpha: float = 0.8,
    eps: float = 1e-8,
    ddof: int = 0,
    axis_name: Any = None,
) -> Array:
    """Stratified advantage normalisation: alpha * (z-score within the stratum) + (1 - alpha) * (z-score in the group).

    A stratum is the completions of one prompt that are built alike, for example with the same number of searches.
    r - mean_group = (r - mean_stratum) + (mean_stratum - mean_group), and the second part judges a completion by the
    company it keeps; at alpha = 1 a constant added to a stratum changes nothing. The only one of a stratum gets 0 from
    it, which is what blending is for.

    Args:
      rewards: score of each completion. Held fixed.
      strata: integer label of the structure of each completion; equal labels of different prompts do not meet.
      group_ids: integer, shared by the completions of one prompt.
      valid: bool, False for rows that are not there.
      alpha: share of the stratum's score, in [0, 1]; 0 is GRPO. The paper tunes it.
      eps: added to the deviations, in [0, inf).
      ddof: subtracted from the count of the deviations, 0 (as in the paper's statements) or 1.
      axis_name: mapped axis (or axes) over which the batch is split; groups may lie on several devices.

    Shapes: all `[N]`; result float32 `[N]`. No gradient passes.

    Raises:
      AssertionError: shapes differ or are not [N], rewards not floating, labels not integer, `valid` not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Zhu et al., 2025, arXiv 2510.06214. The authors' code was not available.
    """
    rewards = grouping.checked_rewards(rewards, group_ids, valid)
    checks.integers(strata=strata)
    checks.same_shape(rewards=rewards, strata=strata)
    _check(eps, ddof)
    checks.number("alpha", alpha, 0.0, 1.0, closed="both")
    everything, same = grouping.whole(rewards, axis_name), grouping.same_group(group_ids, valid, axis_name)
    alike = same & (strata[:, None] == grouping.whole(strata, axis_name)[None, :])
    scores = []
    for members in (alike, same):
        of = grouping.moments(everything, members, ddof=ddof)
        scores.append(grouping.standardised(rewards, of.mean, of.std, eps))
    return keep(alpha * scores[0] + (1 - alpha) * scores[1], valid)
