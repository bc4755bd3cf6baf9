"""Pair losses that come from another divergence than the reverse KL between policy and reference, or between labels.

A log-prob of a completion is the *sum* over its tokens, in nats; a_w and a_l are log(pi / ref) of the chosen and of the
rejected completion, h = a_w - a_l and s is the sigmoid. `reference_*` arguments are held fixed. Values come back per
pair; `example_mean` is the papers' reduction.

DPO's reward beta * log u, u = pi / ref, belongs to a policy tied to its reference by the reverse KL. Tied by an
f-divergence, the reward is beta * f'(u): `f_dpo` for the alpha-divergences with both KLs at their ends,
`f_dpo_jensen_shannon` for the Jensen-Shannon divergence.
"""

import jax

from alignment import checks
from alignment.losses import links, margins

Array = jax.Array


def f_dpo(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.1,
    alpha: float = 0.5,
) -> Array:
    """f-DPO with an alpha-divergence: -log s(beta * (f'(u_w) - f'(u_l))), f'(u) = (1 - u^-alpha) / alpha.

    alpha = 0 is the reverse KL, f' = log u, and so `dpo`; alpha = 1 is the forward KL, f' = 1 - 1 / u. The larger
    alpha, the harder a completion is held that has become unlikely. u is the ratio of whole sequences: u^-alpha leaves
    float32 where -alpha * log u > 88 and is continued by its tangent from 30 on, so that even then the pull back does
    not vanish.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      beta: in (0, inf).
      alpha: in [0, 1]; the paper uses 0.3, 0.5 and 0.7 besides both ends.

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Wang et al., 2023, arXiv 2309.16240. The authors' code and TRL's f_divergence_type agree up to the
    continuation, where TRL clamps (and so has no gradient) or overflows; TRL's f_alpha_divergence_coef is 1 - alpha.
    """
    margin = margins.alpha_divergence(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps,
        beta=beta, alpha=alpha,
    )  # fmt: skip
    return links.logistic(margin)


def f_dpo_jensen_shannon(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.1,
) -> Array:
    """f-DPO with the Jensen-Shannon divergence: -log s(beta * (f'(u_w) - f'(u_l))), f'(u) = log(2u / (1 + u)).

    f' = log s(log u) + log 2: like `dpo` for completions that have become unlikely, and flat for those far likelier
    than under the reference, which therefore pull no further.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      beta: in (0, inf).

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: static beta out of range.

    Paper: Wang et al., 2023, arXiv 2309.16240. The authors' code and TRL's f_divergence_type 'js_divergence' agree.
    """
    margin = margins.jensen_shannon(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=beta
    )
    return links.logistic(margin)


def exo_pair(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.5,
    label_smoothing: float = 1e-3,
) -> Array:
    """EXO of a pair: KL((q, 1 - q) || (1 - e, e)) with q = s(beta * h).

    The reverse KL from the policy's preference to the label's; `cdpo` is the forward KL, with the same minimiser beta *
    h = log((1 - e) / e). Mode-seeking: dL/dh = beta q (1 - q) (beta * h - log((1 - e) / e)) vanishes for a pair that is
    ranked wrongly by far. Infinite at e = 0.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      beta: in (0, inf); the paper uses 0.5, and 0.1 on IMDb.
      label_smoothing: e in (0, 1/2).

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Ji et al., 2024, arXiv 2402.00856, equation 16. TRL's 'exo_pair' agrees; the authors' code hard-codes (0,
    -10) for the logs of the label and ignores its own smoothing, and is not followed.
    """
    checks.number("label_smoothing", label_smoothing, 0.0, 0.5)
    margin = margins.log_ratio(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=beta
    )
    return links.reverse_kl(margin, label_smoothing)
