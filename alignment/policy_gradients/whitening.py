"""Values per token brought to a common scale: whitened with the moments of all tokens of the batch, or clipped."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep

Array = jax.Array
_stop = jax.lax.stop_gradient


def _sum(values: Array, axis_name: Any) -> Array:
    total = jnp.sum(values)
    return total if axis_name is None else jax.lax.psum(total, axis_name)


def _moments(values: Array, mask: Array, valid: Array, axis_name: Any) -> tuple[Array, Array, Array, Array]:
    """The values that count, which they are, and their mean and unbiased variance over the whole batch."""
    checks.boolean(mask=mask, valid=valid)
    checks.leading_shape(valid=valid, mask=mask)
    counts = mask & valid[..., None]
    values = keep(_stop(values), mask)
    count = _sum(counts.astype(values.dtype), axis_name)
    mean = _sum(keep(values, counts), axis_name) / jnp.maximum(count, 1)
    squares = _sum(keep(jnp.square(values - mean), counts), axis_name)
    return values, counts, mean, squares / jnp.maximum(count - 1, 1)


def masked_whiten(
    token_advantages: Array, mask: Array, valid: Array, *, eps: float = 1e-8, axis_name: Any = None
) -> Array:
    """(x - mean) / sqrt(variance + eps) over all tokens of the batch, the variance unbiased.

    A long completion has more tokens and so more of a say in the moments. A single token gets 0. Never per
    micro-batch: the moments would be other ones.

    Args:
      token_advantages: what is whitened. Held fixed, as is everything here.
      mask: bool, True on completion tokens.
      valid: bool, False for rows that do not count.
      eps: in (0, inf).
      axis_name: mapped axis (or axes) over which the batch is split; the moments are those of the whole batch.

    Shapes: token_advantages and mask `[N, T]`; valid `[N]`; result float32 `[N, T]`, 0 where nothing counts.

    Raises:
      AssertionError: shapes do not agree, token_advantages not floating, mask or valid not bool.
      ValueError: static eps out of range.

    Paper: Ziegler et al., 2019, arXiv 1909.08593; the unbiased variance and 1e-8 as in verl and Tunix.
    """
    checks.number("eps", eps, 0.0)
    (values,) = checks.floats(token_advantages=token_advantages)
    values, counts, mean, variance = _moments(values, mask, valid, axis_name)
    return keep((values - mean) * jax.lax.rsqrt(variance + eps), counts)


def masked_whiten_keep_mean(
    token_rewards: Array, mask: Array, valid: Array, *, eps: float = 1e-8, axis_name: Any = None
) -> Array:
    """(x - mean) / sqrt(variance + eps) + mean: `masked_whiten` that leaves the mean where it was, for rewards.

    The mean of a reward says whether to end early or late, and subtracting it would change what is optimal.

    Args:
      token_rewards: what is scaled. Held fixed, as is everything here.
      mask: bool, True on completion tokens.
      valid: bool, False for rows that do not count.
      eps: in (0, inf).
      axis_name: mapped axis (or axes) over which the batch is split; the moments are those of the whole batch.

    Shapes: token_rewards and mask `[N, T]`; valid `[N]`; result float32 `[N, T]`, 0 where nothing counts.

    Raises:
      AssertionError: shapes do not agree, token_rewards not floating, mask or valid not bool.
      ValueError: static eps out of range.

    Paper: Ziegler et al., 2019, arXiv 1909.08593; Huang et al., 2024, arXiv 2403.17031 (`shift_mean=False`).
    """
    checks.number("eps", eps, 0.0)
    (values,) = checks.floats(token_rewards=token_rewards)
    values, counts, mean, variance = _moments(values, mask, valid, axis_name)
    return keep((values - mean) * jax.lax.rsqrt(variance + eps) + mean, counts)


def clip_advantages(token_advantages: Array, mask: Array, *, limit: float = 0.5) -> Array:
    """clip(A, -limit, limit) per token, after any whitening.

    Args:
      token_advantages: advantage of each token. Held fixed.
      mask: bool, True on completion tokens.
      limit: in (0, inf].

    Shapes: both `[..., T]`; result float32 `[..., T]`, 0 behind the mask.

    Raises:
      AssertionError: shapes differ, token_advantages not floating, mask not bool.
      ValueError: static limit out of range.

    Paper: Zheng et al., 2023, arXiv 2307.04964.
    """
    checks.number("limit", limit, 0.0, math.inf, closed="right")
    (advantages,) = checks.floats(token_advantages=token_advantages)
    return jnp.clip(keep(_stop(advantages), mask), -limit, limit)


def balance_groups(
    token_advantages: Array, group_ids: Array, mask: Array, valid: Array, *, axis_name: Any = None
) -> Array:
    """A_t * (tokens of the batch) / (groups * tokens of its group): makes `token_mean` a mean over prompts.

    Every surrogate here is proportional to |A| and looks only at the sign of A to clip. With these weights its token
    mean over the batch is the mean over prompts of the token mean within each prompt's group, so that a prompt with
    long answers weighs no more than another.

    Args:
      token_advantages: advantage of each token. Held fixed, as is everything here.
      group_ids: integer; completions of one prompt share it.
      mask: bool, True on completion tokens; a group without one is none.
      valid: bool, False for rows that do not count.
      axis_name: mapped axis (or axes) over which the batch is split; groups may span it.

    Shapes: token_advantages and mask `[N, T]`; group_ids and valid `[N]`; result float32 `[N, T]`, in the units of the
    advantages, 0 where nothing counts.

    Raises:
      AssertionError: shapes do not agree, advantages not floating, group_ids not integer, mask or valid not bool.

    Paper: Yu et al., 2025, arXiv 2503.14476: the loss as printed; their code, as all others, takes the batch's token
    mean without such weights.
    """
    (advantages,) = checks.floats(token_advantages=token_advantages)
    checks.boolean(mask=mask, valid=valid)
    checks.integers(group_ids=group_ids)
    checks.same_shape(group_ids=group_ids, valid=valid)
    checks.leading_shape(valid=valid, mask=mask)
    counts = mask & valid[:, None]
    advantages = keep(keep(_stop(advantages), mask), counts)
    tokens = jnp.sum(counts, axis=-1)
    all_ids, all_tokens = group_ids, tokens
    if axis_name is not None:
        all_ids, all_tokens = (jax.lax.all_gather(x, axis_name, tiled=True) for x in (group_ids, tokens))
    same = group_ids[:, None] == all_ids[None, :]
    of_group = jnp.maximum(jnp.sum(jnp.where(same, all_tokens[None, :], 0), axis=-1), 1).astype(advantages.dtype)
    total = _sum(tokens.astype(advantages.dtype), axis_name)
    groups = _sum(tokens / of_group, axis_name)  # each group's shares add up to 1
    return advantages * (total / (jnp.maximum(groups, 1) * of_group))[:, None]
