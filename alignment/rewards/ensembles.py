"""Several reward models, or several heads of one, as one reward: what an ensemble is sure of, and what it fears.

Scores stand on the last axis, `[..., K]`: K members. Results are constants for a policy, and nothing here is
trained. Bring members to a common scale first (`standardised`): of raw scores the worst case is that of the member with
the lowest offset.
"""

import jax
import jax.numpy as jnp

from alignment import checks

Array = jax.Array


def _members(**scores: Array) -> Array:
    (values,) = checks.floats(**scores)
    if values.ndim < 1 or not values.shape[-1]:
        raise AssertionError(f"{next(iter(scores))} must have an axis of members, got shape {values.shape}")
    return values


def standardised(scores: Array, means: Array, deviations: Array) -> Array:
    """(score - mean) / deviation of each member, both measured on common calibration texts. `[..., K]`, `[K]`, `[K]`.

    A member that gives everything the same score (deviation 0) is only shifted.
    """
    scores = _members(scores=scores)
    means, deviations = checks.floats(means=means, deviations=deviations)
    if means.shape != scores.shape[-1:]:
        raise AssertionError(f"means must have shape {scores.shape[-1:]}, one per member, got {means.shape}")
    return (scores - means) / jnp.where(deviations > 0, deviations, 1.0)


def ensemble_mean(scores: Array) -> Array:
    """(1/K) sum_k r_k (Coste et al., 2023, arXiv 2310.02743). `[..., K]` to `[...]`, float32."""
    return jnp.mean(_members(scores=scores), axis=-1)


def worst_case(scores: Array) -> Array:
    """WCO: min_k r_k (Coste et al., 2023, arXiv 2310.02743). `[..., K]` to `[...]`, float32."""
    return jnp.min(_members(scores=scores), axis=-1)


def uncertainty_weighted(scores: Array, *, penalty: float = 0.5, ddof: int = 0) -> Array:
    """UWO: mean - penalty * variance of the members (Coste et al., 2023, arXiv 2310.02743).

    The variance, not the deviation, so the penalty is not free of scale: scores times a call for penalty over a. 0.5 is
    usual for best-of-n, 0.1 for PPO. The paper and its best-of-n code divide by K (ddof = 0); its PPO code divides by
    K - 1 (ddof = 1), which needs two members.

    Shapes: `[..., K]` to `[...]`, float32. Raises ValueError for a penalty below 0 or K <= ddof.
    """
    scores = _members(scores=scores)
    checks.number("penalty", penalty, 0.0, closed="left")
    if ddof not in (0, 1) or scores.shape[-1] <= ddof:
        raise ValueError(f"ddof must be 0 or 1, and below the number of members, got {ddof} for {scores.shape[-1]}")
    return jnp.mean(scores, axis=-1) - penalty * jnp.var(scores, axis=-1, ddof=ddof)


def entropic(scores: Array, *, beta: float = 1.0) -> Array:
    """-beta log((1/K) sum_k exp(-r_k / beta)): from the worst case (beta to 0) to the mean (beta to infinity).

    To second order it is mean - variance / (2 beta), that is `uncertainty_weighted` with penalty 1 / (2 beta). A
    unification of the three, arXiv 2606.09073. `[..., K]` to `[...]`, float32; beta in (0, inf).
    """
    scores = _members(scores=scores)
    checks.number("beta", beta, 0.0)
    return -beta * (jax.nn.logsumexp(-scores / beta, axis=-1) - jnp.log(scores.shape[-1]))


def preference_strength(vote_chosen: Array, vote_rejected: Array) -> tuple[Array, Array]:
    """Mean and population deviation of the members' gaps r_k(chosen) - r_k(rejected): both `[...]` of `[..., K]`.

    A mean below 0 says that the label is probably wrong, one near 0 that the pair is ambiguous. Voters that were
    trained on the pairs remember them: one epoch, or votes out of fold. Standardise voters of different scales.

    Paper: Wang et al., 2024 (Secrets of RLHF Part II), arXiv 2401.06080, with ten voters.
    """
    vote_chosen, vote_rejected = checks.floats(vote_chosen=vote_chosen, vote_rejected=vote_rejected)
    gaps = _members(vote_chosen=vote_chosen) - vote_rejected
    return jnp.mean(gaps, axis=-1), jnp.std(gaps, axis=-1)


def brme(means: Array, deviations: Array, *, nominal_weight: float = 0.5) -> Array:
    """Reward-robust reward: nominal_weight * nominal + (1 - nominal_weight) * min_k mu_k.

    The nominal reward is the mu of the head with the smallest sigma for that text. `brme_mean` takes their mean.

    Shapes: both `[..., K]`; result `[...]`, float32. nominal_weight lambda in [0, 1]; the paper sweeps it.

    Paper: Yan et al., 2024, arXiv 2409.15360. The minimum per sample lies below the paper's minimum over heads of the
    mean: what is implemented is the more pessimistic of the two.
    """
    means, deviations = checks.floats(means=means, deviations=deviations)
    _members(means=means)
    surest = jnp.argmin(deviations, axis=-1)
    nominal = jnp.take_along_axis(means, surest[..., None], axis=-1)[..., 0]
    return _robust(nominal, means, nominal_weight)


def brme_mean(means: Array, *, nominal_weight: float = 0.5) -> Array:
    """`brme` with the mean of all heads as the nominal reward. `[..., K]` to `[...]`, float32."""
    means = _members(means=means)
    return _robust(jnp.mean(means, axis=-1), means, nominal_weight)


def _robust(nominal: Array, means: Array, nominal_weight) -> Array:
    checks.number("nominal_weight", nominal_weight, 0.0, 1.0, closed="both")
    return nominal_weight * nominal + (1 - nominal_weight) * jnp.min(means, axis=-1)


def brme_of_heads(scores: Array, *, nominal_weight: float = 0.5) -> Array:
    """`brme` of the heads that `alignment.losses.brme_loss` trains: mu_1 .. mu_K, s_1 .. s_K, sigma = softplus(s)."""
    scores = _members(scores=scores)
    if scores.shape[-1] % 2:
        raise AssertionError(f"scores must have an even number of heads, got shape {scores.shape}")
    means, raw = jnp.split(scores, 2, axis=-1)
    return brme(means, jax.nn.softplus(raw), nominal_weight=nominal_weight)
