"""The optimal trade between reward and KL from a reference, on a finite set of outcomes: what no policy can beat."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignment import checks

Array = jax.Array

BETAS = tuple(float(beta) for beta in np.logspace(-2, 1, 50))


class Frontier(NamedTuple):
    """Each `[..., n]`, in the order of the betas: KL(p_beta || pi_ref) in nats, E_{p_beta}[r], and beta, the slope."""

    kls: Array
    rewards: Array
    betas: Array


def kl_reward_frontier(reference_logps: Array, rewards: Array, *, betas: Sequence[float] = BETAS) -> Frontier:
    """(KL, E[r]) of p_beta ∝ pi_ref exp(r / beta) for each beta: the most reward that a KL buys.

        KL(p_beta || pi_ref) = E_{p_beta}[r] / beta - log Z_beta

    Increasing and concave, with slope dE[r] / dKL = beta; from (0, E_ref[r]) for large beta to
    (-log pi_ref(argmax r), max r) for small. Every other distribution lies on it or below. Of trained policies,
    `metrics.sequence_kl` and `metrics.sequence_kl_k3` estimate the KL, and `multi_objective.non_dominated` says which
    of several points (-KL, reward) none beats.

    Args:
      reference_logps: log pi_ref of all outcomes; normalised here.
      rewards: r of each.
      betas: all in (0, inf).

    Shapes: both `[..., V]`; result three times float32 `[..., len(betas)]`. Nothing is held fixed.

    Raises:
      AssertionError: shapes differ, or an array is not floating.
      ValueError: no beta, or one out of range.

    Paper: standard practice; as drawn in Rafailov et al., 2023, arXiv 2305.18290.
    """
    logps, rewards = checks.floats(reference_logps=reference_logps, rewards=rewards)
    if not len(betas):
        raise ValueError("betas must not be empty")
    for beta in betas:
        checks.number("each of betas", beta, 0.0)
    scale = jnp.asarray(betas, logps.dtype)[:, None]
    logps, rewards = jax.nn.log_softmax(logps)[..., None, :], rewards[..., None, :]
    tilts = jax.nn.log_softmax(logps + rewards / scale)
    p = jnp.exp(tilts)
    # Of the terms, not of their sums: near the reference E[r] / beta and log Z are large and all but equal. What has no
    # probability adds nothing, and its log-probs may be -inf.
    terms = jnp.where(p > 0, p * (jnp.where(p > 0, tilts, 0.0) - jnp.where(p > 0, logps, 0.0)), 0.0)
    kls = jnp.sum(terms, axis=-1)
    return Frontier(kls, jnp.sum(p * rewards, axis=-1), jnp.broadcast_to(scale[:, 0], kls.shape))
