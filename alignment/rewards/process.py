"""Scores of reasoning steps as one score of the solution, and decoding that follows them.

Step scores `[..., T]` with a bool mask that is True where a step ends; results `[...]`, float32. A solution without
steps gets `worst`, the lowest score there is: 0 for probabilities.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from alignment import checks
from alignment.losses.masking import keep, masked_sum

Array = jax.Array


def _steps(step_scores: Array, step_mask: Array) -> Array:
    (scores,) = checks.floats(step_scores=step_scores)
    checks.boolean(step_mask=step_mask)
    checks.same_shape(step_scores=scores, step_mask=step_mask)
    return scores


def _or_worst(values: Array, step_mask: Array, worst: float) -> Array:
    return jnp.where(step_mask.any(axis=-1), values, worst)


def step_min(step_scores: Array, step_mask: Array, *, worst: float = 0.0) -> Array:
    """The score of the weakest step."""
    scores = _steps(step_scores, step_mask)
    return _or_worst(jnp.min(keep(scores, step_mask, jnp.inf), axis=-1), step_mask, worst)


def step_product(step_scores: Array, step_mask: Array, *, worst: float = 0.0) -> Array:
    """The probability that all steps are right, were they independent (Lightman et al., 2023, arXiv 2305.20050).

    A sum of logarithms, so that long solutions do not underflow before the end. Scores are probabilities.
    """
    scores = _steps(step_scores, step_mask)
    return _or_worst(jnp.exp(masked_sum(jnp.log(keep(scores, step_mask, 1.0)), step_mask)), step_mask, worst)


def step_last(step_scores: Array, step_mask: Array, *, worst: float = 0.0) -> Array:
    """The score of the last step."""
    scores = _steps(step_scores, step_mask)
    last = scores.shape[-1] - 1 - jnp.argmax(step_mask[..., ::-1], axis=-1)
    return _or_worst(jnp.take_along_axis(scores, last[..., None], axis=-1)[..., 0], step_mask, worst)


def step_mean(step_scores: Array, step_mask: Array, *, worst: float = 0.0) -> Array:
    """The mean score of the steps."""
    scores = _steps(step_scores, step_mask)
    return _or_worst(masked_sum(scores, step_mask) / jnp.maximum(step_mask.sum(axis=-1), 1), step_mask, worst)


def step_sum(step_scores: Array, step_mask: Array, *, worst: float = 0.0) -> Array:
    """The sum of the steps' scores, for value heads; it favours long solutions wherever steps score above 0."""
    return _or_worst(masked_sum(_steps(step_scores, step_mask), step_mask), step_mask, worst)


def guided_solution(
    prompt: str,
    propose: Callable[[str, Sequence[str], int], Sequence[str]],
    score: Callable[[str, Sequence[Sequence[str]]], np.ndarray],
    finished: Callable[[Sequence[str]], bool],
    *,
    candidates: int = 5,
    max_steps: int = 20,
) -> list[str]:
    """Steps of a solution, each the best of several proposals by the score of the solution so far.

    Args:
      prompt: the problem.
      propose: (prompt, steps so far, count) -> that many next steps, sampled from the policy.
      score: (prompt, partial solutions) -> one number each: a sum of step values, or any other score.
      finished: whether the steps so far end in an answer.
      candidates: C, at least 1; with one the policy samples as ever.
      max_steps: after which the solution ends, at least 1.

    Paper: Shen et al., 2025, arXiv 2510.01167. Of equal scores the first proposal is taken.
    """
    checks.positive_integer("candidates", candidates)
    checks.positive_integer("max_steps", max_steps)
    steps: list[str] = []
    while len(steps) < max_steps and not finished(steps):
        proposals = list(propose(prompt, steps, candidates))
        if len(proposals) != candidates:
            raise ValueError(f"propose gave {len(proposals)} steps in place of {candidates}")
        values = np.asarray(score(prompt, [[*steps, proposal] for proposal in proposals]))
        if values.shape != (candidates,) or not np.isfinite(values).all():
            raise ValueError(f"score must give {candidates} finite numbers, got {values}")
        steps.append(proposals[int(np.argmax(values))])
    return steps
