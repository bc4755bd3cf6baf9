"""Scores of several heads or several rewards as one number: sums, saturating sums, quantiles, classes.

Scores stand on the last axis, `[..., K]`; results are `[...]`, float32, constants for a policy.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.rewards.ensembles import _members

Array = jax.Array


def one_head(scores: Array, *, index: int = 0) -> Array:
    """The score of one head; ValueError if there is no such head."""
    scores = _members(scores=scores)
    if not 0 <= index < scores.shape[-1]:
        raise ValueError(f"index must lie in [0, {scores.shape[-1]}), the number of heads, got {index}")
    return scores[..., index]


def weighted_sum(scores: Array, *, weights: Sequence[float] | None = None) -> Array:
    """sum_k w_k r_k, equal weights 1/K unless given: the reward of Li et al., 2025, arXiv 2503.21819."""
    scores = _members(scores=scores)
    count = scores.shape[-1]
    weights = jnp.full(count, 1 / count) if weights is None else jnp.asarray(weights, scores.dtype)
    if weights.shape != (count,):
        raise ValueError(f"weights must have {count} entries, one for each head, got shape {weights.shape}")
    return jnp.sum(weights * scores, axis=-1)


def transformed_reward_sum(scores: Array, reference_rewards: Array) -> Array:
    """sum_k log s(r_k - r_k^ref): each reward counts until it is well above its reference, so that all must be good.

    At the reference it is -K log 2; far below, linear in the shortfall; never above 0. Rewards must be on the scale of
    log-odds, as Bradley-Terry gives them. The reference is a high quantile of the rewards of the starting policy's
    samples for the prompt (`reference_rewards`).

    Shapes: both `[..., K]` (the reference may be `[K]`). Paper: Wang et al., 2024, arXiv 2402.00742.
    """
    scores = _members(scores=scores)
    (reference,) = checks.floats(reference_rewards=reference_rewards)
    if reference.shape not in (scores.shape, scores.shape[-1:]):
        raise AssertionError(f"reference_rewards must have shape {scores.shape} or {scores.shape[-1:]}, got "
                             f"{reference.shape}")  # fmt: skip
    return jnp.sum(jax.nn.log_sigmoid(scores - reference), axis=-1)


def transformed_sum(scores: Array, *, reference: Sequence[float] = (0.0,)) -> Array:
    """`transformed_reward_sum` with one reference for all prompts: a number for each head, or one number for all."""
    scores = _members(scores=scores)
    given = jnp.asarray(reference, scores.dtype).reshape(-1)
    if given.shape[0] not in (1, scores.shape[-1]):
        raise ValueError(f"reference must have 1 or {scores.shape[-1]} entries, got {given.shape[0]}")
    return transformed_reward_sum(scores, jnp.broadcast_to(given, scores.shape[-1:]))


def reference_quantile(sample_rewards: Array, *, quantile: float = 0.85) -> Array:
    """The quantile, over samples of the starting policy, that a transformed reward is held against. `[..., S]`."""
    samples = _members(sample_rewards=sample_rewards)
    checks.number("quantile", quantile, 0.0, 1.0, closed="both")
    return jnp.quantile(samples, quantile, axis=-1)


def quantile_mean(scores: Array) -> Array:
    """Mean of predicted quantiles: the expectation of what `alignment.losses.quantile_rm` learnt of one attribute."""
    return jnp.mean(_members(scores=scores), axis=-1)


def lower_quantile_mean(scores: Array, *, share: float = 0.5) -> Array:
    """Mean of the lowest `share` of the quantiles, at least one of them: a reward that is averse to risk.

    Quantiles are sorted first, as nothing keeps them from crossing. Paper: Dorka, 2024 (QRM), arXiv 2409.10164.
    """
    scores = _members(scores=scores)
    checks.number("share", share, 0.0, 1.0, closed="right")
    count = max(1, int(share * scores.shape[-1] + 1e-9))
    return jnp.mean(jnp.sort(scores, axis=-1)[..., :count], axis=-1)


def exponential_utility(scores: Array, *, aversion: float = 1.0) -> Array:
    """E[-exp(-a q)] over the quantiles: concave, so that spread costs. Paper: Dorka, 2024 (QRM), arXiv 2409.10164."""
    scores = _members(scores=scores)
    checks.number("aversion", aversion, 0.0)
    return -jnp.mean(jnp.exp(-aversion * scores), axis=-1)


def _log_odds(scores: Array) -> Array:
    scores = _members(scores=scores)
    if scores.shape[-1] != 2:
        raise AssertionError(f"scores must be the logits of two classes, got shape {scores.shape}")
    return scores[..., 1] - scores[..., 0]


def class_probability(scores: Array) -> Array:
    """p(class 1) of two logits (Rahman et al., 2024, arXiv 2401.15043)."""
    return jax.nn.sigmoid(_log_odds(scores))


def class_log_probability(scores: Array) -> Array:
    """log p(class 1) of two logits."""
    return jax.nn.log_sigmoid(_log_odds(scores))


def class_log_odds(scores: Array) -> Array:
    """log p(class 1) - log p(class 0): unbounded, where the probability saturates."""
    return _log_odds(scores)
