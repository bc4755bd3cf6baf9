"""Losses of yes/no questions: about a text, by the policy's own two answers, or about every token, by a scalar head."""

from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses import links
from alignment.losses.masking import keep

Array = jax.Array
_stop = jax.lax.stop_gradient


def _first(token_logps: Array, mask: Array) -> Array:
    """The log-prob of a completion's first token, 0 if it has none."""
    checks.boolean(mask=mask)
    return jnp.sum(keep(token_logps, mask & (jnp.cumsum(mask, axis=-1) == 1)), axis=-1)


def meta_tuning(
    policy_chosen_token_logps: Array,
    policy_rejected_token_logps: Array,
    chosen_mask: Array,
    rejected_mask: Array,
) -> Array:
    """Meta-tuning: a two-way softmax between the right and the wrong answer's first token, softplus(-d).

        d = log pi(first token of y_w | x) - log pi(first token of y_l | x)

    The question stands in the prompt, the two answers (say "yes" and "no") are the two sides of a pair, the right one
    chosen. Both tokens are of one softmax, so d is the difference of their logits and no other token has a say; the
    answers must differ in their first token. What follows it is not looked at.

    Args:
      policy_chosen_token_logps, policy_rejected_token_logps: log-prob of each token under the policy. Trained.
      chosen_mask, rejected_mask: bool, True on the answers' tokens.

    Shapes: all `[..., T]` (T may differ between the sides), usually `[B, T]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, log-probs not floating, masks not bool.

    Paper: Zhong et al., 2021, arXiv 2104.04670. The authors' `model.py` agrees. Their metric, the area under the ROC
      curve for each label, is `alignment.analysis.roc_auc`.
    """
    (chosen,) = checks.floats(policy_chosen_token_logps=policy_chosen_token_logps)
    (rejected,) = checks.floats(policy_rejected_token_logps=policy_rejected_token_logps)
    chosen, rejected = _first(chosen, chosen_mask), _first(rejected, rejected_mask)
    checks.same_shape(policy_chosen_token_logps=chosen, policy_rejected_token_logps=rejected)
    return links.logistic(chosen - rejected)


def rts(token_scores: Array, trained_mask: Array, mask: Array) -> Array:
    """Random token substitution: was this token replaced? Binary cross-entropy of a score per token.

        softplus(z) where the token is the text's own, softplus(-z) where it was selected for replacement

    A replacement that happens to be the token itself still counts as one, as in the authors' code. The same loss serves
    replacements drawn from confusable clusters (C-RTS). SLM, which predicts the token that was there, is `sft` on the
    tokens of `trained_mask`.

    Args:
      token_scores: z, from a head on each token. Trained.
      trained_mask: bool, True on tokens selected for replacement.
      mask: bool, True on tokens that could have been.

    Shapes: all `[..., T]`, usually `[B, T]`; result float32 `[..., T]`, in nats; 0 where the mask is False.

    Raises:
      AssertionError: shapes differ, scores not floating, masks not bool.

    Paper: Di Liello, 2023, Structural Self-Supervised Objectives for Transformers, arXiv 2309.08272. There the encoder
      sees both sides of a token; a causal decoder sees the left one.
    """
    (scores,) = checks.floats(token_scores=token_scores)
    scores = keep(scores, mask)
    checks.boolean(trained_mask=trained_mask)
    checks.same_shape(trained_mask=trained_mask, token_scores=scores)
    return keep(jax.nn.softplus(jnp.where(trained_mask, -scores, scores)), mask)


def _tokens(token_scores: Array, step_labels: Array, step_mask: Array) -> tuple[Array, Array]:
    """Scores and labels, 0 behind the mask."""
    scores, labels = checks.floats(token_scores=token_scores, step_labels=step_labels)
    return keep(scores, step_mask), keep(_stop(labels), step_mask)


def _self_adjusted(scores: Array, alpha: float) -> Array:
    """(1 - p)^alpha p, from the score: no power of a rounded 1 - p."""
    return jnp.exp(-alpha * jax.nn.softplus(scores)) * jax.nn.sigmoid(scores)


def _check_dice(smoothing: float) -> None:
    checks.number("smoothing", smoothing, 0.0, closed="left")


def _ratio(numerator: Array, denominator: Array) -> Array:
    """Their quotient; 0 where the denominator is."""
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1.0), 0.0)


def _of_the_set(step_mask: Array, valid: Array, axis_name: Any):
    """(the mask of what counts, sum over all of it)."""
    checks.boolean(step_mask=step_mask, valid=valid)
    checks.leading_shape(valid=valid, step_mask=step_mask)
    counts = step_mask & valid[..., None]

    def total(values: Array) -> Array:
        found = jnp.sum(keep(values, counts))
        return found if axis_name is None else jax.lax.psum(found, axis_name)

    return counts, total


def dice_loss(
    token_scores: Array,
    step_labels: Array,
    step_mask: Array,
    valid: Array,
    *,
    smoothing: float = 1.0,
    axis_name: Any = None,
) -> Array:
    """Dice loss of a set of labelled tokens: 1 - (2 sum p y + g) / (sum p^2 + sum y^2 + g), p = s(score).

    A soft F1, for labels of which few are 1: the many easy zeros do not drown them. One number for the whole batch,
    given at every counted token, so that `token_mean` is it; micro-batches would change it.

    Args:
      token_scores: log-odds of label 1, from a head on each token. Trained.
      step_labels: y in [0, 1]. Held fixed.
      step_mask: bool, True on tokens that have a label; nothing is looked at elsewhere.
      valid: bool, False for rows that only pad the batch.
      smoothing: g, in [0, inf); large beside the number of ones it moves the optimum.
      axis_name: mapped axis (or axes) over which the batch is split; the sums are those of the whole batch.

    Shapes: scores, labels and step_mask `[B, T]`, valid `[B]`; result float32 `[B, T]`, at most 1.

    Raises:
      AssertionError: shapes do not agree, an array not floating, masks not bool.
      ValueError: static smoothing out of range.

    Paper: Li et al., 2019, arXiv 1911.02855, who write it for one token (a set of one token here); their code
      takes the sums over the whole batch, as here, with g = 1e-4 by default.
    """
    scores, labels = _tokens(token_scores, step_labels, step_mask)
    _check_dice(smoothing)
    counts, total = _of_the_set(step_mask, valid, axis_name)
    p = jax.nn.sigmoid(scores)
    denominator = total(jnp.square(p)) + total(jnp.square(labels)) + smoothing
    return keep(jnp.broadcast_to(1 - _ratio(2 * total(p * labels) + smoothing, denominator), counts.shape), counts)


def self_adjusting_dice_loss(
    token_scores: Array,
    step_labels: Array,
    step_mask: Array,
    valid: Array,
    *,
    smoothing: float = 1.0,
    alpha: float = 1.0,
    axis_name: Any = None,
) -> Array:
    """Dice loss that looks away from what is easy: 1 - (2 sum q y + g) / (sum q + sum y + g), q = (1 - p)^alpha p.

    Args:
      token_scores, step_labels, step_mask, valid, smoothing, axis_name: as in `dice_loss`.
      alpha: in [0, inf); 0 is Dice with a linear denominator. The paper writes 1, the authors' code has 0 by default.

    Shapes: scores, labels and step_mask `[B, T]`, valid `[B]`; result float32 `[B, T]`, at most 1.

    Raises:
      AssertionError: shapes do not agree, an array not floating, masks not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Li et al., 2019, arXiv 1911.02855; sums over the whole batch as in their code.
    """
    scores, labels = _tokens(token_scores, step_labels, step_mask)
    _check_dice(smoothing)
    checks.number("alpha", alpha, 0.0, closed="left")
    counts, total = _of_the_set(step_mask, valid, axis_name)
    q = _self_adjusted(scores, alpha)
    loss = 1 - _ratio(2 * total(q * labels) + smoothing, total(q) + total(labels) + smoothing)
    return keep(jnp.broadcast_to(loss, counts.shape), counts)


def tversky_loss(
    token_scores: Array,
    step_labels: Array,
    step_mask: Array,
    valid: Array,
    *,
    smoothing: float = 1.0,
    false_positives: float = 0.5,
    false_negatives: float = 0.5,
    axis_name: Any = None,
) -> Array:
    """Tversky loss: 1 - (sum p y + g) / (sum p y + a sum p (1 - y) + b sum (1 - p) y + g).

    With a = b = 1/2 it is Dice with a linear denominator and twice the smoothing.

    Args:
      token_scores, step_labels, step_mask, valid, smoothing, axis_name: as in `dice_loss`.
      false_positives, false_negatives: a and b, the price of each, in [0, inf).

    Shapes: scores, labels and step_mask `[B, T]`, valid `[B]`; result float32 `[B, T]`, at most 1.

    Raises:
      AssertionError: shapes do not agree, an array not floating, masks not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Li et al., 2019, arXiv 1911.02855; sums over the whole batch as in their code.
    """
    scores, labels = _tokens(token_scores, step_labels, step_mask)
    _check_dice(smoothing)
    checks.number("false_positives", false_positives, 0.0, closed="left")
    checks.number("false_negatives", false_negatives, 0.0, closed="left")
    counts, total = _of_the_set(step_mask, valid, axis_name)
    p = jax.nn.sigmoid(scores)
    right = total(p * labels)
    wrong = false_positives * total(p * (1 - labels)) + false_negatives * total((1 - p) * labels)
    loss = 1 - _ratio(right + smoothing, right + wrong + smoothing)
    return keep(jnp.broadcast_to(loss, counts.shape), counts)


def self_adjusting_dice_loss_per_token(
    token_scores: Array, step_labels: Array, step_mask: Array, *, smoothing: float = 1.0, alpha: float = 1.0
) -> Array:
    """The self-adjusting Dice loss of each token by itself: 1 - (2 q y + g) / (q + y + g), q = (1 - p)^alpha p.

    As the paper writes it; it adds over micro-batches. A token of label 0 hardly pulls when g is small.

    Args:
      token_scores, step_labels, step_mask, smoothing, alpha: as in `self_adjusting_dice_loss`.

    Shapes: all `[..., T]`, usually `[B, T]`; result float32 `[..., T]`, at most 1; 0 where the mask is False.

    Raises:
      AssertionError: shapes differ, an array not floating, or mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Li et al., 2019, arXiv 1911.02855.
    """
    scores, labels = _tokens(token_scores, step_labels, step_mask)
    _check_dice(smoothing)
    checks.number("alpha", alpha, 0.0, closed="left")
    q = _self_adjusted(scores, alpha)
    return keep(1 - _ratio(2 * q * labels + smoothing, q + labels + smoothing), step_mask)


def focal_tagging_loss(token_scores: Array, step_labels: Array, step_mask: Array, *, gamma: float = 2.0) -> Array:
    """Focal loss of each labelled token: -(1 - p_t)^gamma log p_t, p_t the probability of the label it has.

    Between the two labels' losses in proportion for a label between 0 and 1. gamma = 0 is cross-entropy.

    Args:
      token_scores, step_labels, step_mask: as in `dice_loss`.
      gamma: in [0, inf).

    Shapes: all `[..., T]`, usually `[B, T]`; result float32 `[..., T]`, in nats; 0 where the mask is False.

    Raises:
      AssertionError: shapes differ, an array not floating, or mask not bool.
      ValueError: static gamma out of range.

    Paper: Lin et al., 2017, arXiv 1708.02002; the loss that Li et al., 2019, arXiv 1911.02855 compare theirs with.
    """
    scores, labels = _tokens(token_scores, step_labels, step_mask)
    checks.number("gamma", gamma, 0.0, closed="left")

    def of_label(z: Array) -> Array:  # z the log-odds of the label
        return jnp.exp(-gamma * jax.nn.softplus(z)) * jax.nn.softplus(-z)

    return keep(labels * of_label(scores) + (1 - labels) * of_label(-scores), step_mask)
