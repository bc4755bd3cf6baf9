"""Losses on pairs of completions: one chosen, one rejected, and a frozen reference model.

Throughout, a log-prob of a completion is the *sum* over its tokens (prompt and padding excluded), in nats, and

    h = (log pi(y_w|x) - log ref(y_w|x)) - (log pi(y_l|x) - log ref(y_l|x))

is the log-ratio margin of the chosen completion y_w over the rejected y_l. s is the sigmoid. `reference_*` arguments
are always held fixed. Values come back per pair; `example_mean` is the papers' reduction.
"""

import jax

from alignment import checks
from alignment.losses import links, margins

Array = jax.Array
_stop = jax.lax.stop_gradient


def implicit_reward(policy_logps: Array, reference_logps: Array, *, beta: float = 0.1) -> Array:
    """The reward that a policy implies: beta * (log pi(y|x) - log ref(y|x)), for logging; no gradient passes.

    Defined up to a constant of the prompt, so only differences between completions of one prompt mean anything.

    Args:
      policy_logps: summed log-probs under the policy. Held fixed.
      reference_logps: the same under the reference. Held fixed.
      beta: of the loss that trained the policy, in (0, inf).

    Shapes: both `[...]`, usually `[B]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: static beta out of range.

    Paper: Rafailov et al., 2023, arXiv 2305.18290.
    """
    policy_logps, reference_logps = checks.floats(policy_logps=policy_logps, reference_logps=reference_logps)
    checks.number("beta", beta, 0.0)
    return _stop(beta * (policy_logps - reference_logps))


def dpo(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.1,
) -> Array:
    """Direct Preference Optimization: -log s(beta * h).

    The maximum-likelihood fit of a Bradley-Terry model whose reward is beta times the log-ratio. The gradient with
    respect to the chosen log-prob is -beta * s(-beta * h), to the rejected one its negative. The loss can fall while
    the chosen completion loses probability; under deterministic labels the optimum is at infinity for every beta.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      beta: strength of the tie to the reference, in (0, inf); the paper uses 0.1, and 0.5 on TL;DR.

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: static beta out of range.

    Paper: Rafailov et al., 2023, arXiv 2305.18290. The authors' code and TRL's 'sigmoid' agree.
    """
    margin = margins.log_ratio(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=beta
    )
    return links.logistic(margin)


def cdpo(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Array:
    """Conservative DPO: -(1 - e) log s(beta * h) - e log s(-beta * h), the label assumed wrong with probability e.

    The margin then has a finite optimum, beta * h = log((1 - e) / e). The flipped term is *added* (robust DPO subtracts
    it). e is a constant of the data set; `lcpo` learns it.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      beta: in (0, inf).
      label_smoothing: e in [0, 1/2); 0 is `dpo`, 0.1 is typical.

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Mitchell, 2023, "A note on DPO with noisy preferences and relationship to IPO" (a technical note without an
    arXiv number) on Rafailov et al., 2023, arXiv 2305.18290. The authors' `preference_loss(label_smoothing)` agrees.
    """
    margin = margins.log_ratio(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=beta
    )
    checks.number("label_smoothing", label_smoothing, 0.0, 0.5, closed="left")
    return links.logistic(margin, label_smoothing)


def ipo(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    tau: float = 0.1,
) -> Array:
    """Identity Preference Optimization: (h - 1 / (2 tau))^2, on summed log-probs.

    A finite target keeps the tie to the reference acting even under deterministic preferences. The gradient changes
    sign past the target, and the scale of the loss grows with the square of the length: tau does not carry over to
    `ipo_length_normalized`.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      tau: in (0, inf); TRL calls it beta.

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in squared nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: static tau out of range.

    Paper: Azar et al., 2023, arXiv 2310.12036. The paper's equation 17 (and Mitchell's code) sum over tokens, as here;
    TRL and HALOs average, which is `ipo_length_normalized`.
    """
    margin = margins.log_ratio(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=1.0
    )
    checks.number("tau", tau, 0.0)
    return links.squared(margin, 1 / (2 * tau))


def ipo_length_normalized(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    chosen_lengths: Array,
    rejected_lengths: Array,
    *,
    tau: float = 0.1,
) -> Array:
    """IPO on the mean log-ratio per token: (a_w / |y_w| - a_l / |y_l| - 1 / (2 tau))^2.

    a_w and a_l are the log-ratios log(pi / ref) of the chosen and of the rejected completion, |y| their token counts. A
    completion of length 0 counts as length 1 (its log-ratio is 0 anyway).

    Args:
      policy_chosen_logps, policy_rejected_logps: log-probs under the policy, summed (not averaged). Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      chosen_lengths, rejected_lengths: token counts, integer. Held fixed.
      tau: in (0, inf).

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`, in squared nats per token.

    Raises:
      AssertionError: shapes differ, log-probs not floating, lengths not integer.
      ValueError: static tau out of range.

    Paper: Azar et al., 2023, arXiv 2310.12036, as run by TRL and HALOs; a comment in TRL says that the IPO authors
    confirmed the published numbers to be averaged.
    """
    checks.number("tau", tau, 0.0)
    margin = margins.length_normalized_log_ratio(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps,
        chosen_lengths, rejected_lengths, beta=1.0,
    )  # fmt: skip
    return links.squared(margin, 1 / (2 * tau))


def focal_po(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.01,
    gamma: float = 0.05,
) -> Array:
    """FocalPO: -p^gamma log p with p = s(beta * h), so that misranked pairs weigh less than in DPO.

    The factor p^gamma is differentiated: dL/dh = -beta p^gamma (1 - p) (1 + gamma log p). The gradient therefore turns
    round where log p = -1 / gamma, and pairs misranked worse than that are pushed further apart: at beta * h = -20 for
    gamma = 0.05, but already at -0.54 for gamma = 1. Not the (1 - p)^gamma of the focal loss in vision.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      beta: in (0, inf).
      gamma: in [0, inf); 0 is `dpo`. Keep it small, see above.

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Liu et al., 2025, arXiv 2501.06645. The authors' repository holds no code of the loss.
    """
    margin = margins.log_ratio(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=beta
    )
    return links.focal(margin, gamma)
