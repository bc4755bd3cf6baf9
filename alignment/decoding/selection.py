"""One answer from several samples: the best by a score, the most frequent, and what such a choice does to a model.

Samples stand on the last axis, `[..., n]`. Nothing here is trained. The KL bound of best-of-n is
`alignment.rewards.overoptimization.best_of_n_kl`.
"""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.evaluation.best_of_n import best_of_n_weights

Array = jax.Array


def best_of_n(scores: Array) -> Array:
    """The number of the best sample; of equally good ones the first. `[..., n]` to int32 `[...]`.

    A NaN is worse than every number. Raises ValueError for no sample at all.
    """
    return ranking(scores)[..., 0]


def ranking(scores: Array) -> Array:
    """The samples' numbers, best first, equal scores in the order drawn: best-of-n as a reranking. int32 `[..., n]`."""
    (scores,) = checks.floats(scores=scores)
    if scores.ndim < 1 or not scores.shape[-1]:
        raise ValueError(f"scores must have an axis of at least one sample, got shape {scores.shape}")
    return jnp.argsort(-jnp.where(jnp.isnan(scores), -jnp.inf, scores), axis=-1, stable=True).astype(jnp.int32)


def best_of_n_law(probs: Array, rewards: Array, *, n: int) -> Array:
    """The exact distribution of best-of-n over a finite set of responses.

        P_n(y) = p(y) / p(L) * (F^n - F-^n) = p(y) * sum_{j < n} F^j F-^(n-1-j)

    with L the responses of y's reward, F the probability of at most that reward and F- of less. Within a level of equal
    rewards the law is proportional to p, which is what taking the first of the best samples does. The sum has no
    cancellation for rare levels.

    Args:
      probs: `[..., X]`, of each response under the model; sum to 1.
      rewards: `[..., X]`.
      n: samples, a Python integer of at least 1; n = 1 is the model.

    Returns:
      float32 `[..., X]`, probabilities.

    Raises:
      ValueError: n below 1. AssertionError: shapes differ, or not floating.

    Paper: Beirami et al., 2024, arXiv 2401.01879, theorem 1 (there for distinct rewards).
    """
    checks.positive_integer("n", n)
    probs, rewards = checks.floats(probs=probs, rewards=rewards)
    mine, other = rewards[..., :, None], rewards[..., None, :]
    at_most = jnp.sum(jnp.where(other <= mine, probs[..., None, :], 0.0), axis=-1)
    less = jnp.sum(jnp.where(other < mine, probs[..., None, :], 0.0), axis=-1)
    # The best level's F is 1 to the last bit: a power of 300 would show what the sum is off by.
    whole = jnp.max(at_most, axis=-1, keepdims=True)
    at_most, less = at_most / whole, less / whole

    def add(_, state):
        total, power = state
        return power + less * total, power * at_most

    total, _ = jax.lax.fori_loop(0, n, add, (jnp.zeros_like(probs), jnp.ones_like(probs)))
    return probs * total


def expected_best_of_n(rewards: Array, *, n: int) -> Array:
    """The mean over all n-subsets of N samples of their best reward: unbiased for E[best of n].

        sum_i C(i - 1, n - 1) / C(N, n) r_(i),  r_(1) <= ... <= r_(N)

    Of rewards 0 and 1 it is pass@k = 1 - C(N - c, n) / C(N, n), c of the N samples being right.

    Args:
      rewards: `[..., N]`.
      n: an integer from 1 to N.

    Returns:
      float32 `[...]`.

    Raises:
      ValueError: n outside [1, N]. AssertionError: not floating.
    """
    (rewards,) = checks.floats(rewards=rewards)
    count = rewards.shape[-1]
    checks.positive_integer("n", n)
    if n > count:
        raise ValueError(f"n must be at most the number of samples, {count}, got {n}")
    return jnp.sum(jnp.sort(rewards, axis=-1) * best_of_n_weights(count, n).astype(rewards.dtype), axis=-1)


def majority_vote(answers: Array, valid: Array) -> Array:
    """Self-consistency: the number of the first sample with the most frequent answer.

    Of answers given equally often, the one that occurs first wins.

    Args:
      answers: int32 `[..., n]`, a number for each answer: equal answers share it.
      valid: bool `[..., n]`, False where a sample gives no answer; such a sample has no vote.

    Returns:
      int32 `[...]`; -1 where no sample gives an answer.

    Raises:
      AssertionError: shapes differ, or a wrong dtype. ValueError: no sample at all.

    Paper: Wang et al., 2022, arXiv 2203.11171; in the comparison of Liu et al., 2025, arXiv 2502.07191.
    """
    checks.integers(answers=answers)
    checks.boolean(valid=valid)
    checks.same_shape(answers=answers, valid=valid)
    return _winner(answers, jnp.ones(answers.shape, jnp.float32), jnp.zeros(answers.shape, jnp.float32), valid)


def weighted_vote(answers: Array, scores: Array, valid: Array) -> Array:
    """The best-scored sample among those with the answer whose samples have the largest sum of weights.

        w_i = (v_i - min v) / (max v - min v) over the samples with an answer; all 1 if their scores are equal

    The worst sample's weight is 0, so of two samples with different scores the better one wins. Ties go to the answer
    that occurs first, and within an answer to the sample that does. With constant scores it is `majority_vote`.

    Args:
      answers: int32 `[..., n]`. scores: `[..., n]`, finite where valid. valid: bool `[..., n]`.

    Returns:
      int32 `[...]`; -1 where no sample gives an answer.

    Raises:
      AssertionError: shapes differ, or a wrong dtype. ValueError: no sample at all.

    Paper: Liu et al., 2025, arXiv 2502.07191, and its code (`solve_best_of_n_with_weighted_voting`).
    """
    checks.integers(answers=answers)
    checks.boolean(valid=valid)
    checks.same_shape(answers=answers, scores=scores, valid=valid)
    (scores,) = checks.floats(scores=scores)
    low = jnp.min(scores, axis=-1, keepdims=True, where=valid, initial=jnp.inf)
    high = jnp.max(scores, axis=-1, keepdims=True, where=valid, initial=-jnp.inf)
    spread = high > low  # False, too, where nothing is valid
    weights = jnp.where(spread & valid, (scores - low) / jnp.where(spread, high - low, 1.0), 1.0)
    return _winner(answers, weights, scores, valid)


def _winner(answers: Array, weights: Array, scores: Array, valid: Array) -> Array:
    if not answers.shape[-1]:
        raise ValueError(f"answers must have an axis of at least one sample, got shape {answers.shape}")
    same = (answers[..., :, None] == answers[..., None, :]) & valid[..., None, :]
    # Summed in the order drawn for every sample of an answer, so that equal totals are equal to the last bit.
    totals = jnp.sum(jnp.where(same, weights[..., None, :], 0.0), axis=-1)
    first = jnp.argmax(jnp.where(valid, totals, -jnp.inf), axis=-1)
    chosen = jnp.take_along_axis(same, first[..., None, None], axis=-2)[..., 0, :]
    best = jnp.argmax(jnp.where(chosen, scores, -jnp.inf), axis=-1)
    return jnp.where(jnp.any(valid, axis=-1), best, -1).astype(jnp.int32)
