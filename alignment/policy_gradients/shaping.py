"""From the scores of completions to the rewards that are trained on: a score per token, penalties, limits, filters.

Nothing here is differentiated: rewards are data. A shaped reward is `rewards` [N] again, so that shapings chain, or
`token_rewards` [N, T], which the estimators with a return per token read.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep

Array = jax.Array
_stop = jax.lax.stop_gradient


def _on_last_token(rewards: Array, mask: Array) -> Array:
    """`[..., T]`: the reward at the last True of each row's mask, 0 elsewhere."""
    left = jnp.cumsum(mask[..., ::-1], axis=-1)[..., ::-1]  # how many tokens from here on, this one included
    return jnp.where(mask & (left == 1), rewards[..., None], 0.0)


def terminal_rewards(rewards: Array, mask: Array) -> Array:
    """r_t = score on the last completion token, 0 on the others: a completion's score as token rewards.

    The last token that counts, wherever padding or tokens of a tool follow it. A row without a token loses its score.

    Args:
      rewards: score of each completion. Held fixed.
      mask: bool, True on completion tokens.

    Shapes: rewards `[...]`, usually `[N]`; mask `[..., T]`; result float32 `[..., T]`, in the units of the rewards.

    Raises:
      AssertionError: shapes do not agree, rewards not floating, mask not bool.

    Paper: Ziegler et al., 2019, arXiv 1909.08593.
    """
    (rewards,) = checks.floats(rewards=rewards)
    checks.boolean(mask=mask)
    checks.leading_shape(rewards=rewards, mask=mask)
    return _stop(_on_last_token(rewards, mask))


def _kl_shaped(rewards, behaviour_token_logps, reference_token_logps, mask, beta) -> tuple[Array, Array]:
    """Token rewards, and the sum of k1 of each sequence."""
    (rewards,) = checks.floats(rewards=rewards)
    behaviour, reference = checks.floats(
        behaviour_token_logps=behaviour_token_logps, reference_token_logps=reference_token_logps
    )
    checks.leading_shape(rewards=rewards, behaviour_token_logps=behaviour)
    kls = keep(behaviour, mask) - keep(reference, mask)
    return _stop(_on_last_token(rewards, mask) - beta * kls), _stop(jnp.sum(kls, axis=-1))


def span_shaped_rewards(
    span_labels: Array, behaviour_token_logps: Array, reference_token_logps: Array, mask: Array, *, beta: float = 0.2
) -> Array:
    """r_t = delta_t - beta (log pi_old - log ref): 1 on a token that a critique praises, -1 on one that it blames.

    The critique's words become the rewards of just the tokens that they speak of; the completion has no score of its
    own. Longer spans weigh more. Generalised advantages and PPO follow.

    Args:
      span_labels: 1, -1, or 0 for each token. Held fixed, as is everything here.
      behaviour_token_logps: log-prob of each completion token under the policy that sampled it.
      reference_token_logps: the same under the reference.
      mask: bool, True on completion tokens.
      beta: in [0, inf); in the authors' script adaptive, from 0.2.

    Shapes: all `[..., T]`; result float32 `[..., T]`, in the units of the labels, 0 behind the mask.

    Raises:
      AssertionError: shapes differ, labels or log-probs not floating, mask not bool.
      ValueError: static beta out of range.

    Paper: Wang et al., 2025 (Text2Grad), arXiv 2505.22338. The released configuration takes the exact divergence over
    the vocabulary in the place of log pi_old - log ref, of which it is the mean.
    """
    labels, behaviour, reference = checks.floats(
        span_labels=span_labels,
        behaviour_token_logps=behaviour_token_logps,
        reference_token_logps=reference_token_logps,
    )
    checks.number("beta", beta, 0.0, closed="left")
    return _stop(keep(labels, mask) - beta * (keep(behaviour, mask) - keep(reference, mask)))


def return_improvements(returns: Array, next_returns: Array) -> Array:
    """r_i = G_{i+1} - G_i: a reflection is worth what the next episode gains on the one that it looks back on.

    Along the episodes of a task the rewards add up to G_n - G_0, and a constant added to all returns changes nothing. A
    task that is solved already gives none above 0: leave it out.

    Args:
      returns: of the episode that the reflection was written after. Held fixed, as is everything here.
      next_returns: of the episode that read it.

    Shapes: both `[...]`; result float32 `[...]`, in the units of the returns.

    Raises:
      AssertionError: shapes differ, or returns not floating.

    Paper: Yao et al., 2023 (Retroformer), arXiv 2308.02151.
    """
    before, after = checks.floats(returns=returns, next_returns=next_returns)
    return _stop(after - before)


def kl_shaped_rewards(
    rewards: Array, behaviour_token_logps: Array, reference_token_logps: Array, mask: Array, *, beta: float = 0.05
) -> Array:
    """r_t = -beta (log pi_old - log ref) at each completion token, and the score on the last one besides.

    The sum over a completion is R - beta log(pi_old(y) / ref(y)). The log-probs are those of the policy that sampled,
    taken once, so the penalty is a reward like any other; its policy gradient is that of KL(pi || ref). To be had with
    or instead of a KL term in the loss, seldom both.

    Args:
      rewards: score of each completion. Held fixed, as is everything here.
      behaviour_token_logps: log-prob of each completion token under the policy that sampled it.
      reference_token_logps: the same under the reference.
      mask: bool, True on completion tokens; a row without one loses its score.
      beta: in [0, inf).

    Shapes: rewards `[...]`, usually `[N]`; the others `[..., T]`; result float32 `[..., T]`, in the units of the
    rewards, 0 behind the mask.

    Raises:
      AssertionError: shapes do not agree, rewards or log-probs not floating, mask not bool.
      ValueError: static beta out of range.

    Paper: Ziegler et al., 2019, arXiv 1909.08593, with beta adapted (`adaptive_kl_rewards`); 0.05 is Tulu 3's.
    """
    checks.number("beta", beta, 0.0, closed="left")
    return _kl_shaped(rewards, behaviour_token_logps, reference_token_logps, mask, beta)[0]


def kl_penalized_rewards(
    rewards: Array, behaviour_logps: Array, reference_logps: Array, *, beta: float = 0.05
) -> Array:
    """R = r - beta (log pi_old(y) - log ref(y)): the score of a completion that is one action, its KL penalty within.

    The sum over the tokens of `kl_shaped_rewards`. What a leave-one-out baseline is taken of.

    Args:
      rewards: score of each completion. Held fixed, as is everything here.
      behaviour_logps: summed log-prob of each completion under the policy that sampled it.
      reference_logps: the same under the reference.
      beta: in [0, inf).

    Shapes: all `[...]`, usually `[N]`; result float32 `[...]`, in the units of the rewards.

    Raises:
      AssertionError: shapes differ, rewards or log-probs not floating.
      ValueError: static beta out of range.

    Paper: Ahmadian et al., 2024, arXiv 2402.14740; 0.05 is TRL's default.
    """
    checks.number("beta", beta, 0.0, closed="left")
    rewards, behaviour, reference = checks.floats(
        rewards=rewards, behaviour_logps=behaviour_logps, reference_logps=reference_logps
    )
    return _stop(rewards - beta * (behaviour - reference))


def clip_rewards(rewards: Array, valid: Array, *, limit: float = 10.0) -> Array:
    """clip(r, -limit, limit), after any scaling; 0 for rows that only pad the batch.

    Args:
      rewards: score of each completion. Held fixed.
      valid: bool, False for rows that only pad the batch.
      limit: in (0, inf].

    Shapes: both `[...]`, usually `[N]`; result float32 `[...]`, in the units of the rewards.

    Raises:
      AssertionError: shapes differ, rewards not floating, valid not bool.
      ValueError: static limit out of range.

    Paper: Zheng et al., 2023, arXiv 2307.04964; 10 is the default of the authors' code, whose scripts switch it off.
    """
    checks.number("limit", limit, 0.0, math.inf, closed="right")
    (rewards,) = checks.floats(rewards=rewards)
    return _stop(jnp.clip(keep(rewards, valid), -limit, limit))


def overlong_shaping(rewards: Array, lengths: Array, *, max_length: int = 20480, cache_length: int = 4096) -> Array:
    """r + clip((max_length - cache_length - |y|) / cache_length, -1, 0): completions near the budget lose up to 1.

    Nothing up to max_length - cache_length tokens, then linear, -1 at max_length and beyond. A truncated completion is
    scored for its length rather than for the answer it had no room for.

    Args:
      rewards: score of each completion. Held fixed.
      lengths: its number of tokens, integer.
      max_length: the generation budget, at least 1.
      cache_length: over how many tokens the penalty grows, from 1 to max_length.

    Shapes: both `[...]`, usually `[N]`; result float32 `[...]`, in the units of the rewards.

    Raises:
      AssertionError: shapes differ, rewards not floating, lengths not integer.
      ValueError: max_length or cache_length out of range.

    Paper: Yu et al., 2025, arXiv 2503.14476.
    """
    checks.positive_integer("max_length", max_length)
    checks.positive_integer("cache_length", cache_length)
    checks.number("cache_length", cache_length, 1, max_length, closed="both")
    (rewards,) = checks.floats(rewards=rewards)
    checks.integers(lengths=lengths)
    checks.same_shape(rewards=rewards, lengths=lengths)
    free = max_length - cache_length
    return _stop(rewards + jnp.clip((free - lengths).astype(rewards.dtype) / cache_length, -1.0, 0.0))


def dynamic_sampling_filter(correct: Array, group_ids: Array, valid: Array, *, axis_name: Any = None) -> Array:
    """Which rows to train on: those of groups with at least one correct and one wrong completion.

    The others have no advantage under a group baseline and only thin the batch out. The result is the batch's new
    `valid`; to draw further prompts until enough rows are left is for the loop. Ask for correctness, not for a shaped
    reward: a length penalty makes every group look mixed.

    Args:
      correct: bool, whether the completion answers its prompt.
      group_ids: integer; completions of one prompt share it.
      valid: bool, False for rows that only pad the batch; they stay False and count in no group.
      axis_name: mapped axis (or axes) over which the batch is split; groups may span it.

    Shapes: all `[N]`; result bool `[N]`.

    Raises:
      AssertionError: shapes differ, correct or valid not bool, group_ids not integer.

    Paper: Yu et al., 2025, arXiv 2503.14476.
    """
    checks.boolean(correct=correct, valid=valid)
    checks.integers(group_ids=group_ids)
    checks.same_shape(correct=correct, group_ids=group_ids, valid=valid)
    all_correct, all_ids, all_valid = correct, group_ids, valid
    if axis_name is not None:
        all_correct, all_ids, all_valid = (
            jax.lax.all_gather(x, axis_name, tiled=True) for x in (correct, group_ids, valid)
        )
    same = (group_ids[:, None] == all_ids[None, :]) & all_valid[None, :]
    return valid & jnp.any(same & all_correct, axis=-1) & jnp.any(same & ~all_correct, axis=-1)
