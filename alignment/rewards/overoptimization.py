"""Scaling laws of reward-model over-optimisation: what the gold reward does as a policy moves away from its start.

d = sqrt(KL(policy || start)), against the INITIAL policy and of whole completions, in nats. The gold reward is set to 0
at d = 0: standardise it on samples of the start. Gao et al., 2022, arXiv 2210.10760.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignment import checks

Array = jax.Array


class ScalingLaw(NamedTuple):
    """alpha and beta of a fitted curve, and where it peaks: the distance and the gold reward there."""

    alpha: Array
    beta: Array
    peak_distance: Array
    peak_reward: Array


def best_of_n_kl(count: Array) -> Array:
    """KL(best of n || start) = log n - (n - 1) / n, in nats, exact where rewards have no ties. `[...]`, float32.

    Raises AssertionError if `count` is not floating. Paper: Gao et al., 2022, arXiv 2210.10760 (from Stiennon et al.).
    """
    (count,) = checks.floats(count=count)
    return jnp.log(count) - (count - 1) / count


def best_of_n_score(proxy_scores: Array, scores: Array, *, n: int) -> Array:
    """Expected score of the best by proxy of n of the N samples of a prompt, over all subsets: nothing is drawn again.

    With the samples sorted by proxy, ascending: sum_{i=n}^{N} C(i - 1, n - 1) / C(N, n) score_(i). n = 1 gives the mean
    and n = N the score of the best by proxy. Of samples of equal proxy the later one counts as the better: shuffle
    them if their order says something.

    Args:
      proxy_scores: what the best is chosen by.
      scores: what is then looked at, gold or the proxy itself.
      n: of the N samples, in [1, N].

    Shapes: both `[..., N]`; result `[...]`, float32. Raises AssertionError for shapes that differ, ValueError for n.

    Paper: Nakano et al., 2021 (WebGPT), arXiv 2112.09332; used by Gao et al., 2022, arXiv 2210.10760.
    """
    proxy, scores = checks.floats(proxy_scores=proxy_scores, scores=scores)
    checks.same_shape(proxy_scores=proxy, scores=scores)
    count = proxy.shape[-1]
    if not 1 <= n <= count:
        raise ValueError(f"n must lie in [1, {count}], the number of samples, got {n}")
    total = math.comb(count, n)  # whole numbers of any size: in float32 they end at N = 130
    weights = np.array([math.comb(i - 1, n - 1) / total for i in range(1, count + 1)], np.float32)
    order = jnp.argsort(proxy, axis=-1, stable=True)
    return jnp.sum(jnp.take_along_axis(scores, order, axis=-1) * weights, axis=-1)


def best_of_n_reward(distances: Array, alpha: Array, beta: Array) -> Array:
    """R(d) = d (alpha - beta d). `[...]`, float32. Paper: Gao et al., 2022, arXiv 2210.10760."""
    (d,) = checks.floats(distances=distances)
    return d * (alpha - beta * d)


def rl_reward(distances: Array, alpha: Array, beta: Array) -> Array:
    """R(d) = d (alpha - beta log d), 0 at d = 0. `[...]`, float32. Paper: Gao et al., 2022, arXiv 2210.10760."""
    (d,) = checks.floats(distances=distances)
    return d * (alpha - beta * jnp.log(jnp.where(d > 0, d, 1.0)))


def _least_squares(distances: Array, gold_rewards: Array, second: Array) -> tuple[Array, Array]:
    """alpha and beta of R = alpha d - beta * second by least squares; no constant, as both are 0 at the start."""
    columns = jnp.stack([distances, -second], axis=-1)
    (alpha, beta), *_ = jnp.linalg.lstsq(columns, gold_rewards)
    return alpha, beta


def fit_best_of_n(distances: Array, gold_rewards: Array) -> ScalingLaw:
    """The law of best-of-n through measured points [N]; its peak is at alpha / (2 beta), alpha^2 / (4 beta) high.

    Where beta <= 0 the curve has no peak and what is said of it is infinite or meaningless.
    Paper: Gao et al., 2022, arXiv 2210.10760.
    """
    d, gold = checks.floats(distances=distances, gold_rewards=gold_rewards)
    alpha, beta = _least_squares(d, gold, d * d)
    return ScalingLaw(alpha, beta, alpha / (2 * beta), alpha**2 / (4 * beta))


def fit_rl(distances: Array, gold_rewards: Array) -> ScalingLaw:
    """The law of reinforcement learning through measured points [N]; its peak is at exp(alpha / beta - 1).

    Where beta <= 0 the curve has no peak. Paper: Gao et al., 2022, arXiv 2210.10760.
    """
    d, gold = checks.floats(distances=distances, gold_rewards=gold_rewards)
    alpha, beta = _least_squares(d, gold, d * jnp.log(jnp.where(d > 0, d, 1.0)))
    peak = jnp.exp(alpha / beta - 1)
    return ScalingLaw(alpha, beta, peak, rl_reward(peak, alpha, beta))


def overoptimization(gold_rewards: Array) -> Array:
    """The gold reward's maximum along a run [..., N] minus its final value; 0 for a run that never turns. `[...]`"""
    (gold,) = checks.floats(gold_rewards=gold_rewards)
    return gold.max(axis=-1) - gold[..., -1]
