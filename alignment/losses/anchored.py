"""Pair losses that tie each side to the reference on its own, and so are no functions of the difference h alone.

DPO's loss can fall while the chosen completion loses probability, since it sees only the difference. These see the two
log-ratios: a_w = log(pi / ref) of the chosen and a_l of the rejected completion, h = a_w - a_l. A log-prob is the *sum*
over the tokens of a completion, in nats; s is the sigmoid. `reference_*` arguments are held fixed. Values come back per
pair; `example_mean` is the papers' reduction.
"""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses import links, margins
from alignment.losses.preference import dpo

Array = jax.Array


def dpop(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.3,
    lambda_: float = 50.0,
) -> Array:
    """DPO-Positive: -log s(beta * (h - lambda * max(0, -a_w))).

    Once the chosen completion is less likely than under the reference, raising it counts 1 + lambda times as much as
    lowering the rejected one; above the reference it is `dpo`. The hinge is on the sum over the completion, not per
    token.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      beta: in (0, inf).
      lambda_: in [0, inf); 0 is `dpo`, the paper tries 5 to 500.

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Pal et al., 2024, arXiv 2402.13228 (Smaug). Its repository holds no code of the loss;
    HumainLab/Understand_MarginPO's 'pdpo' agrees.
    """
    checks.number("lambda_", lambda_, 0.0, closed="left")
    margin = margins.positive(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps,
        beta=beta, penalty=lambda_,
    )  # fmt: skip
    return links.logistic(margin)


def sft_dpo(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.1,
    lambda_: float = 0.1,
) -> Array:
    """DPO plus the likelihood of the chosen completion: -log s(beta * h) - lambda * log pi(y_w|x).

    The likelihood is the sum over the completion, so long completions weigh more. For the mean over tokens, which is of
    another order, compose `dpo` and `sft` in the config (`configs/dpo_sft.py`).

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      beta: in (0, inf).
      lambda_: in [0, inf); 0 is `dpo`. The paper's value was not available.

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Yan et al., 2024, arXiv 2406.07327. No published code was found; TRL's list of losses ['sigmoid', 'sft']
    takes the mean over all chosen tokens of the batch instead.
    """
    values = dpo(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=beta
    )
    checks.number("lambda_", lambda_, 0.0, closed="left")
    (chosen,) = checks.floats(policy_chosen_logps=policy_chosen_logps)
    return values - lambda_ * chosen


def cal_dpo(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.001,
    lambda_: float = 1.0,
) -> Array:
    """Calibrated DPO: -log s(h) + lambda * ((a_w - 1 / (2 beta))^2 + (a_l + 1 / (2 beta))^2).

    The squares pin both log-ratios to plus and minus 1 / (2 beta), so the chosen one may not fall. There is no beta
    inside the sigmoid. The targets are large for the beta of the paper, 500 nats at 0.001: on short completions take a
    larger one.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      beta: in (0, inf); the paper uses 0.001 to 0.002.
      lambda_: in [0, inf); 0 is `dpo` with beta 1.

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats (the squares in squared nats).

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Xiao et al., 2024, arXiv 2412.14516. The paper adds the squares with weight 1, the authors' code with 0.5;
    the paper is followed.
    """
    chosen, rejected = margins.ratios_of_sides(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    checks.number("beta", beta, 0.0)
    checks.number("lambda_", lambda_, 0.0, closed="left")
    target = 1 / (2 * beta)
    return links.logistic(chosen - rejected) + lambda_ * (jnp.square(chosen - target) + jnp.square(rejected + target))


def apo_zero(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.1,
) -> Array:
    """Anchored preference optimization, "zero": (1 - s(beta * a_w)) + s(beta * a_l).

    For data better than the model: raises the chosen and lowers the rejected completion, each relative to the
    reference. In (0, 2); a side far from the reference gets no gradient, beta * s * (1 - s).

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      beta: in (0, inf).

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, without a unit.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: static beta out of range.

    Paper: D'Oosterlinck et al., 2024, arXiv 2408.06266. TRL's 'apo_zero' agrees.
    """
    chosen, rejected = margins.ratios_of_sides(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    checks.number("beta", beta, 0.0)
    return links.sigmoid(beta * chosen) + links.sigmoid(-beta * rejected)


def apo_down(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.1,
) -> Array:
    """Anchored preference optimization, "down": s(beta * a_w) + (1 - s(beta * h)).

    For data worse than the model: lowers the chosen completion on purpose, and the rejected one more. The second term
    is 1 - exp(-dpo).

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      beta: in (0, inf).

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]` in (0, 2), without a unit.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: static beta out of range.

    Paper: D'Oosterlinck et al., 2024, arXiv 2408.06266. TRL's 'apo_down' agrees.
    """
    chosen, rejected = margins.ratios_of_sides(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    checks.number("beta", beta, 0.0)
    return links.sigmoid(-beta * chosen) + links.sigmoid(beta * (chosen - rejected))


def nca_pair(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.01,
) -> Array:
    """Noise contrastive alignment of a pair: -log s(m_w) - (log s(-m_w) + log s(-m_l)) / 2, with m = beta * a.

    Each side is told apart from a sample of the reference on its own, so the level of the likelihoods is learned too:
    not invariant to a constant added to both log-ratios. The best chosen log-ratio is log 2 / beta, while the rejected
    one falls without end. The list form with hard labels is the same.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      beta: in (0, inf); the paper uses 0.01.

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: static beta out of range.

    Paper: Chen et al., 2024, arXiv 2402.05369. The authors' code and TRL's 'nca_pair' agree.
    """
    chosen, rejected = margins.ratios_of_sides(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    checks.number("beta", beta, 0.0)
    chosen, rejected = beta * chosen, beta * rejected
    return links.logistic(chosen) + 0.5 * (links.logistic(-chosen) + links.logistic(-rejected))


def bco_pair(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.1,
) -> Array:
    """Binary classifier optimization of a pair, without reward shift: -log s(beta * a_w) - log s(-beta * a_l).

    Classifies each completion as wanted or not by its implicit reward; an upper bound of `dpo`. The shift delta of the
    unpaired method is 0 here.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      beta: in (0, inf).

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: static beta out of range.

    Paper: Jung et al., 2024, arXiv 2404.04656. The pair form is TRL's 'bco_pair', which agrees (the formula in TRL's
    paper index is DPO's by mistake).
    """
    chosen, rejected = margins.ratios_of_sides(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    checks.number("beta", beta, 0.0)
    return links.logistic(beta * chosen) + links.logistic(-beta * rejected)
