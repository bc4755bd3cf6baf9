"""Losses on pairs of completions that need no reference model.

Without one, what holds the policy in place is a likelihood term, the scale of a per-token mean, or nothing. Throughout,
log pi(y|x) is the *sum* over the tokens of a completion (prompt and padding excluded), in nats, |y| their number, and
y_w, y_l the chosen and the rejected completion. s is the sigmoid. Values come back per pair.

Where a paper adds the negative log-likelihood of a completion, it is of that one sequence, as printed. Much published
code averages it over all tokens of the batch instead, which no value per example can say: for that, set the
likelihood's weight to 0 here and add `sft` (reduction `token_mean`) on the same side as a second term of the objective.
"""

import math

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses import links

Array = jax.Array


def _means(
    policy_chosen_logps: Array, policy_rejected_logps: Array, chosen_lengths: Array, rejected_lengths: Array
) -> tuple[Array, Array]:
    """Entry checks, and the log-prob per token of the chosen and of the rejected completion, float32 `[...]`."""
    chosen, rejected = checks.floats(
        policy_chosen_logps=policy_chosen_logps, policy_rejected_logps=policy_rejected_logps
    )
    checks.same_shape(policy_chosen_logps=chosen, chosen_lengths=chosen_lengths, rejected_lengths=rejected_lengths)
    checks.integers(chosen_lengths=chosen_lengths, rejected_lengths=rejected_lengths)
    return chosen / jnp.maximum(chosen_lengths, 1), rejected / jnp.maximum(rejected_lengths, 1)


def slic_hf(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    *,
    delta: float = 1.0,
    lambda_: float = 0.1,
) -> Array:
    """SLiC-HF: max(0, delta - log pi(y_w|x) + log pi(y_l|x)) - lambda * log pi(y_w|x).

    A hinge that stops once the chosen completion is delta nats ahead, and a likelihood term that never stops. Here the
    target of the likelihood is the chosen completion, as in most re-implementations; `slic_hf_target` has the paper's.
    At the kink the hinge's gradient is 0. Not TRL's 'hinge', which is a hinge on reference-corrected log-ratios.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      delta: margin in nats, in [0, inf).
      lambda_: weight of the likelihood, in [0, inf); 0 leaves the hinge alone.

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Zhao et al., 2023, arXiv 2305.10425. The default of lambda is that of HALOs' SLiCTrainer, whose likelihood
    keeps its token axis beside a hinge per sequence; as printed in the paper, both are sums over the sequence here.
    """
    return slic_hf_target(policy_chosen_logps, policy_rejected_logps, policy_chosen_logps, delta=delta, lambda_=lambda_)


def slic_hf_target(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    policy_gold_logps: Array,
    *,
    delta: float = 1.0,
    lambda_: float = 0.1,
) -> Array:
    """SLiC-HF with a target of its own: max(0, delta - log pi(y_w|x) + log pi(y_l|x)) - lambda * log pi(y_target|x).

    The paper's form: y_target is the demonstration of the supervised stage, so that the likelihood term keeps the
    policy near that stage whatever the pairs say. With y_target = y_w this is `slic_hf`.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      policy_gold_logps: the same of the target completion. Trained.
      delta: margin in nats, in [0, inf).
      lambda_: weight of the likelihood, in [0, inf); 0 leaves the hinge alone.

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Zhao et al., 2023, arXiv 2305.10425; the remarks at `slic_hf` on code and on the kink hold here too.
    """
    chosen, rejected, target = checks.floats(
        policy_chosen_logps=policy_chosen_logps,
        policy_rejected_logps=policy_rejected_logps,
        policy_gold_logps=policy_gold_logps,
    )
    checks.number("delta", delta, 0.0, closed="left")
    checks.number("lambda_", lambda_, 0.0, closed="left")
    return jax.nn.relu(delta - chosen + rejected) - lambda_ * target


def simpo(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    chosen_lengths: Array,
    rejected_lengths: Array,
    *,
    beta: float = 2.0,
    gamma: float = 0.5,
) -> Array:
    """SimPO: -log s(beta * log pi(y_w|x) / |y_w| - beta * log pi(y_l|x) / |y_l| - gamma).

    The reward is the mean log-prob per token, what decoding ranks by, so long completions gain nothing by length; the
    kernel divides, the log-probs come in summed. gamma is a margin in units of the reward and is *not* multiplied by
    beta: the authors' code takes gamma / beta as its hyperparameter. An empty completion counts as length 1.

    Args:
      policy_chosen_logps, policy_rejected_logps: log-probs under the policy, summed (not averaged). Trained.
      chosen_lengths, rejected_lengths: token counts, integer. Held fixed.
      beta: in (0, inf); 2 to 2.5, and 10 for some models.
      gamma: in [0, inf); 0.3 to 1.6 in the paper.

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ, log-probs not floating, lengths not integer.
      ValueError: a static hyperparameter out of range.

    Paper: Meng et al., 2024, arXiv 2405.14734. The defaults are those of the authors' code (beta 2, gamma / beta 0.25).
    TRL's 'simpo' adds the likelihood of the chosen side unless its cpo_alpha is 0 (its default is 1); nothing is added
    here.
    """
    chosen, rejected = _means(policy_chosen_logps, policy_rejected_logps, chosen_lengths, rejected_lengths)
    checks.number("beta", beta, 0.0)
    checks.number("gamma", gamma, 0.0, closed="left")
    return links.logistic(beta * (chosen - rejected) - gamma)


_STEEPEST = 40.0  # e^40: where alpha_po's exponential goes on as its tangent; squares of slopes still fit float32


def alpha_po(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    chosen_lengths: Array,
    rejected_lengths: Array,
    *,
    alpha: float = 0.25,
    beta: float = 2.5,
    gamma: float = 0.1,
) -> Array:
    """AlphaPO: -log s(r(y_w) - r(y_l) - gamma), r(y) = beta * (1 - exp(-alpha * l)) / alpha, l = log pi(y|x) / |y|.

    SimPO with a reward of another shape. Its slope beta * exp(-alpha * l) makes unlikely completions move more for
    alpha > 0, less for alpha < 0; alpha = 0 is the limit, `simpo`, exactly. Where -alpha * l exceeds 40 (a mean
    log-prob of -160 at the default) the exponential goes on as its tangent, so that value and gradient stay finite and
    no completion stops training. An empty completion counts as length 1.

    Args:
      policy_chosen_logps, policy_rejected_logps: log-probs under the policy, summed (not averaged). Trained.
      chosen_lengths, rejected_lengths: token counts, integer. Held fixed.
      alpha: shape of the reward, in (-inf, inf).
      beta: in (0, inf).
      gamma: margin in units of the reward, not multiplied by beta, in [0, inf).

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ, log-probs not floating, lengths not integer.
      ValueError: a static hyperparameter out of range.

    Paper: Gupta et al., 2025, arXiv 2501.03884. TRL's 'alphapo' agrees once its cpo_alpha is 0.
    """
    chosen, rejected = _means(policy_chosen_logps, policy_rejected_logps, chosen_lengths, rejected_lengths)
    checks.number("alpha", alpha, -math.inf)
    checks.number("beta", beta, 0.0)
    checks.number("gamma", gamma, 0.0, closed="left")

    def reward(means: Array) -> Array:
        divisor = jnp.where(alpha == 0, 1.0, alpha)
        exponents = -divisor * means
        # Selected, not added: the tangent's slope added and taken off again would swallow that of the exponential.
        tangents = math.expm1(_STEEPEST) + math.exp(_STEEPEST) * (exponents - _STEEPEST)
        powers = jnp.where(exponents < _STEEPEST, jnp.expm1(jnp.minimum(exponents, _STEEPEST)), tangents)
        return beta * jnp.where(alpha == 0, means, -powers / divisor)

    return links.logistic(reward(chosen) - reward(rejected) - gamma)


def cpo(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    *,
    beta: float = 0.1,
    lambda_: float = 1.0,
    label_smoothing: float = 0.0,
) -> Array:
    """Contrastive Preference Optimization: -log s(beta * (log pi(y_w|x) - log pi(y_l|x))) - lambda * log pi(y_w|x).

    DPO under a reference that gives every completion the same probability, and the likelihood of the chosen completion
    in the place of the lost tie. Label smoothing e as in `cdpo`.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      beta: in (0, inf).
      lambda_: weight of the likelihood, in [0, inf); the code calls it cpo_alpha.
      label_smoothing: e in [0, 1/2), the probability that a label is wrong.

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Xu et al., 2024, arXiv 2401.08417. As printed, the likelihood is that of the whole sequence; the authors'
    code and TRL take the mean over all chosen tokens of the batch: lambda_ = 0 here, and `sft` with side `chosen`,
    reduction `token_mean` and weight lambda beside it.
    """
    chosen, rejected = checks.floats(
        policy_chosen_logps=policy_chosen_logps, policy_rejected_logps=policy_rejected_logps
    )
    checks.number("beta", beta, 0.0)
    checks.number("lambda_", lambda_, 0.0, closed="left")
    checks.number("label_smoothing", label_smoothing, 0.0, 0.5, closed="left")
    return links.logistic(beta * (chosen - rejected), label_smoothing) - lambda_ * chosen


_ALMOST_CERTAIN = -1e-6  # a mean log-prob that float32 can hardly tell from 0; there log-odds go on as their tangent


def _log_odds(log_probs: Array) -> Array:
    """log(P / (1 - P)) from log P; beyond `_ALMOST_CERTAIN` linear, since the odds of P = 1 are infinite."""
    within = jnp.minimum(log_probs, _ALMOST_CERTAIN)
    rest = -math.expm1(_ALMOST_CERTAIN)  # 1 - P
    tangents = _ALMOST_CERTAIN - math.log(rest) + (log_probs - _ALMOST_CERTAIN) / rest
    return jnp.where(log_probs < _ALMOST_CERTAIN, within - jax.nn.log1mexp(-within), tangents)


def orpo_odds_ratio(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    chosen_lengths: Array,
    rejected_lengths: Array,
) -> Array:
    """The odds-ratio term of ORPO alone: -log s(log odds(y_w) - log odds(y_l)).

    For objectives that bring an NLL of their own; `orpo` is the whole. odds(y) = P / (1 - P) of the geometric mean
    probability of the tokens, log P = log pi(y|x) / |y|. d(log odds) / d(log P) is 1 / (1 - P), so the slope grows as a
    completion becomes certain; above log P = -1e-6 the log-odds go on as their tangent, and value and gradient stay
    finite. An empty completion counts as length 1.

    Args:
      policy_chosen_logps, policy_rejected_logps: log-probs under the policy, summed (not averaged). Trained.
      chosen_lengths, rejected_lengths: token counts, integer. Held fixed.

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ, log-probs not floating, lengths not integer.

    Paper: Hong et al., 2024, arXiv 2403.07691.
    """
    chosen, rejected = _means(policy_chosen_logps, policy_rejected_logps, chosen_lengths, rejected_lengths)
    return links.logistic(_log_odds(chosen) - _log_odds(rejected))


def orpo(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    chosen_lengths: Array,
    rejected_lengths: Array,
    *,
    lambda_: float = 0.1,
) -> Array:
    """ORPO: -log pi(y_w|x) / |y_w| - lambda * log s(log odds(y_w) - log odds(y_l)).

    Supervised fine-tuning on the chosen completions with a small penalty (`orpo_odds_ratio`, which says what the odds
    are and how they stay finite) on the rejected ones: one stage, from the base model.

    Args:
      policy_chosen_logps, policy_rejected_logps: log-probs under the policy, summed (not averaged). Trained.
      chosen_lengths, rejected_lengths: token counts, integer. Held fixed.
      lambda_: weight of the odds ratio, in [0, inf); TRL calls it beta.

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ, log-probs not floating, lengths not integer.
      ValueError: static lambda_ out of range.

    Paper: Hong et al., 2024, arXiv 2403.07691, whose log-probs are means per token throughout. Code takes the NLL over
    all tokens of the batch (TRL over the prompt's too): the terms `sft` (side `chosen`, reduction `token_mean`) and
    `orpo_odds_ratio` (weight lambda) give that without the prompt.
    """
    checks.number("lambda_", lambda_, 0.0, closed="left")
    chosen, _ = _means(policy_chosen_logps, policy_rejected_logps, chosen_lengths, rejected_lengths)
    ratio = orpo_odds_ratio(policy_chosen_logps, policy_rejected_logps, chosen_lengths, rejected_lengths)
    return lambda_ * ratio - chosen


def rrhf(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    chosen_lengths: Array,
    rejected_lengths: Array,
    *,
    lambda_: float = 1.0,
) -> Array:
    """RRHF on a pair: max(0, log pi(y_l|x) / |y_l| - log pi(y_w|x) / |y_w|) - lambda * log pi(y_w|x).

    A hinge without a margin: it stops as soon as the means are in order (the gradient at equality is 0), and from
    there on only the likelihood of the chosen completion, a sum over its tokens, trains. `rrhf_list` takes K ranked
    responses. An empty completion counts as length 1.

    Args:
      policy_chosen_logps, policy_rejected_logps: log-probs under the policy, summed (not averaged). Trained.
      chosen_lengths, rejected_lengths: token counts, integer. Held fixed.
      lambda_: weight of the likelihood, in [0, inf).

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ, log-probs not floating, lengths not integer.
      ValueError: static lambda_ out of range.

    Paper: Yuan et al., 2023, arXiv 2304.05302. The authors' code averages the likelihood over positions: lambda_ = 0
    here, and `sft` with side `chosen` beside it, come close to that (there padding counts as positions).
    """
    chosen, rejected = _means(policy_chosen_logps, policy_rejected_logps, chosen_lengths, rejected_lengths)
    checks.number("lambda_", lambda_, 0.0, closed="left")
    (likelihood,) = checks.floats(policy_chosen_logps=policy_chosen_logps)
    return jax.nn.relu(rejected - chosen) - lambda_ * likelihood


def tpo(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    policy_gold_logps: Array,
    *,
    beta: float = 0.01,
    alpha: float = 1.0,
) -> Array:
    """Triple Preference Optimization: -log s(beta * (log pi(y_w|x) - log pi(y_l|x))) - alpha * log pi(y_gold|x).

    The likelihood term learns a third completion, better than both of the pair, so that what is imitated and what is
    compared no longer pull on the same text. With y_gold = y_w this is `cpo`. What the paper and TRL call the
    'reference' is this completion, not a model.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      policy_gold_logps: the same of the gold completion. Trained.
      beta: in (0, inf).
      alpha: weight of the likelihood, in [0, inf).

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Saeidi et al., 2024, arXiv 2405.16681. The authors' code and TRL average the likelihood over all gold tokens
    of the batch: alpha = 0 here, and `sft` with side `gold`, reduction `token_mean` and weight alpha beside it.
    """
    chosen, rejected, gold = checks.floats(
        policy_chosen_logps=policy_chosen_logps,
        policy_rejected_logps=policy_rejected_logps,
        policy_gold_logps=policy_gold_logps,
    )
    checks.number("beta", beta, 0.0)
    checks.number("alpha", alpha, 0.0, closed="left")
    return links.logistic(beta * (chosen - rejected)) - alpha * gold


def tpo_l(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    policy_gold_logps: Array,
    chosen_lengths: Array,
    rejected_lengths: Array,
    *,
    beta: float = 0.01,
    gamma: float = 0.5,
    alpha: float = 1.0,
) -> Array:
    """TPO-L: -log s(beta * log pi(y_w|x) / |y_w| - beta * log pi(y_l|x) / |y_l| - gamma) - alpha * log pi(y_gold|x).

    `simpo` on the pair and the likelihood of the gold completion; gamma is not multiplied by beta.

    Args:
      policy_chosen_logps, policy_rejected_logps: log-probs under the policy, summed (not averaged). Trained.
      policy_gold_logps: summed log-prob of the gold completion. Trained.
      chosen_lengths, rejected_lengths: token counts, integer. Held fixed.
      beta: in (0, inf); the authors ran 0.01 on Llama-3 and 2 to 10 elsewhere.
      gamma: in [0, inf).
      alpha: weight of the likelihood, in [0, inf).

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ, log-probs not floating, lengths not integer.
      ValueError: a static hyperparameter out of range.

    Paper: Saeidi et al., 2024, arXiv 2405.16681; the remark at `tpo` on the likelihood in code holds here too.
    """
    pair = simpo(policy_chosen_logps, policy_rejected_logps, chosen_lengths, rejected_lengths, beta=beta, gamma=gamma)
    checks.number("alpha", alpha, 0.0, closed="left")
    _, gold = checks.floats(policy_chosen_logps=policy_chosen_logps, policy_gold_logps=policy_gold_logps)
    return pair - alpha * gold
