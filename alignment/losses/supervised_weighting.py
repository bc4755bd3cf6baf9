"""Losses on demonstrations in which tokens, or whole demonstrations, do not all weigh the same."""

from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep, masked_sum

Array = jax.Array
_stop = jax.lax.stop_gradient

_LOWEST_REWARD = -0.9  # where Hellinger's phi, singular at -1, goes on along its tangent


def dft(policy_token_logps: Array, mask: Array) -> Array:
    """Dynamic fine-tuning: each token's loss times its own probability, held fixed.

        loss[b, t] = -sg(pi(y_t)) * log pi(y_t)

    Its gradient is that of -pi(y_t), the expected number of right tokens: the 1 / pi that plain fine-tuning gives an
    unlikely token is gone. Tokens of probability near 0 therefore teach nothing, so a model has to know something
    before. The value is no likelihood: it falls towards 0 at both ends, and is largest where pi = 1 / e.

    Args:
      policy_token_logps: log pi(y_t | x, y_<t). Trained; as a weight held fixed.
      mask: bool, True where the token is supervised.

    Shapes: both `[..., T]`, usually `[B, T]`; result float32 `[..., T]`, in nats.

    Raises:
      AssertionError: shapes differ, log-probs not floating, or mask not bool.

    Paper: Wu et al., 2025, arXiv 2508.05629. The authors' trainer weighs tokens only where no sequence parallelism is
      used, and is plain SFT elsewhere; the formula is followed. TRL's `dft_loss` agrees.
    """
    (logps,) = checks.floats(policy_token_logps=policy_token_logps)
    logps = keep(logps, mask)
    return keep(-_stop(jnp.exp(jnp.minimum(logps, 0.0))) * logps, mask)


def _sum(values: Array, axis_name: Any) -> Array:
    total = jnp.sum(values)
    return total if axis_name is None else jax.lax.psum(total, axis_name)


def _checked(policy_token_logps: Array, weights: Array, mask: Array, valid: Array) -> tuple[Array, Array, Array]:
    """(log-probs and mask of the examples that count, their weights)."""
    (logps,), (weights,) = checks.floats(policy_token_logps=policy_token_logps), checks.floats(weights=weights)
    checks.leading_shape(weights=weights, policy_token_logps=logps)
    weights = keep(_stop(weights), valid)
    checks.boolean(mask=mask)
    checks.same_shape(policy_token_logps=logps, mask=mask)
    mask = mask & valid[..., None]
    return keep(logps, mask), mask, weights


def crlft(policy_token_logps: Array, weights: Array, mask: Array, valid: Array, *, axis_name: Any = None) -> Array:
    """C-RLFT: the loss of a demonstration's tokens times the weight of its source, over the sum of these weights.

        mean over tokens of loss = -sum_{b,t} w_b log pi(y_bt) / sum_{b,t} w_b

    w = exp(r / beta) for the coarse reward r of the source; only ratios matter: a weight of 0.1 beside 1 says that the
    rewards differ by beta log 10. The policy is to be conditioned on the source by the prompt, in training and after.
    Values are scaled by (tokens / sum of weights of the batch), so that `token_mean` is the quotient above.

    Args:
      policy_token_logps: log pi(y_t | x, source, y_<t). Trained.
      weights: w of each demonstration, in [0, inf). Held fixed.
      mask: bool, True where the token is supervised.
      valid: bool, False for rows that only pad the batch.
      axis_name: mapped axis (or axes) over which the batch is split; the sums are those of the whole batch.

    Shapes: log-probs and mask `[B, T]`, weights and valid `[B]`; result float32 `[B, T]`, in nats. If all weights are
    0, so is the loss.

    Raises:
      AssertionError: shapes do not agree, an array not floating, masks not bool.

    Paper: Wang et al., 2023, arXiv 2309.11235 (OpenChat), which writes exp(r / beta); the authors' code takes ready
      weights and divides by their sum over all devices, as here.
    """
    logps, mask, weights = _checked(policy_token_logps, weights, mask, valid)
    counted = _sum(mask.astype(logps.dtype), axis_name)
    total = _sum(weights * jnp.sum(mask, axis=-1), axis_name)
    scale = jnp.where(total > 0, counted / jnp.where(total > 0, total, 1.0), 0.0)
    return -logps * weights[..., None] * scale


def crlft_per_sequence(
    policy_token_logps: Array, weights: Array, mask: Array, valid: Array, *, axis_name: Any = None
) -> Array:
    """C-RLFT by whole demonstrations: each weighs w_b, however long it is.

        mean over examples of loss = -sum_b w_b mean_t log pi(y_bt) / sum_b w_b

    Args:
      policy_token_logps, weights, mask, valid, axis_name: as in `crlft`. A demonstration without a token has loss 0.

    Shapes: log-probs and mask `[B, T]`, weights and valid `[B]`; result float32 `[B]`, in nats.

    Raises:
      AssertionError: shapes do not agree, an array not floating, masks not bool.

    Paper: Wang et al., 2023, arXiv 2309.11235; the option `per_sequence_loss` of their code, which gives every token of
      a message the weight w divided by the number of its tokens.
    """
    logps, mask, weights = _checked(policy_token_logps, weights, mask, valid)
    counted, total = _sum(valid.astype(logps.dtype), axis_name), _sum(weights, axis_name)
    scale = jnp.where(total > 0, counted / jnp.where(total > 0, total, 1.0), 0.0)
    return -masked_sum(logps, mask) / jnp.maximum(jnp.sum(mask, axis=-1), 1) * weights * scale


def _implicit_rewards(policy_token_logps: Array, reference_token_logps: Array, mask: Array, beta: float) -> Array:
    """beta * (log pi - log ref) of every token, 0 behind the mask."""
    policy, reference = checks.floats(
        policy_token_logps=policy_token_logps, reference_token_logps=reference_token_logps
    )
    checks.number("beta", beta, 0.0)
    return beta * keep(policy - _stop(reference), mask)


def fdiv_sft_total_variation(
    policy_token_logps: Array, reference_token_logps: Array, mask: Array, *, beta: float = 0.1
) -> Array:
    """SFT as imitation by total variation: loss[b, t] = -r, r = beta * (log pi(y_t) - log ref(y_t)).

    Fine-tuning is read as inverse reinforcement learning whose implicit reward is the log-ratio: maximise phi(r) for
    phi(r) = -f*(-r), f* the conjugate of an f-divergence. Total variation has phi(r) = r, in which the reference is a
    constant: plain `sft`, beta times as steep. That is the case the others are to be compared with.

    Args:
      policy_token_logps: log pi(y_t | x, y_<t). Trained.
      reference_token_logps: the same under the model before fine-tuning. Held fixed.
      mask: bool, True where the token is supervised.
      beta: in (0, inf).

    Shapes: arrays `[..., T]`, usually `[B, T]`; result float32 `[..., T]`.

    Raises:
      AssertionError: shapes differ, log-probs not floating, or mask not bool.
      ValueError: static beta out of range.

    Paper: Wang et al., 2025, arXiv 2507.00018. The state value, of which the reward is defined up to, is taken as 0;
      no code was available. Per token, where the log-ratios stay small enough for phi to be tame.
    """
    return -_implicit_rewards(policy_token_logps, reference_token_logps, mask, beta)


def fdiv_sft_pearson(
    policy_token_logps: Array, reference_token_logps: Array, mask: Array, *, beta: float = 0.1
) -> Array:
    """SFT as imitation by Pearson's chi-squared: loss[b, t] = -(r - r^2 / 4), r = beta * (log pi - log ref)(y_t).

    The pull on log pi is beta * (1 - r / 2): it is that of total variation at the reference, vanishes at r = 2 and
    turns round beyond, so that no token is driven further than 2 / beta nats from the reference.

    Args:
      policy_token_logps, reference_token_logps, mask, beta: as in `fdiv_sft_total_variation`.

    Shapes: arrays `[..., T]`, usually `[B, T]`; result float32 `[..., T]`.

    Raises:
      AssertionError: shapes differ, log-probs not floating, or mask not bool.
      ValueError: static beta out of range.

    Paper: Wang et al., 2025, arXiv 2507.00018.
    """
    rewards = _implicit_rewards(policy_token_logps, reference_token_logps, mask, beta)
    return jnp.square(rewards) / 4 - rewards


def fdiv_sft_hellinger(
    policy_token_logps: Array, reference_token_logps: Array, mask: Array, *, beta: float = 0.1
) -> Array:
    """SFT as imitation by squared Hellinger distance: loss[b, t] = -r / (1 + r), r = beta * (log pi - log ref)(y_t).

    The pull on log pi is beta / (1 + r)^2: it fades for tokens that are already far likelier than under the reference,
    and never turns round. phi is singular at r = -1, where the policy has lost what the reference knew; below
    r = -0.9 it goes on along its tangent, so that such a token is still pulled back.

    Args:
      policy_token_logps, reference_token_logps, mask, beta: as in `fdiv_sft_total_variation`.

    Shapes: arrays `[..., T]`, usually `[B, T]`; result float32 `[..., T]`, greater than -1.

    Raises:
      AssertionError: shapes differ, log-probs not floating, or mask not bool.
      ValueError: static beta out of range.

    Paper: Wang et al., 2025, arXiv 2507.00018. The tangent is ours.
    """
    rewards = _implicit_rewards(policy_token_logps, reference_token_logps, mask, beta)
    inside = jnp.maximum(rewards, _LOWEST_REWARD)
    slope = 1 / (1 + _LOWEST_REWARD) ** 2
    return -inside / (1 + inside) - slope * jnp.minimum(rewards - _LOWEST_REWARD, 0.0)
