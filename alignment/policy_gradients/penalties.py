"""Terms of a loss that hold the policy where it is: estimates of the KL to the reference, and of its entropy.

With d = log pi - log ref at a sampled token, three estimates of KL(pi || ref) from samples of pi, per token:

    k1 = d                  unbiased, noisy; as a loss its expected gradient is 0
    k2 = d^2 / 2            biased, quiet; as a loss its expected gradient is that of KL(pi || ref)
    k3 = exp(-d) - 1 + d    unbiased, quiet, never negative; as a loss its expected gradient is that of KL(ref || pi)

So the one to train on is not the one to report, and `kl_k3_plus` has the value of k3 with the gradient of k2. All of
this holds for tokens drawn from the policy that is trained; on stale samples each term needs its importance ratio. A
penalty inside the reward (`kl_shaped_rewards`) uses k1. Values come back per token; the reduction is the config's.
"""

from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep

Array = jax.Array
_stop = jax.lax.stop_gradient


def _log_ratios(policy_token_logps: Array, reference_token_logps: Array, mask: Array) -> Array:
    """d at the tokens that count, 0 elsewhere."""
    policy, reference = checks.floats(
        policy_token_logps=policy_token_logps, reference_token_logps=reference_token_logps
    )
    return keep(policy, mask) - keep(_stop(reference), mask)


def kl_k1(policy_token_logps: Array, reference_token_logps: Array, mask: Array) -> Array:
    """First estimate of KL(pi || ref): k1 = log pi - log ref.

    Unbiased, may be negative. Meant to be looked at, or to stand in a reward: as a loss on the policy's own samples its
    expected gradient is 0, because the mean of grad log pi is.

    Args:
      policy_token_logps: log-prob of each completion token under the policy. Trained.
      reference_token_logps: the same under the reference. Held fixed.
      mask: bool, True on completion tokens.

    Shapes: all `[..., T]`; result float32 `[..., T]`, in nats, 0 behind the mask.

    Raises:
      AssertionError: shapes differ, log-probs not floating, mask not bool.

    Paper: J. Schulman, Approximating KL Divergence, 2020 (a note; standard practice).
    """
    return _log_ratios(policy_token_logps, reference_token_logps, mask)


def kl_k2(policy_token_logps: Array, reference_token_logps: Array, mask: Array) -> Array:
    """Second estimate of KL(pi || ref): k2 = (log pi - log ref)^2 / 2.

    Biased as an estimate, by order KL^(3/2), but its gradient d * grad log pi is, in expectation over the policy's own
    samples, exactly the gradient of KL(pi || ref): the one to have as a term of the loss.

    Args:
      policy_token_logps: log-prob of each completion token under the policy. Trained.
      reference_token_logps: the same under the reference. Held fixed.
      mask: bool, True on completion tokens.

    Shapes: all `[..., T]`; result float32 `[..., T]`, in squared nats, >= 0, 0 behind the mask.

    Raises:
      AssertionError: shapes differ, log-probs not floating, mask not bool.

    Paper: J. Schulman, Approximating KL Divergence, 2020 (a note; standard practice).
    """
    return jnp.square(_log_ratios(policy_token_logps, reference_token_logps, mask)) / 2


def _check_clips(log_ratio_clip, value_clip) -> None:
    checks.number("log_ratio_clip", log_ratio_clip, 0.0, 80.0, closed="right")
    if value_clip is not None:
        checks.number("value_clip", value_clip, 0.0)


def _k3(d: Array, log_ratio_clip: float, value_clip: float | None) -> Array:
    d = jnp.clip(d, -log_ratio_clip, log_ratio_clip)
    values = jnp.expm1(-d) + d  # expm1 keeps d^2 / 2, which exp(-d) - 1 rounds away for small d
    return values if value_clip is None else jnp.minimum(values, value_clip)


def kl_k3(
    policy_token_logps: Array,
    reference_token_logps: Array,
    mask: Array,
    *,
    log_ratio_clip: float = 20.0,
    value_clip: float | None = None,
) -> Array:
    """Third estimate of KL(pi || ref): k3 = exp(-d) - 1 + d, with d = log pi - log ref.

    Unbiased and never negative. As a loss (GRPO's) its gradient (1 - ref / pi) grad log pi is, in expectation over the
    policy's own samples, that of the forward KL(ref || pi), not of the KL it estimates; see `kl_k2`, `kl_k3_plus`.
    Outside the clips there is no gradient: a token that the policy has all but dropped is not pulled back.

    Args:
      policy_token_logps: log-prob of each completion token under the policy. Trained.
      reference_token_logps: the same under the reference. Held fixed.
      mask: bool, True on completion tokens.
      log_ratio_clip: d is clipped to +- this before the exponential, in (0, 80].
      value_clip: None, or what k3 is clipped to, in (0, inf).

    Shapes: all `[..., T]`; result float32 `[..., T]`, in nats, >= 0 up to rounding, 0 behind the mask.

    Raises:
      AssertionError: shapes differ, log-probs not floating, mask not bool.
      ValueError: a static clip out of range.

    Paper: J. Schulman, Approximating KL Divergence, 2020; as a loss Shao et al., 2024, arXiv 2402.03300, without clips.
    verl clips d at 20, as here, and then k3 at 10 (`value_clip=10`); TRL clips neither and overflows.
    """
    _check_clips(log_ratio_clip, value_clip)
    return _k3(_log_ratios(policy_token_logps, reference_token_logps, mask), log_ratio_clip, value_clip)


def kl_k3_plus(
    policy_token_logps: Array,
    reference_token_logps: Array,
    mask: Array,
    *,
    log_ratio_clip: float = 20.0,
    value_clip: float | None = None,
) -> Array:
    """The value of k3 with the gradient of k2: k2 - sg[k2] + sg[k3].

    What is logged is unbiased and never negative, and what is trained is, in expectation, KL(pi || ref). The clips
    bound the value only.

    Args:
      policy_token_logps: log-prob of each completion token under the policy. Trained.
      reference_token_logps: the same under the reference. Held fixed.
      mask: bool, True on completion tokens.
      log_ratio_clip: d is clipped to +- this in k3, in (0, 80].
      value_clip: None, or what k3 is clipped to, in (0, inf).

    Shapes: all `[..., T]`; result float32 `[..., T]`, in nats, >= 0 up to rounding, 0 behind the mask.

    Raises:
      AssertionError: shapes differ, log-probs not floating, mask not bool.
      ValueError: a static clip out of range.

    Paper: standard practice (verl's `k3+`); the estimates are J. Schulman's, Approximating KL Divergence, 2020.
    """
    _check_clips(log_ratio_clip, value_clip)
    d = _log_ratios(policy_token_logps, reference_token_logps, mask)
    # Not k2 - sg[k2] + sg[k3] as it stands: far from the reference k2 is so large that k3 drowns in its rounding.
    without_value = _stop(d) * (d - _stop(d))
    return without_value + _stop(_k3(d, log_ratio_clip, value_clip))


def kl_full_vocabulary(policy_token_kls: Array, mask: Array) -> Array:
    """KL(pi || ref) at each position, summed over the whole vocabulary: no sampling noise, and its own gradient.

    Exact for each position's next token. The gradient does not see that the policy also changes which prefixes occur.

    Args:
      policy_token_kls: KL(policy || reference) of the next-token distributions. Trained.
      mask: bool, True on completion tokens.

    Shapes: both `[..., T]`; result float32 `[..., T]`, in nats, 0 behind the mask.

    Raises:
      AssertionError: shapes differ, KLs not floating, mask not bool.

    Paper: standard practice.
    """
    (kls,) = checks.floats(policy_token_kls=policy_token_kls)
    return keep(kls, mask)


def entropy_bonus(policy_token_entropies: Array, mask: Array) -> Array:
    """-H: a term whose minimum is the uniform policy; its weight in the objective is PPO's entropy coefficient.

    Args:
      policy_token_entropies: entropy of the next-token distribution at each position. Trained.
      mask: bool, True on completion tokens.

    Shapes: both `[..., T]`; result float32 `[..., T]`, in nats, 0 behind the mask.

    Raises:
      AssertionError: shapes differ, entropies not floating, mask not bool.

    Paper: Schulman et al., 2017, arXiv 1707.06347.
    """
    (entropies,) = checks.floats(policy_token_entropies=policy_token_entropies)
    return -keep(entropies, mask)


def entropy_target(
    policy_token_entropies: Array, mask: Array, valid: Array, *, target: float = 35.0, axis_name: Any = None
) -> Array:
    """|mean H - target| as a summand per token, sign(mean H - target) * (H_t - target), to be reduced by `token_mean`.

    The mean is over all tokens of the batch, so the sign is that of the whole batch, and the token mean of the summands
    is exactly the absolute difference. Entropy is pushed up below the target and down above it.

    Args:
      policy_token_entropies: entropy of the next-token distribution at each position. Trained.
      mask: bool, True on completion tokens.
      valid: bool, False for rows that only pad the batch.
      target: entropy wanted, in nats per token, in [0, inf).
      axis_name: mapped axis (or axes) over which the batch is split; the mean is that of the whole batch.

    Shapes: entropies and mask `[N, T]`; valid `[N]`; result float32 `[N, T]`, in nats, 0 behind the mask.

    Raises:
      AssertionError: shapes do not agree, entropies not floating, mask or valid not bool.
      ValueError: static target out of range.

    Paper: Zheng et al., 2023, arXiv 2307.04964. The authors' code has it off by default, with the target 35 kept here;
    that is more than log V of any vocabulary, so that with it the term is an entropy bonus. Set a target in reach.
    """
    checks.number("target", target, 0.0, closed="left")
    (entropies,) = checks.floats(policy_token_entropies=policy_token_entropies)
    checks.boolean(mask=mask, valid=valid)
    checks.same_shape(policy_token_entropies=entropies, mask=mask)
    checks.leading_shape(valid=valid, mask=mask)
    counts = mask & valid[..., None]
    away = keep(keep(entropies, counts) - target, counts)
    total = jnp.sum(_stop(away))
    if axis_name is not None:
        total = jax.lax.psum(total, axis_name)
    return jnp.sign(total) * away
