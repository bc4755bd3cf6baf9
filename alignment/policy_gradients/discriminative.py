"""DisCO: correct completions of a prompt against its wrong ones, scored by the policy, within a trust region.

    J = mean over prompts of [ mean of s over the correct - D of s over the wrong ],   loss = -J + penalty

with a score s of a completion and D either the mean (`disco_b_*`) or, so that the wrong completions that score highest
count most, tau log mean exp(s / tau). GRPO with rewards 0 and 1 is the first kind with a clipped ratio as score, and a
prompt weighted by sqrt(p (1 - p)), p its success rate; here every prompt with both kinds weighs the same. A prompt
without a correct or without a wrong completion trains nothing, but is counted in the mean.

Values are per completion, so scaled that `example_mean` over the valid rows is -J. A completion's value depends on its
whole group: all completions of a prompt have to be in one minibatch (over devices: `axis_name`).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep
from alignment.policy_gradients import grouping

Array = jax.Array
_stop = jax.lax.stop_gradient
_LARGEST_LOG_RATIO = 20.0


def _check_rows(token_logps: Array, mask: Array, valid: Array) -> None:
    checks.boolean(mask=mask, valid=valid)
    checks.leading_shape(valid=valid, policy_token_logps=token_logps)
    if token_logps.ndim != 2:
        raise AssertionError(f"token log-probs must have shape ('N', 'T'), got {token_logps.shape}")
    checks.same_shape(policy_token_logps=token_logps, mask=mask)


def _mean_over_tokens(values: Array, counted: Array) -> Array:
    return jnp.sum(keep(values, counted), axis=-1) / jnp.maximum(jnp.sum(counted, axis=-1), 1)


def _log_likelihood_scores(policy_token_logps: Array, mask: Array, valid: Array) -> Array:
    (logps,) = checks.floats(policy_token_logps=policy_token_logps)
    _check_rows(logps, mask, valid)
    return _mean_over_tokens(logps, mask & valid[:, None])


def _likelihood_ratio_scores(
    policy_token_logps: Array, behaviour_token_logps: Array, mask: Array, valid: Array
) -> Array:
    policy, behaviour = checks.floats(
        policy_token_logps=policy_token_logps, behaviour_token_logps=behaviour_token_logps
    )
    _check_rows(policy, mask, valid)
    counted = mask & valid[:, None]
    log_ratios = keep(policy, counted) - _stop(keep(behaviour, counted))
    return _mean_over_tokens(jnp.exp(jnp.clip(log_ratios, -_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO)), counted)


def _mean(scores: Array, members: Array) -> Array:
    return grouping.total(scores, members) / jnp.maximum(jnp.sum(members, axis=-1), 1)


def _soft_maximum(tau: float) -> Callable:
    def soft_maximum(scores: Array, members: Array) -> Array:
        """tau log mean exp(s / tau) over the members; 0 where there is none.

        Around the largest, by expm1 and log1p: for a large tau the mean of exp(s / tau) is 1 but for its last digits.
        """
        highest = jnp.max(jnp.where(members, _stop(scores)[None, :], -jnp.inf), axis=-1)
        highest = jnp.where(jnp.any(members, axis=-1), highest, 0.0)
        below = jnp.where(members, scores[None, :] - highest[:, None], 0.0)
        mean = jnp.sum(jnp.expm1(below / tau), axis=-1) / jnp.maximum(jnp.sum(members, axis=-1), 1)
        return highest + tau * jnp.log1p(mean)

    return soft_maximum


def _contrast(scores: Array, correct: Array, group_ids: Array, valid: Array, of_wrong: Callable, axis_name) -> Array:
    """Shares -J out to the completions: each correct one carries its part of the mean, each wrong one 1/|N| of D."""
    checks.boolean(correct=correct)
    checks.integers(group_ids=group_ids)
    checks.same_shape(valid=valid, correct=correct, group_ids=group_ids)
    same = grouping.same_group(group_ids, valid, axis_name)
    right = same & grouping.whole(correct, axis_name)[None, :]
    wrong = same & ~right
    both = valid & jnp.any(right, axis=-1) & jnp.any(wrong, axis=-1)
    rows = jnp.sum(grouping.whole(valid, axis_name))
    prompts = jnp.sum(grouping.whole(grouping.first_of_group(same, valid, axis_name), axis_name))
    scale = rows / jnp.maximum(prompts, 1)
    against = of_wrong(grouping.whole(scores, axis_name), wrong)
    mine = jnp.where(
        correct, -scores / jnp.maximum(jnp.sum(right, axis=-1), 1), against / jnp.maximum(jnp.sum(wrong, axis=-1), 1)
    )
    return keep(scale * mine, both)


def disco_b_log_likelihood(
    policy_token_logps: Array, correct: Array, group_ids: Array, mask: Array, valid: Array, *, axis_name: Any = None
) -> Array:
    """DisCO-b with the log-likelihood: -(mean of s over the correct - mean of s over the wrong), averaged over prompts.

        s_i = (1 / |y_i|) sum_t log pi(y_i,t)

    Args:
      policy_token_logps: log-prob of each token under the policy. Trained.
      correct: bool, whether the completion is right.
      group_ids: integer, shared by the completions of one prompt.
      mask: bool, True on completion tokens; nothing is looked at elsewhere.
      valid: bool, False for rows that are not there; their value is 0.
      axis_name: mapped axis (or axes) over which the batch is split; groups may lie on several devices.

    Shapes: log-probs and mask `[N, T]`, the others `[N]`; result float32 `[N]`; its mean over valid rows is -J.

    Raises:
      AssertionError: shapes do not agree, log-probs not floating, masks not bool, ids not integer.

    Paper: Li et al., 2025, arXiv 2505.12366.
    """
    scores = _log_likelihood_scores(policy_token_logps, mask, valid)
    return _contrast(scores, correct, group_ids, valid, _mean, axis_name)


def disco_b_likelihood_ratio(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    correct: Array,
    group_ids: Array,
    mask: Array,
    valid: Array,
    *,
    axis_name: Any = None,
) -> Array:
    """DisCO-b with the likelihood ratio: -(mean of s over the correct - mean of s over the wrong), over prompts.

        s_i = (1 / |y_i|) sum_t pi(y_i,t) / pi_old(y_i,t)

    On the samples of the policy itself J is 0 and its gradient that of `disco_b_log_likelihood`.

    Args:
      policy_token_logps: log-prob of each token under the policy. Trained.
      behaviour_token_logps: the same when it was sampled. Held fixed.
      correct, group_ids, mask, valid, axis_name: as in `disco_b_log_likelihood`.

    Shapes: log-probs and mask `[N, T]`, the others `[N]`; result float32 `[N]`; its mean over valid rows is -J. The
    log-ratio is cut at +-20.

    Raises:
      AssertionError: shapes do not agree, log-probs not floating, masks not bool, ids not integer.

    Paper: Li et al., 2025, arXiv 2505.12366.
    """
    scores = _likelihood_ratio_scores(policy_token_logps, behaviour_token_logps, mask, valid)
    return _contrast(scores, correct, group_ids, valid, _mean, axis_name)


def disco_log_likelihood(
    policy_token_logps: Array,
    correct: Array,
    group_ids: Array,
    mask: Array,
    valid: Array,
    *,
    tau: float = 10.0,
    axis_name: Any = None,
) -> Array:
    """DisCO with the log-likelihood: -(mean of s over the correct - tau log mean exp(s / tau) over the wrong).

    The gradient weighs the wrong completions by softmax(s / tau): tau to infinity is `disco_b_log_likelihood`, tau to 0
    looks at the highest-scoring wrong one alone.

    Args:
      policy_token_logps: log-prob of each token under the policy. Trained.
      correct, group_ids, mask, valid, axis_name: as in `disco_b_log_likelihood`.
      tau: in (0, inf); the paper reports 10 for this score.

    Shapes: log-probs and mask `[N, T]`, the others `[N]`; result float32 `[N]`; its mean over valid rows is -J.

    Raises:
      AssertionError: shapes do not agree, log-probs not floating, masks not bool, ids not integer.
      ValueError: static tau out of range.

    Paper: Li et al., 2025, arXiv 2505.12366. The authors' code has the same gradient over tau and a value without
    meaning (a sum divided by itself, held fixed); here the value is the objective's.
    """
    checks.number("tau", tau, 0.0)
    scores = _log_likelihood_scores(policy_token_logps, mask, valid)
    return _contrast(scores, correct, group_ids, valid, _soft_maximum(tau), axis_name)


def disco_likelihood_ratio(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    correct: Array,
    group_ids: Array,
    mask: Array,
    valid: Array,
    *,
    tau: float = 1.0,
    axis_name: Any = None,
) -> Array:
    """DisCO with the likelihood ratio: -(mean of s over the correct - tau log mean exp(s / tau) over the wrong).

    Args:
      policy_token_logps: log-prob of each token under the policy. Trained.
      behaviour_token_logps: the same when it was sampled. Held fixed.
      correct, group_ids, mask, valid, axis_name: as in `disco_b_log_likelihood`.
      tau: in (0, inf).

    Shapes: log-probs and mask `[N, T]`, the others `[N]`; result float32 `[N]`; its mean over valid rows is -J. The
    log-ratio is cut at +-20.

    Raises:
      AssertionError: shapes do not agree, log-probs not floating, masks not bool, ids not integer.
      ValueError: static tau out of range.

    Paper: Li et al., 2025, arXiv 2505.12366. The authors' branch for this variant calls the function of DisCO-b with an
    argument it does not have and fails; the paper's formula is followed.
    """
    checks.number("tau", tau, 0.0)
    scores = _likelihood_ratio_scores(policy_token_logps, behaviour_token_logps, mask, valid)
    return _contrast(scores, correct, group_ids, valid, _soft_maximum(tau), axis_name)


def disco_trust_region(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    mask: Array,
    valid: Array,
    *,
    delta: float = 1e-4,
    beta: float = 1e3,
    axis_name: Any = None,
) -> Array:
    """Squared hinge on the distance from the sampling policy: (beta / 2) * max(KL - delta, 0)^2.

        KL = mean over all tokens of the batch of log pi_old - log pi

    An estimate of KL(pi_old || pi) on samples of pi_old, which can be negative: there, and up to delta, value and
    gradient are exactly 0. The gradient is beta (KL - delta) times that of KL. Every valid row carries the same value,
    so that `example_mean` is the penalty.

    Args:
      policy_token_logps: log-prob of each token under the policy. Trained.
      behaviour_token_logps: the same when it was sampled. Held fixed.
      mask: bool, True on completion tokens; nothing is looked at elsewhere.
      valid: bool, False for rows that are not there; their value is 0.
      delta: the KL that costs nothing, in nats per token, in [0, inf).
      beta: in [0, inf).
      axis_name: mapped axis (or axes) over which the batch is split; the KL is that of the whole batch.

    Shapes: log-probs and mask `[N, T]`, valid `[N]`; result float32 `[N]`.

    Raises:
      AssertionError: shapes do not agree, log-probs not floating, masks not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Li et al., 2025, arXiv 2505.12366. The authors' code has the gradient written here; the paper's beta may be
    read as twice as strong.
    """
    policy, behaviour = checks.floats(
        policy_token_logps=policy_token_logps, behaviour_token_logps=behaviour_token_logps
    )
    _check_rows(policy, mask, valid)
    checks.number("delta", delta, 0.0, closed="left")
    checks.number("beta", beta, 0.0, closed="left")
    counted = mask & valid[:, None]
    total = jnp.sum(_stop(keep(behaviour, counted)) - keep(policy, counted))
    count = jnp.sum(counted)
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)
    excess = total / jnp.maximum(count, 1) - delta
    return keep(jnp.broadcast_to(0.5 * beta * jnp.square(jnp.maximum(excess, 0.0)), valid.shape), valid)
