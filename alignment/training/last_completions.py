"""The last completion that was sampled for each prompt, with its log-probs: how far the policy has moved since.

A memory between iterations, and so a part of the train state. Its size is num_prompts times the length of a completion.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from alignment.training.rollouts import Rollout


class LastCompletions(NamedTuple):
    """A row per prompt of the data set; one that is all False in `mask` has no completion yet."""

    tokens: np.ndarray  # i32 [num_prompts, T]
    mask: np.ndarray  # bool [num_prompts, T]
    logps: np.ndarray  # f32 [num_prompts, T]


def init(num_prompts: int, length: int) -> LastCompletions:
    shape = (num_prompts, length)
    return LastCompletions(np.zeros(shape, np.int32), np.zeros(shape, bool), np.zeros(shape, np.float32))


def recall(state: LastCompletions, prompt_ids: np.ndarray) -> tuple[Rollout, np.ndarray]:
    """What was remembered of the prompts [B], and whether there was anything, bool [B]."""
    return Rollout(*(np.asarray(x)[prompt_ids] for x in state)), np.asarray(state.mask)[prompt_ids].any(axis=-1)


def remember(state: LastCompletions, prompt_ids: np.ndarray, rollout: Rollout, valid: np.ndarray) -> LastCompletions:
    """The state with these completions [B, T] in place; of several of one prompt the last valid one stays."""
    # Not by one assignment: which of several values for one place it keeps is not promised.
    last = {int(prompt): row for row, prompt in enumerate(prompt_ids) if valid[row]}
    places, rows = np.array(list(last), np.int64), np.array(list(last.values()), np.int64)
    new = LastCompletions(*(np.array(x) for x in state))
    for kept, given in zip(new, rollout[:3], strict=True):
        kept[places] = np.asarray(given)[rows]
    return new
