"""Where a preference loss pushes: gradients of the two sides of a pair, how they pull on each other, and a remedy.

g_w and g_l are the gradients of log pi(y_w|x) and log pi(y_l|x) (summed over tokens) with respect to the parameters,
flattened. The descent direction of any loss on a pair is d_w * g_w - d_l * g_l, where d_w = -dL / dlog pi(y_w|x) and
d_l = dL / dlog pi(y_l|x) are the loss's coefficients, both >= 0 for a loss that only falls with the margin.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks

Array = jax.Array


class Entanglement(NamedTuple):
    """What a small gradient step on one pair does to its two log-probs; every field has the shape of the batch.

    The last four are bool and partition all pairs: `ideal` (chosen does not fall, rejected does not rise), `both_up`,
    `both_down`, and `reversed` (chosen falls, rejected rises), which needs a negative coefficient (`ipo` past its
    target): with d_w, d_l >= 0 Cauchy-Schwarz forbids it.
    """

    inner_product: Array  # <g_w, g_l>
    chosen_norm: Array  # |g_w|
    rejected_norm: Array  # |g_l|
    cosine: Array  # 0 where a gradient is zero
    condition_ratio: Array  # <g_w, g_l> / min(|g_w|^2, |g_l|^2): entangled above 1 when d_w = d_l
    chosen_change: Array  # of log pi(y_w|x), in nats per unit of learning rate
    rejected_change: Array
    ideal: Array
    both_up: Array
    both_down: Array
    reversed: Array


class ProbabilityGradients(NamedTuple):
    """dL / dp_w (never positive) and dL / dp_l (never negative)."""

    chosen: Array
    rejected: Array


def gradient_entanglement(
    chosen_gradients: Array, rejected_gradients: Array, chosen_coefficients: Array, rejected_coefficients: Array
) -> Entanglement:
    """First-order effect of a step of a margin loss on both log-probs of each pair.

        change of log pi(y_w|x) = d_w |g_w|^2 - d_l <g_w, g_l>
        change of log pi(y_l|x) = d_w <g_w, g_l> - d_l |g_l|^2        (times the learning rate)

    A loss of the margin alone cannot say which of the two moves: when the gradients point the same way, both
    log-probs rise or fall together. Holds for plain gradient steps; Adam and clipping bend the direction. Gradients of
    summed log-probs grow with length.

    Args:
      chosen_gradients, rejected_gradients: g_w and g_l, flat.
      chosen_coefficients, rejected_coefficients: d_w and d_l, for example from `margin_coefficients`.

    Shapes: gradients `[..., P]`, coefficients `[...]`; every field of the result float32 or bool `[...]`.

    Raises:
      AssertionError: shapes do not agree or something is not floating.

    Paper: Yuan et al., 2024, A Common Pitfall of Margin-based Language Model Alignment: Gradient Entanglement, arXiv
    2410.13828. The official `analysis/grad_plot.py` divides the condition ratio by the chosen norm twice; the paper's
    minimum of the two squared norms is followed.
    """
    chosen, rejected = checks.floats(chosen_gradients=chosen_gradients, rejected_gradients=rejected_gradients)
    checks.leading_shape(chosen_coefficients=chosen_coefficients, chosen_gradients=chosen)
    return entanglement_of_products(
        jnp.sum(chosen**2, -1), jnp.sum(rejected**2, -1), jnp.sum(chosen * rejected, -1),
        chosen_coefficients, rejected_coefficients,
    )  # fmt: skip


def entanglement_of_products(
    chosen_squares: Array,
    rejected_squares: Array,
    inner_products: Array,
    chosen_coefficients: Array,
    rejected_coefficients: Array,
) -> Entanglement:
    """`gradient_entanglement` from |g_w|^2, |g_l|^2 and <g_w, g_l>, for gradients that are trees, sharded or large.

    Shapes: all `[...]`; every field of the result float32 or bool `[...]`.
    Raises: AssertionError if shapes differ or something is not floating.
    Paper: Yuan et al., 2024, arXiv 2410.13828.
    """
    ww, ll, wl, d_w, d_l = checks.floats(
        chosen_squares=chosen_squares,
        rejected_squares=rejected_squares,
        inner_products=inner_products,
        chosen_coefficients=chosen_coefficients,
        rejected_coefficients=rejected_coefficients,
    )
    chosen_change, rejected_change = d_w * ww - d_l * wl, d_w * wl - d_l * ll
    up, fell = chosen_change >= 0, rejected_change <= 0
    norms = jnp.sqrt(ww), jnp.sqrt(ll)
    return Entanglement(
        inner_product=wl,
        chosen_norm=norms[0],
        rejected_norm=norms[1],
        cosine=_ratio(wl, norms[0] * norms[1]),
        condition_ratio=_ratio(wl, jnp.minimum(ww, ll)),
        chosen_change=chosen_change,
        rejected_change=rejected_change,
        ideal=up & fell,
        both_up=up & ~fell,
        both_down=~up & fell,
        reversed=~up & ~fell,
    )


def margin_coefficients(
    loss: Callable[[Array, Array], Array], policy_chosen_logps: Array, policy_rejected_logps: Array
) -> tuple[Array, Array]:
    """(d_w, d_l) = (-dL / dlog pi(y_w|x), dL / dlog pi(y_l|x)) of any loss on pairs, by differentiating it.

    dpo: d_w = d_l = beta * s(-z). ipo: d_w = d_l = -2 (h - 1 / (2 tau)), negative past the target. Losses on averaged
    log-probs divide by each side's length, so that the shorter side weighs more.

    Args:
      loss: `(policy_chosen_logps, policy_rejected_logps) -> losses`, everything else bound, one value per pair.
      policy_chosen_logps, policy_rejected_logps: where to differentiate.

    Shapes: log-probs `[...]`; both results float32 `[...]`, those of a pair in its own place.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.

    Paper: Yuan et al., 2024, arXiv 2410.13828 (its table of d_w and d_l per loss).
    """
    chosen, rejected = checks.floats(
        policy_chosen_logps=policy_chosen_logps, policy_rejected_logps=policy_rejected_logps
    )
    d_w, d_l = jax.grad(lambda w, l: jnp.sum(loss(w, l)), argnums=(0, 1))(chosen, rejected)
    return -d_w, d_l


def pairwise_normalized_direction(chosen_gradients: Array, rejected_gradients: Array, coefficients: Array) -> Array:
    """The step that a pair takes when its two gradients weigh the same: C * (g_w / |g_w| - g_l / |g_l|), an ascent.

    Neither side can then move the wrong way to first order: the chosen log-prob changes by C |g_w| (1 - cos) >= 0, the
    rejected one by -C |g_l| (1 - cos) <= 0, cos that of the two gradients. It vanishes where they are parallel. Several
    pairs are averaged, which lets pairs disturb each other again. To keep the step comparable with the ordinary one,
    multiply C by a common scale, such as (|g_w| + |g_l|) / 2.

    Args:
      chosen_gradients, rejected_gradients: g_w and g_l, flat. A zero gradient stays zero.
      coefficients: C, the loss's coefficient d_w = d_l; where the two differ their mean.

    Shapes: gradients `[..., P]`, coefficients `[...]`; result float32 `[..., P]`.

    Raises:
      AssertionError: shapes do not agree or something is not floating.

    Paper: Yuan et al., 2024, arXiv 2410.13828, which proposes it; not in the official code.
    """
    chosen, rejected = checks.floats(chosen_gradients=chosen_gradients, rejected_gradients=rejected_gradients)
    checks.leading_shape(coefficients=coefficients, chosen_gradients=chosen)
    of_chosen, of_rejected = pairwise_normalized_factors(jnp.sum(chosen**2, -1), jnp.sum(rejected**2, -1), coefficients)
    return of_chosen[..., None] * chosen - of_rejected[..., None] * rejected


def pairwise_normalized_factors(
    chosen_squares: Array, rejected_squares: Array, coefficients: Array
) -> tuple[Array, Array]:
    """(C / |g_w|, C / |g_l|) from the squared norms: `pairwise_normalized_direction` for gradients that are trees.

    Shapes: all `[...]`; both results float32 `[...]`, 0 where the gradient is zero.
    Raises: AssertionError if shapes differ or something is not floating.
    Paper: Yuan et al., 2024, arXiv 2410.13828.
    """
    ww, ll, c = checks.floats(
        chosen_squares=chosen_squares, rejected_squares=rejected_squares, coefficients=coefficients
    )
    return _ratio(c, jnp.sqrt(ww)), _ratio(c, jnp.sqrt(ll))


def dpo_probability_gradients(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.1,
) -> ProbabilityGradients:
    """Gradient of the DPO loss with respect to the two *probabilities*: -(beta / p_w) s(-z) and (beta / p_l) s(-z).

    z = beta * h is the margin of `dpo`. The two differ by exactly p_w / p_l in size. As p_l -> 0 the one of p_l grows
    as p_l^(beta - 1) for beta < 1 (the rejected completion collapses) while the one of p_w vanishes as p_l^beta
    (learning on the chosen one stalls). These are not gradients with respect to parameters.

    Args:
      policy_chosen_logps, policy_rejected_logps: log p_w and log p_l, summed over tokens.
      reference_chosen_logps, reference_rejected_logps: log q_w and log q_l, the same under the reference.
      beta: of `dpo`, in (0, inf).

    Shapes: log-probs `[...]`; both results float32 `[...]`, infinite only where the gradient exceeds float32
    (a completion below about -87 nats whose pair is ranked wrongly).

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: static beta out of range.

    Paper: Yan et al., 2024, 3D-Properties: Identifying Challenges in DPO and Charting a Path Forward, arXiv 2406.07327.
    No official code was found.
    """
    chosen, rejected, reference_chosen, reference_rejected = checks.floats(
        policy_chosen_logps=policy_chosen_logps,
        policy_rejected_logps=policy_rejected_logps,
        reference_chosen_logps=reference_chosen_logps,
        reference_rejected_logps=reference_rejected_logps,
    )
    checks.number("beta", beta, 0.0)
    z = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    # Summed as logarithms: s(-z) and 1 / p may under- and overflow where their product is an ordinary number.
    log_weight = jnp.log(beta) + jax.nn.log_sigmoid(-z)
    return ProbabilityGradients(-jnp.exp(log_weight - chosen), jnp.exp(log_weight - rejected))


def _ratio(numerator: Array, denominator: Array) -> Array:
    # A gradient of zero has no direction. Its ratios are reported as 0 rather than as a NaN that eats the mean.
    safe = jnp.where(denominator > 0, denominator, 1.0)
    return jnp.where(denominator > 0, numerator / safe, 0.0)
