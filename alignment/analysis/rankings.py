"""What the exact optimum of DPO (and of RLHF, which shares it) would rank first, given the reference and the raters."""

import jax
import jax.numpy as jnp

from alignment import checks

Array = jax.Array


def idealized_log_ratio(
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    preference_proportions: Array,
    *,
    beta: float = 0.1,
    floor: float = 1e-3,
) -> Array:
    """log pi*(y_w|x) - log pi*(y_l|x) of the optimum: the reference's plus log(alpha / (1 - alpha)) / beta.

    alpha is the share of raters who prefer y_w. The optimum moves the reference by a fixed amount only, so a pair that
    the reference ranks wrongly by more than log(alpha / (1 - alpha)) / beta stays wrong at the exact optimum.

    Args:
      reference_chosen_logps, reference_rejected_logps: summed log-probs under the reference; averaged over tokens they
        give the paper's length-normalised version.
      preference_proportions: alpha, in [0, 1].
      beta: of the run, in (0, inf); the official script reports 0.01, 0.1, 1, 5 and 10, because it is often unknown.
      floor: of alpha and of 1 - alpha each, in (0, 1/2): a unanimous pair counts as odds of 1 / floor.

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or an array is not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Chen et al., 2024, Preference Learning Algorithms Do Not Learn Preference Rankings, arXiv 2405.19534. The
    official `rlhf_minimizer_client.py` works with perplexities and calls two outputs tied whose ratio of probabilities
    is within 0.05 of 1; the paper's formula, which does not, is followed.
    """
    chosen, rejected, alpha = checks.floats(
        reference_chosen_logps=reference_chosen_logps,
        reference_rejected_logps=reference_rejected_logps,
        preference_proportions=preference_proportions,
    )
    checks.number("beta", beta, 0.0)
    checks.number("floor", floor, 0.0, 0.5)
    log_odds = jnp.log(jnp.maximum(alpha, floor)) - jnp.log(jnp.maximum(1 - alpha, floor))
    return chosen - rejected + log_odds / beta


def roc_auc(scores: Array, labels: Array) -> Array:
    """Area under the ROC curve: how often an example of label True scores above one of label False, ties counting 1/2.

    Every example is compared with every other, which is for evaluation sets of thousands, not of millions.

    Args:
      scores: any monotone score of the label, such as log p("yes" | "yes" or "no").
      labels: bool.

    Shapes: both `[..., N]`; result float32 `[...]`, in [0, 1]; NaN where all labels are alike.

    Raises:
      AssertionError: shapes differ, scores not floating, or labels not bool.

    Paper: Zhong et al., 2021, Adapting Language Models for Zero-shot Learning by Meta-tuning on Dataset and Prompt
    Collections, arXiv 2104.04670, whose metric it is for each unseen label description.
    """
    (scores,) = checks.floats(scores=scores)
    checks.boolean(labels=labels)
    checks.same_shape(scores=scores, labels=labels)
    above = jnp.sign(scores[..., :, None] - scores[..., None, :]) / 2 + 0.5
    compared = (labels[..., :, None] & ~labels[..., None, :]).astype(scores.dtype)
    return jnp.sum(above * compared, axis=(-2, -1)) / jnp.sum(compared, axis=(-2, -1))
