"""DPO's logistic link on another margin: log-ratios scaled, averaged over tokens, or corrected for length.

A log-prob of a completion is the *sum* over its tokens, in nats; a_w and a_l are log(pi / ref) of the chosen and of the
rejected completion, h = a_w - a_l, |y| is a number of tokens and s the sigmoid. `reference_*` arguments and lengths are
held fixed. Values come back per pair; `example_mean` is the papers' reduction.
"""

import jax

from alignment import checks
from alignment.losses import links, margins

Array = jax.Array


def dpo_gamma(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.1,
    gamma: float = 1.0,
) -> Array:
    """DPO with a scaled reference: -log s(beta * (log pi(y_w) - log pi(y_l) - gamma * (log ref(y_w) - log ref(y_l)))).

    gamma trades closeness to the reference for ranking accuracy: a reference that ranks a pair wrongly is in the way by
    gamma times its gap. Not the gamma of `focal_po`, nor SimPO's.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      beta: in (0, inf).
      gamma: in [0, inf); 1 is `dpo`, 0 needs the reference no more (though it is still scored).

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Chen et al., 2024, arXiv 2405.19534. The authors' code agrees, where it is loss type 'alpha_scaling' and
    gamma is `alpha`.
    """
    checks.number("gamma", gamma, 0.0, closed="left")
    margin = margins.scaled_reference(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps,
        beta=beta, reference_scale=gamma,
    )  # fmt: skip
    return links.logistic(margin)


def flex_dpo(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta_chosen: float = 0.1,
    beta_rejected: float = 0.05,
) -> Array:
    """Flex-DPO: -log s(beta_chosen * a_w - beta_rejected * a_l), a temperature for each side.

    A smaller beta on the rejected side slows the fall of its likelihood. With two betas the partition function no
    longer cancels, so the loss is no Bradley-Terry likelihood, and a constant added to both log-ratios changes it.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      beta_chosen: in [0, inf).
      beta_rejected: in [0, inf), smaller than beta_chosen; equal ones are `dpo`. The default is half of beta_chosen:
        the paper's rule that adapts it was not available.

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Yan et al., 2024, arXiv 2406.07327. No published code was found.
    """
    margin = margins.two_temperatures(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps,
        beta_chosen=beta_chosen, beta_rejected=beta_rejected,
    )  # fmt: skip
    return links.logistic(margin)


def length_normalized_dpo(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    chosen_lengths: Array,
    rejected_lengths: Array,
    *,
    beta: float = 5.0,
) -> Array:
    """DPO on the mean log-ratio per token: -log s(beta * (a_w / |y_w| - a_l / |y_l|)).

    Repeating every token of a completion changes nothing. beta is one or two orders of magnitude larger than in `dpo`.
    A completion of length 0 counts as length 1 (its log-ratio is 0 anyway). Not RSO's `rso_sigmoid_norm`.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      chosen_lengths, rejected_lengths: token counts, integer. Held fixed.
      beta: in (0, inf); Tulu 3 uses 5.

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ, log-probs not floating, lengths not integer.
      ValueError: static beta out of range.

    Paper: Lambert et al., 2024, arXiv 2411.15124 (Tulu 3). open-instruct's 'dpo_norm' and TRL's 'sigmoid_norm' agree.
    """
    margin = margins.length_normalized_log_ratio(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps,
        chosen_lengths, rejected_lengths, beta=beta,
    )  # fmt: skip
    return links.logistic(margin)


def length_regularized_dpo(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    chosen_lengths: Array,
    rejected_lengths: Array,
    *,
    beta: float = 0.1,
    alpha: float = 0.01,
) -> Array:
    """R-DPO: -log s(beta * h + alpha * (|y_w| - |y_l|)).

    DPO for a reward that costs alpha per token. The sign is plus: a longer winner already explains part of the
    preference by its length, so its log-ratio gets less gradient. Not rDPO, which is `robust_dpo`.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      chosen_lengths, rejected_lengths: token counts, integer. Held fixed.
      beta: in (0, inf).
      alpha: in [0, inf), per token; 0 is `dpo`. The right size depends on how far lengths differ.

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ, log-probs not floating, lengths not integer.
      ValueError: a static hyperparameter out of range.

    Paper: Park et al., 2024, arXiv 2403.19159. No official code; HumainLab/Understand_MarginPO's 'rdpo' agrees.
    """
    checks.number("alpha", alpha, 0.0, closed="left")
    margin = margins.length_regularized(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps,
        chosen_lengths, rejected_lengths, beta=beta, length_penalty=alpha,
    )  # fmt: skip
    return links.logistic(margin)
