"""Margins: how far the chosen completion is ahead of the rejected one, on the scale that a link turns into a loss.

A preference loss is a margin followed by a link (`alignment.losses.links`). Every margin here takes arguments of the
vocabulary, owns its scale (its hyperparameters are keyword-only) and gives float32 `[...]`, one number per pair. So an
ablation crosses them without new code: `alignment.losses.composition.compose`, or `margin` and `link` in a config.

No hyperparameter shares its name with one of a link but where the two mean the same, so that any pair can be composed.
Throughout, a log-prob of a completion is the sum over its tokens, in nats; a_w and a_l are log(pi / ref) of the chosen
and of the rejected completion, h = a_w - a_l, and |y| is a number of tokens. `reference_*` arguments and lengths are
held fixed. Each raises AssertionError if shapes differ or a type is wrong, and ValueError, with the range, for a static
hyperparameter out of range.
"""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses import links

Array = jax.Array
_stop = jax.lax.stop_gradient

__all__ = [
    "alpha_divergence",
    "jensen_shannon",
    "length_normalized",
    "length_normalized_log_ratio",
    "length_regularized",
    "log_ratio",
    "positive",
    "reference_free",
    "scaled_reference",
    "two_temperatures",
]


def ratios_of_sides(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
) -> tuple[Array, Array]:
    """Entry checks of a pair, and log(pi / ref) of the chosen and of the rejected completion, float32 `[...]`."""
    policy_chosen, policy_rejected, reference_chosen, reference_rejected = checks.floats(
        policy_chosen_logps=policy_chosen_logps,
        policy_rejected_logps=policy_rejected_logps,
        reference_chosen_logps=reference_chosen_logps,
        reference_rejected_logps=reference_rejected_logps,
    )
    return policy_chosen - _stop(reference_chosen), policy_rejected - _stop(reference_rejected)


def lengths_of_sides(per_side: Array, chosen_lengths: Array, rejected_lengths: Array) -> tuple[Array, Array]:
    """Entry checks of the token counts of a pair, and both as floating-point numbers of the log-probs' type."""
    checks.same_shape(log_probs=per_side, chosen_lengths=chosen_lengths, rejected_lengths=rejected_lengths)
    checks.integers(chosen_lengths=chosen_lengths, rejected_lengths=rejected_lengths)
    chosen, rejected = jnp.asarray(chosen_lengths), jnp.asarray(rejected_lengths)
    return chosen.astype(per_side.dtype), rejected.astype(per_side.dtype)


def _per_token(chosen: Array, rejected: Array, chosen_lengths: Array, rejected_lengths: Array) -> Array:
    """Difference of the averages over tokens; an empty completion counts as one token (its log-prob is 0 anyway)."""
    chosen_count, rejected_count = lengths_of_sides(chosen, chosen_lengths, rejected_lengths)
    return chosen / jnp.maximum(chosen_count, 1) - rejected / jnp.maximum(rejected_count, 1)


def log_ratio(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.1,
) -> Array:
    """beta * h, the difference of DPO's implicit rewards.

    Shapes: log-probs `[...]`; result float32 `[...]`. `beta` in (0, inf).
    Paper: Rafailov et al., 2023, arXiv 2305.18290.
    """
    chosen, rejected = ratios_of_sides(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    checks.number("beta", beta, 0.0)
    return beta * (chosen - rejected)


def reference_free(policy_chosen_logps: Array, policy_rejected_logps: Array, *, beta: float = 0.1) -> Array:
    """beta * (log pi(y_w) - log pi(y_l)): no reference model is needed.

    Shapes: log-probs `[...]`; result float32 `[...]`. `beta` in (0, inf).
    Paper: Zhao et al., 2023, arXiv 2305.10425 (SLiC-HF); Xu et al., 2024, arXiv 2401.08417 (CPO).
    """
    chosen, rejected = checks.floats(
        policy_chosen_logps=policy_chosen_logps, policy_rejected_logps=policy_rejected_logps
    )
    checks.number("beta", beta, 0.0)
    return beta * (chosen - rejected)


def length_normalized_log_ratio(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    chosen_lengths: Array,
    rejected_lengths: Array,
    *,
    beta: float = 5.0,
) -> Array:
    """beta * (a_w / |y_w| - a_l / |y_l|): the log-ratio per token. beta is of another order than `log_ratio`'s.

    Shapes: all `[...]`, lengths integer; result float32 `[...]`. `beta` in (0, inf).
    Paper: Lambert et al., 2024, arXiv 2411.15124 (Tulu 3).
    """
    chosen, rejected = ratios_of_sides(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    checks.number("beta", beta, 0.0)
    return beta * _per_token(chosen, rejected, chosen_lengths, rejected_lengths)


def length_normalized(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    chosen_lengths: Array,
    rejected_lengths: Array,
    *,
    beta: float = 2.0,
    target_margin: float = 1.0,
) -> Array:
    """beta * (log pi(y_w) / |y_w| - log pi(y_l) / |y_l|) - target_margin: SimPO's, without a reference.

    Shapes: all `[...]`, lengths integer; result float32 `[...]`. `beta` in (0, inf); `target_margin`, the paper's
    gamma, in [0, inf) (the authors' code states gamma / beta instead).
    Paper: Meng et al., 2024, arXiv 2405.14734.
    """
    chosen, rejected = checks.floats(
        policy_chosen_logps=policy_chosen_logps, policy_rejected_logps=policy_rejected_logps
    )
    checks.number("beta", beta, 0.0)
    checks.number("target_margin", target_margin, 0.0, closed="left")
    return beta * _per_token(chosen, rejected, chosen_lengths, rejected_lengths) - target_margin


def length_regularized(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    chosen_lengths: Array,
    rejected_lengths: Array,
    *,
    beta: float = 0.1,
    length_penalty: float = 0.01,
) -> Array:
    """beta * h + length_penalty * (|y_w| - |y_l|): a longer winner's length already explains part of the preference.

    Shapes: all `[...]`, lengths integer; result float32 `[...]`. `beta` in (0, inf); `length_penalty`, the paper's
    alpha, in [0, inf), per token.
    Paper: Park et al., 2024, arXiv 2403.19159 (R-DPO).
    """
    chosen, rejected = ratios_of_sides(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    chosen_count, rejected_count = lengths_of_sides(chosen, chosen_lengths, rejected_lengths)
    checks.number("beta", beta, 0.0)
    checks.number("length_penalty", length_penalty, 0.0, closed="left")
    return beta * (chosen - rejected) + length_penalty * (chosen_count - rejected_count)


def scaled_reference(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.1,
    reference_scale: float = 1.0,
) -> Array:
    """beta * ((log pi(y_w) - log pi(y_l)) - reference_scale * (log ref(y_w) - log ref(y_l))).

    Shapes: log-probs `[...]`; result float32 `[...]`. `beta` in (0, inf); `reference_scale`, the paper's gamma, in
    [0, inf): 1 is `log_ratio`, 0 is `reference_free`.
    Paper: Chen et al., 2024, arXiv 2405.19534.
    """
    policy_chosen, policy_rejected, reference_chosen, reference_rejected = checks.floats(
        policy_chosen_logps=policy_chosen_logps,
        policy_rejected_logps=policy_rejected_logps,
        reference_chosen_logps=reference_chosen_logps,
        reference_rejected_logps=reference_rejected_logps,
    )
    checks.number("beta", beta, 0.0)
    checks.number("reference_scale", reference_scale, 0.0, closed="left")
    reference = _stop(reference_chosen - reference_rejected)
    return beta * ((policy_chosen - policy_rejected) - reference_scale * reference)


def two_temperatures(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta_chosen: float = 0.1,
    beta_rejected: float = 0.05,
) -> Array:
    """beta_chosen * a_w - beta_rejected * a_l: the two sides are tied to the reference with different strength.

    Shapes: log-probs `[...]`; result float32 `[...]`. Both betas in [0, inf).
    Paper: Yan et al., 2024, arXiv 2406.07327 (Flex-DPO).
    """
    chosen, rejected = ratios_of_sides(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    checks.number("beta_chosen", beta_chosen, 0.0, closed="left")
    checks.number("beta_rejected", beta_rejected, 0.0, closed="left")
    return beta_chosen * chosen - beta_rejected * rejected


def positive(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.3,
    penalty: float = 50.0,
) -> Array:
    """beta * (h - penalty * max(0, -a_w)): smaller wherever the chosen completion has become less likely.

    The hinge is on the sum over the completion, not per token.

    Shapes: log-probs `[...]`; result float32 `[...]`. `beta` in (0, inf); `penalty`, the paper's lambda, in [0, inf).
    Paper: Pal et al., 2024, arXiv 2402.13228 (DPO-Positive).
    """
    chosen, rejected = ratios_of_sides(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    checks.number("beta", beta, 0.0)
    checks.number("penalty", penalty, 0.0, closed="left")
    return beta * (chosen - rejected - penalty * jax.nn.relu(-chosen))


def alpha_divergence(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.1,
    alpha: float = 0.5,
) -> Array:
    """beta * (f'(u_w) - f'(u_l)) with u = pi / ref of a completion and f'(u) = (1 - u^-alpha) / alpha.

    alpha = 0 is the reverse KL, f' = log u (which is `log_ratio`), alpha = 1 the forward KL, f' = 1 - 1 / u.
    u^-alpha leaves float32 where a completion has become e^88 times less likely; it is continued by its tangent from
    e^30 on (`links.exponential`), so that such a completion is still pulled back, and by a finite force.

    Shapes: log-probs `[...]`; result float32 `[...]`. `beta` in (0, inf); `alpha` in [0, 1].
    Paper: Wang et al., 2023, arXiv 2309.16240. TRL's coefficient is 1 - alpha.
    """
    chosen, rejected = ratios_of_sides(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    checks.number("beta", beta, 0.0)
    checks.number("alpha", alpha, 0.0, 1.0, closed="both")
    # alpha may be traced, so both branches are computed: neither may be singular at 0.
    divisor = jnp.where(alpha == 0, 1.0, alpha)

    def score(ratios):
        return jnp.where(alpha == 0, ratios, -links.exponential_minus_one(divisor * ratios) / divisor)

    return beta * (score(chosen) - score(rejected))


def jensen_shannon(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.1,
) -> Array:
    """beta * (f'(u_w) - f'(u_l)) with u = pi / ref of a completion and f'(u) = log(2u / (1 + u)).

    Saturates on completions that have become likelier than under the reference.

    Shapes: log-probs `[...]`; result float32 `[...]`. `beta` in (0, inf).
    Paper: Wang et al., 2023, arXiv 2309.16240.
    """
    chosen, rejected = ratios_of_sides(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    checks.number("beta", beta, 0.0)
    return beta * (jax.nn.softplus(-rejected) - jax.nn.softplus(-chosen))
