"""Scaling laws of reward-model over-optimisation: what the gold reward does as a policy moves away from its start.

d = sqrt(KL(policy || start)), against the INITIAL policy and of whole completions, in nats. The gold reward is set to 0
at d = 0: standardise it on samples of the start. Gao et al., 2022, arXiv 2210.10760.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

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
