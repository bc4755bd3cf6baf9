"""Rule rewards beside the main one: a cosine schedule of length by correctness, and a penalty of repetition.

The third of the family, DAPO's soft overlong punishment, is `alignment.policy_gradients.overlong_shaping` (by tokens)
and `alignment.rewards.verifiable.soft_length_limit` (by text).
"""

import jax
import jax.numpy as jnp
import numpy as np

from alignment import checks

Array = jax.Array


def cosine_length(
    lengths: Array,
    correct: Array,
    *,
    max_length: int = 1000,
    right_shortest: float = 1.0,
    right_longest: float = 0.5,
    wrong_shortest: float = -1.0,
    wrong_longest: float = -0.5,
) -> Array:
    """Short right answers earn most, long wrong ones lose least: half a cosine between the two ends.

        r(l) = longest + (shortest - longest) / 2 * (1 + cos(pi * min(l / max_length, 1)))

    Beyond `max_length` it stays where it is: an unclamped cosine would rise again.

    Args:
      lengths: i32, tokens of the completions.
      correct: bool.
      max_length: at least 1.
      right_shortest, right_longest, wrong_shortest, wrong_longest: rewards at length 0 and from `max_length` on.

    Shapes: both `[...]`; result float32 `[...]`.

    Paper: Yeo et al., 2025, arXiv 2502.03373. TRL's `get_cosine_scaled_reward` agrees.
    """
    checks.integers(lengths=lengths)
    checks.boolean(correct=correct)
    checks.same_shape(lengths=lengths, correct=correct)
    checks.positive_integer("max_length", max_length)
    progress = jnp.minimum(lengths.astype(jnp.float32) / max_length, 1.0)
    fraction = (1 + jnp.cos(jnp.pi * progress)) / 2
    shortest = jnp.where(correct, right_shortest, wrong_shortest)
    longest = jnp.where(correct, right_longest, wrong_longest)
    return longest + (shortest - longest) * fraction


def repetition_penalty(tokens, *, ngram: int = 3, max_penalty: float = -1.0) -> float:
    """max_penalty * (1 - distinct n-grams / n-grams) of a sequence of ids or words; 0 if it is shorter than n.

    Paper: Yeo et al., 2025, arXiv 2502.03373. TRL's `get_repetition_penalty_reward` agrees. Raises ValueError for a
    positive penalty or n below 1.
    """
    checks.positive_integer("ngram", ngram)
    checks.number("max_penalty", max_penalty, -np.inf, 0.0, closed="right")
    tokens = list(tokens)
    ngrams = [tuple(tokens[i : i + ngram]) for i in range(len(tokens) - ngram + 1)]
    return max_penalty * (1 - len(set(ngrams)) / len(ngrams)) if ngrams else 0.0


def repetition(prompt: str, completion: str, record) -> float:
    """`repetition_penalty` of the completion's words, as a reward of online runs; the record may say `ngram`."""
    return repetition_penalty(completion.lower().split(), ngram=record.get("ngram", 3))


def cosine_length_reward(prompt: str, completion: str, record) -> float:
    """`cosine_length` of a completion of a generated task, correctness by the task's own check.

    The record's `max_length` (default 48) is in bytes.
    """
    from alignment.rewards import tasks  # here, so that the arithmetic above needs no task

    right = tasks.reward(prompt, completion, record) >= 1.0
    size = np.int32(len(completion.encode("utf-8", errors="replace")))
    return float(cosine_length(size, np.bool_(right), max_length=int(record.get("max_length", 48))))
