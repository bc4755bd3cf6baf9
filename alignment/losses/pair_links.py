"""DPO's margin under another link: what is done with the log-ratio margin h once it is computed.

A log-prob of a completion is the *sum* over its tokens, in nats; a_w and a_l are log(pi / ref) of the chosen and of the
rejected completion, h = a_w - a_l and s is the sigmoid. `reference_*` arguments are held fixed. Values come back per
pair; `example_mean` is the papers' reduction.
"""

import jax

from alignment import checks
from alignment.losses import links, margins
from alignment.losses.preference import dpo

Array = jax.Array


def robust_dpo(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.1,
    flip_rate: float = 0.1,
) -> Array:
    """Robust DPO (rDPO): (-(1 - e) log s(beta * h) + e log s(-beta * h)) / (1 - 2e).

    If each label is flipped independently with probability e, the expectation over the flips is the clean `dpo`. Equal
    to dpo - beta * h * e / (1 - 2e): every pair's gradient weight grows by the constant e / (1 - 2e), where `cdpo`
    takes e away. Unbounded below for e > 0, so on finite data the margin grows until something else stops it.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      beta: in (0, inf).
      flip_rate: e in [0, 1/2), the rate at which labels are wrong in the data, not a smoothing knob; 0 is `dpo`.

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Chowdhury et al., 2024, arXiv 2403.00409. No official code; TRL's 'robust' agrees (its `label_smoothing` is
    e).
    """
    margin = margins.log_ratio(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=beta
    )
    return links.robust(margin, flip_rate)


def rso_sigmoid_norm(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    gamma: float = 0.05,
) -> Array:
    """RSO's logistic loss with a reference: -log s(gamma * h). This is `dpo` with beta = gamma, under the paper's name.

    "norm" says that the policy is divided by the reference, not that anything is divided by a length: TRL's
    'sigmoid_norm' is `length_normalized_dpo`.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      gamma: in (0, inf); the paper uses 0.05.

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: static gamma out of range.

    Paper: Liu et al., 2023, arXiv 2309.06657.
    """
    checks.number("gamma", gamma, 0.0)
    return dpo(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=gamma)


def rso_hinge_norm(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    gamma: float = 0.05,
) -> Array:
    """RSO's hinge loss with a reference: max(0, 1 - gamma * h).

    A pair stops to pull once gamma * h >= 1. As in `rso_sigmoid_norm`, "norm" is the division by the reference.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      gamma: in (0, inf); the paper uses 0.05.

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, without a unit.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: static gamma out of range.

    Paper: Liu et al., 2023, arXiv 2309.06657. TRL's 'hinge' agrees (its beta is gamma).
    """
    checks.number("gamma", gamma, 0.0)
    margin = margins.log_ratio(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=gamma
    )
    return links.hinge(margin)


def rso_hinge(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    *,
    gamma: float = 0.05,
) -> Array:
    """RSO's hinge loss without a reference: max(0, 1 - gamma * (log pi(y_w|x) - log pi(y_l|x))).

    SLiC without its regulariser: nothing ties the policy to where it started. No reference model is loaded.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      gamma: in (0, inf); the paper uses 0.05.

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, without a unit.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: static gamma out of range.

    Paper: Liu et al., 2023, arXiv 2309.06657; the loss of SLiC-HF, Zhao et al., 2023, arXiv 2305.10425.
    """
    checks.number("gamma", gamma, 0.0)
    return links.hinge(margins.reference_free(policy_chosen_logps, policy_rejected_logps, beta=gamma))


def discopop(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.05,
    tau: float = 0.05,
) -> Array:
    """DiscoPOP: (1 - m) * -log s(z) + m * exp(-z), with z = beta * h and m = s(z / tau).

    Found by a language model that searched over losses: logistic where the pair is ranked wrongly, exponential where
    rightly. Not convex: for tau = 0.05 it has a local minimum of 0.7859 at z = -0.119, where a pair stays that is
    ranked slightly wrong, behind a local maximum of 0.8783 at z = 0.072.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      beta: in (0, inf).
      tau: width of the blend, in (0, 1]; above 1 the exponential would outgrow its gate.

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Lu et al., 2024, arXiv 2406.08414 (log-ratio modulated loss). The authors' code and TRL's 'discopop' multiply
    exp(-z) by m, which is inf * 0 = NaN from z = -89 on; the product is computed in the exponent here, and agrees
    before that.
    """
    margin = margins.log_ratio(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=beta
    )
    return links.discopop(margin, tau)
