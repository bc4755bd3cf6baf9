"""Control tokens in prompts: a tokenizer that puts them there, and rows whose sides have a set each.

Their embeddings are in `alignment.models.control_tokens`. Numbers from `vocab_size` on are control tokens, set by set.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from alignment.data.rows import Tokenized


class ControlTokenizer:
    """A tokenizer whose prompts begin with the control tokens of one set, the first unless told otherwise.

    Whatever encodes a prompt with it, a sampler for one, asks for the answers that the set was learned on.
    """

    def __init__(self, tokenizer: Any, length: int, number: int = 0):
        self._tokenizer = tokenizer
        first = tokenizer.vocab_size + number * length
        self.control_ids = list(range(first, first + length))

    def __getattr__(self, name: str) -> Any:
        if name == "_tokenizer":  # of a copy that is not filled yet
            raise AttributeError(name)
        return getattr(self._tokenizer, name)

    def prefix_ids(self, chat: bool) -> list[int]:
        return [*self._tokenizer.prefix_ids(chat), *self.control_ids]

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode([i for i in ids if i < self._tokenizer.vocab_size])

    def pieces(self) -> dict[str, int]:
        return self._tokenizer.pieces() | {f"control {i}": number for i, number in enumerate(self.control_ids)}


def with_set_for_each_side(example: Tokenized, vocab_size: int, length: int) -> Tokenized:
    """The example, whose prompt has the first set's tokens, with a prompt for each side: that of side s has set s's.

    An example of one side stays as it is. ValueError for one that has several prompts already.
    """
    if example.prompts is not None:
        raise ValueError(f"{example.where}: control tokens go with one prompt, and this example has several")
    if len(example.completions) == 1:
        return example
    sides = range(len(example.completions))
    prompts = tuple(np.where(example.prompt >= vocab_size, example.prompt + s * length, example.prompt) for s in sides)
    return dataclasses.replace(example, prompts=prompts)
