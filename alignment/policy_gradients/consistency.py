"""COPO: how much the answers to a prompt agree decides what its completions learn from.

`answers` [N] are numbers of the final answers, equal for equal answers to one prompt (a failed extraction is an answer
of its own kind). H is their entropy within the group, in bits: 0 if all agree, log2 G if no two do. The other arguments
are those of `group_methods`. The blended loss takes three numbers per completion: `advantages` (of GRPO, within the
group), `global_advantages` and `blend_weights`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep
from alignment.policy_gradients import grouping

Array = jax.Array
_stop = jax.lax.stop_gradient
_LARGEST_LOG_RATIO = 20.0


def _entropies(answers: Array, same: Array, valid: Array, dtype: Any, axis_name: Any) -> Array:
    """H of each row's group in bits, f[n], 0 in rows that are not there."""
    alike = same & (answers[:, None] == grouping.whole(answers, axis_name)[None, :])
    count = jnp.maximum(jnp.sum(same, axis=-1), 1).astype(dtype)
    shares = jnp.where(valid, jnp.sum(alike, axis=-1) / count, 1.0)
    # The mean of -log p over the completions is the sum of -p log p over the answers. max(): -0.0 if all agree.
    return keep(jnp.maximum(-grouping.total(grouping.whole(jnp.log2(shares), axis_name), same) / count, 0.0), valid)


def _checked(rewards: Array, answers: Array, group_ids: Array, valid: Array) -> Array:
    rewards = grouping.checked_rewards(rewards, group_ids, valid)
    checks.integers(answers=answers)
    checks.same_shape(rewards=rewards, answers=answers)
    return rewards


def copo_global_advantages(
    rewards: Array,
    answers: Array,
    group_ids: Array,
    valid: Array,
    *,
    entropy_coef: float = 1.0,
    eps: float = 1e-6,
    axis_name: Any = None,
) -> Array:
    """Advantage of a prompt among the prompts of the batch: the z-score over prompts of

        R_g = mean reward * (1 - c * lambda * H),   lambda = (1 - 1 / G) / log2 G

    All completions of a prompt share it. lambda makes the factor 1 for a unanimous group and 1 / G when no two answers
    agree (c = 1), so R_g of rewards in [0, 1] stays there. Each prompt counts once, whatever its group size; deviation
    with one degree of freedom less. One prompt alone, or prompts that all have the same R_g, get 0.

    Args:
      rewards: score of each completion. Held fixed.
      answers: integer, equal for equal final answers.
      group_ids: integer, shared by the completions of one prompt.
      valid: bool, False for rows that are not there.
      entropy_coef: c, in [0, 1]; 0 leaves the mean reward alone.
      eps: added to the deviation, in [0, inf).
      axis_name: mapped axis (or axes) over which the batch is split; the statistics are those of the whole batch.

    Shapes: all `[N]`; result float32 `[N]`. No gradient passes.

    Raises:
      AssertionError: shapes differ or are not [N], rewards not floating, labels not integer, `valid` not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Han et al., 2025, arXiv 2508.04138. The published run script switches the entropy factor off
    (`entropy_coef=0`); the default is the paper's.
    """
    rewards = _checked(rewards, answers, group_ids, valid)
    checks.number("entropy_coef", entropy_coef, 0.0, 1.0, closed="both")
    checks.number("eps", eps, 0.0, closed="left")
    same = grouping.same_group(group_ids, valid, axis_name)
    group = grouping.moments(grouping.whole(rewards, axis_name), same, ddof=0)
    largest = jnp.log2(jnp.maximum(group.count, 2))
    scale = (1 - 1 / jnp.maximum(group.count, 1)) / largest
    entropies = _entropies(answers, same, valid, rewards.dtype, axis_name)
    of_prompt = keep(group.mean * (1 - entropy_coef * scale * entropies), valid)
    one_each = grouping.everyone(grouping.first_of_group(same, valid, axis_name), axis_name)
    over_prompts = grouping.moments(grouping.whole(of_prompt, axis_name), one_each, ddof=1)
    return keep(grouping.standardised(of_prompt, over_prompts.mean, over_prompts.std, eps), valid)


def copo_blend_weights(
    rewards: Array,
    answers: Array,
    group_ids: Array,
    valid: Array,
    *,
    k: float = 5.0,
    b: float = 1.0,
    axis_name: Any = None,
) -> Array:
    """Weight of the loss within the group: s(k (H - b)); the loss between groups gets the rest.

    Where answers differ there is something to compare within the group; where they agree there is not. k to infinity
    is a hard switch at H = b.

    Args:
      rewards: looked at for its shape only: the three blends take the same arguments. Held fixed.
      answers: integer, equal for equal final answers.
      group_ids: integer, shared by the completions of one prompt.
      valid: bool, False for rows that are not there; their weight is 0.
      k: slope per bit, in [0, inf).
      b: entropy at which both losses weigh the same, in bits, in [0, inf).
      axis_name: mapped axis (or axes) over which the batch is split; groups may lie on several devices.

    Shapes: all `[N]`; result float32 `[N]` in [0, 1]. No gradient passes.

    Raises:
      AssertionError: shapes differ or are not [N], rewards not floating, labels not integer, `valid` not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Han et al., 2025, arXiv 2508.04138.
    """
    rewards = _checked(rewards, answers, group_ids, valid)
    checks.number("k", k, 0.0, closed="left")
    checks.number("b", b, 0.0, closed="left")
    same = grouping.same_group(group_ids, valid, axis_name)
    return keep(jax.nn.sigmoid(k * (_entropies(answers, same, valid, rewards.dtype, axis_name) - b)), valid)


def copo_forced_blend_weights(
    rewards: Array,
    answers: Array,
    group_ids: Array,
    valid: Array,
    *,
    k: float = 5.0,
    b: float = 1.0,
    axis_name: Any = None,
) -> Array:
    """`copo_blend_weights`, but 0 where the advantage within the group is 0: nothing is spent on a loss that is mute.

    Args:
      rewards: score of each completion; its advantage in the group is 0 where it equals the group's mean. Held fixed.
      answers, group_ids, valid, k, b, axis_name: as in `copo_blend_weights`.

    Shapes: all `[N]`; result float32 `[N]` in [0, 1]. No gradient passes.

    Raises:
      AssertionError: shapes differ or are not [N], rewards not floating, labels not integer, `valid` not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Han et al., 2025, arXiv 2508.04138; 'soft with forced' in the authors' code.
    """
    weights = copo_blend_weights(rewards, answers, group_ids, valid, k=k, b=b, axis_name=axis_name)
    rewards = grouping.checked_rewards(rewards, group_ids, valid)
    same = grouping.same_group(group_ids, valid, axis_name)
    return keep(weights, rewards != grouping.moments(grouping.whole(rewards, axis_name), same, ddof=0).mean)


def copo_nonzero_blend_weights(
    rewards: Array,
    answers: Array,
    group_ids: Array,
    valid: Array,
    *,
    k: float = 5.0,
    b: float = 1.0,
    axis_name: Any = None,
) -> Array:
    """`copo_blend_weights`, but 0 for completions whose reward is 0: those learn from the prompt's advantage alone.

    Args:
      rewards: score of each completion. Held fixed.
      answers, group_ids, valid, k, b, axis_name: as in `copo_blend_weights`.

    Shapes: all `[N]`; result float32 `[N]` in [0, 1]. No gradient passes.

    Raises:
      AssertionError: shapes differ or are not [N], rewards not floating, labels not integer, `valid` not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Han et al., 2025, arXiv 2508.04138; 'soft with zero' in the authors' code, whose run script asks for it by
    a name ('soft-with-zero') that the loss does not know.
    """
    weights = copo_blend_weights(rewards, answers, group_ids, valid, k=k, b=b, axis_name=axis_name)
    return keep(weights, grouping.checked_rewards(rewards, group_ids, valid) != 0)


def _clipped(ratios: Array, advantages: Array, eps_low: float, eps_high: float, dual_clip: float) -> Array:
    """-min(r A, clip(r) A), and at most -c A where A < 0."""
    surrogate = jnp.minimum(ratios * advantages, jnp.clip(ratios, 1 - eps_low, 1 + eps_high) * advantages)
    return -jnp.where(advantages < 0, jnp.maximum(surrogate, dual_clip * advantages), surrogate)


def copo_surrogate(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    advantages: Array,
    global_advantages: Array,
    blend_weights: Array,
    mask: Array,
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    dual_clip: float = 3.0,
) -> Array:
    """w * clipped surrogate of the advantage in the group + (1 - w) * that of the advantage between groups.

    Two surrogates, not one of a blended advantage: each is clipped by the sign of its own.

    Args:
      policy_token_logps: log-prob of each token under the policy. Trained.
      behaviour_token_logps: the same when it was sampled. Held fixed.
      advantages: within the group, of GRPO. Held fixed.
      global_advantages: of `copo_global_advantages`. Held fixed.
      blend_weights: w, of one of the three blends. Held fixed.
      mask: bool, True on completion tokens; nothing is looked at elsewhere, and the value is 0 there.
      eps_low, eps_high: the ratio is clipped to [1 - eps_low, 1 + eps_high]; in [0, 1] and [0, inf).
      dual_clip: the loss of a negative advantage is at most dual_clip times its size, in (0, inf), usefully above 1.

    Shapes: log-probs and mask `[..., T]`, usually `[N, T]`; the others `[...]`; result float32 `[..., T]`; reduced by
    `sequence_mean`. The log-ratio is cut at +-20.

    Raises:
      AssertionError: shapes do not agree, arrays not floating, mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Han et al., 2025, arXiv 2508.04138, and the authors' `dp_actor.py` (its dual clip).
    """
    policy, behaviour = checks.floats(
        policy_token_logps=policy_token_logps, behaviour_token_logps=behaviour_token_logps
    )
    advantages, global_advantages, blend_weights = map(
        _stop,
        checks.floats(advantages=advantages, global_advantages=global_advantages, blend_weights=blend_weights),
    )
    checks.leading_shape(advantages=advantages, policy_token_logps=policy)
    checks.number("eps_low", eps_low, 0.0, 1.0, closed="both")
    checks.number("eps_high", eps_high, 0.0, closed="left")
    checks.number("dual_clip", dual_clip, 0.0)
    log_ratios = keep(policy, mask) - _stop(keep(behaviour, mask))
    ratios = jnp.exp(jnp.clip(log_ratios, -_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO))
    local, between = (
        _clipped(ratios, a[..., None], eps_low, eps_high, dual_clip) for a in (advantages, global_advantages)
    )
    weights = blend_weights[..., None]
    return keep(weights * local + (1 - weights) * between, mask)
