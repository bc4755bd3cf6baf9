"""Losses of process reward models: every step of a solution has a label, at the last token of its separator."""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep, masked_sum

Array = jax.Array


def _step_log_odds(token_head_scores: Array, step_labels: Array, step_mask: Array) -> tuple[Array, Array]:
    """(log-odds of "right", labels), both 0 where no step ends."""
    (scores,) = checks.floats(token_head_scores=token_head_scores)
    (labels,) = checks.floats(step_labels=step_labels)
    checks.boolean(step_mask=step_mask)
    checks.same_shape(step_labels=labels, step_mask=step_mask)
    if scores.shape != (*labels.shape, 2):
        raise AssertionError(
            f"token_head_scores must have shape {(*labels.shape, 2)} to go with step_labels {labels.shape}, got "
            f"{scores.shape}"
        )
    scores = jnp.where(step_mask[..., None], scores, 0.0)
    return scores[..., 1] - scores[..., 0], jax.lax.stop_gradient(keep(labels, step_mask))


def _soft_cross_entropy(log_odds: Array, labels: Array) -> Array:
    return labels * jax.nn.softplus(-log_odds) + (1 - labels) * jax.nn.softplus(log_odds)


def prm_step_loss(token_head_scores: Array, step_labels: Array, step_mask: Array) -> Array:
    """Process reward model as token classification: -(y log p_1 + (1 - y) log p_0) where a step ends, 0 elsewhere.

    p = softmax of the two heads. With the reduction `token_mean`, whose mask is `step_mask`, the loss is the mean over
    all labelled positions of the *batch*, as in the public code: long solutions weigh more than short ones, unlike in
    `prm_value_loss`.

    Args:
      token_head_scores: (z_0, z_1) at every completion token, read at the token itself. Trained.
      step_labels: y in [0, 1]; soft ones are the share of rollouts from that step that reach the right answer
        (Math-Shepherd). Held fixed.
      step_mask: bool, True at the last token of each step's separator.

    Shapes: scores `[..., T, 2]`, the others `[..., T]`; result float32 `[..., T]`, in nats.

    Raises:
      AssertionError: shapes do not go together or a dtype is wrong.

    Paper: Lightman et al., 2023, arXiv 2305.20050; soft labels: Wang et al., 2023 (Math-Shepherd), arXiv 2312.08935.
    TRL's `prm_trainer.py` agrees on hard labels.
    """
    log_odds, labels = _step_log_odds(token_head_scores, step_labels, step_mask)
    return keep(_soft_cross_entropy(log_odds, labels), step_mask)


def prm_last_step_loss(token_head_scores: Array, step_labels: Array, step_mask: Array) -> Array:
    """`prm_step_loss` with every label but the last step's ignored: an outcome model in the form of a process model.

    Args:
      token_head_scores: (z_0, z_1) at every completion token. Trained at the last step.
      step_labels: y in [0, 1]. Held fixed.
      step_mask: bool, True at the last token of each step's separator.

    Shapes: scores `[..., T, 2]`, the others `[..., T]`; result float32 `[...]`, in nats; 0 where no step ends.

    Raises:
      AssertionError: shapes do not go together or a dtype is wrong.

    Paper: Lightman et al., 2023, arXiv 2305.20050; `train_on_last_step_only` of TRL's `prm_trainer.py`.
    """
    log_odds, labels = _step_log_odds(token_head_scores, step_labels, step_mask)
    last = step_mask & (_steps_after(step_mask) == 0)
    return masked_sum(_soft_cross_entropy(log_odds, labels), last)


def _steps_after(step_mask: Array) -> Array:
    """How many steps end after each position. Shapes: `[..., T]` bool to `[..., T]` int."""
    counts = step_mask.astype(jnp.int32)
    return jnp.sum(counts, axis=-1, keepdims=True) - jnp.cumsum(counts, axis=-1)


def prm_value_loss(
    token_scores: Array, step_labels: Array, step_mask: Array, correct: Array, *, gamma: float = 0.9
) -> Array:
    """A value head on steps with hindsight: mean over a solution's steps of (v_t - target_t)^2.

        target_t = s_t + gamma^(T - t) * z,  s_t the step's label, z = 1 if the solution is right, T its last step

    The target can exceed 1: the head has no sigmoid. Every solution weighs the same, however many steps it has; one
    without steps is worth 0.

    Args:
      token_scores: v, the scalar head at every completion token. Trained.
      step_labels: s. Held fixed.
      step_mask: bool, True at the last token of each step's separator.
      correct: bool, z.
      gamma: in [0, 1]; at 0 only the last step sees the outcome.

    Shapes: the first three `[..., T]`, `correct` `[...]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes do not go together or a dtype is wrong.
      ValueError: static gamma out of range.

    Paper: Shen et al., 2025, arXiv 2510.01167. The public value script consumes targets made elsewhere; the target is
    the paper's, the loss and gamma are confirmed by the script. There the trunk is frozen and the head has two layers.
    """
    scores, labels = checks.floats(token_scores=token_scores, step_labels=step_labels)
    checks.boolean(step_mask=step_mask, correct=correct)
    checks.same_shape(token_scores=scores, step_mask=step_mask)
    checks.leading_shape(correct=correct, step_mask=step_mask)
    checks.number("gamma", gamma, 0.0, 1.0, closed="both")
    after = _steps_after(step_mask)
    # gamma ** 0 is 1, for gamma = 0 too; a zero base under a positive power has a finite slope.
    discount = jnp.where(after == 0, 1.0, jnp.power(jnp.asarray(gamma, scores.dtype), jnp.maximum(after, 1)))
    targets = jax.lax.stop_gradient(keep(labels, step_mask) + discount * correct[..., None])
    squared = jnp.square(keep(scores, step_mask) - targets)
    return masked_sum(squared, step_mask) / jnp.maximum(step_mask.sum(axis=-1), 1)
