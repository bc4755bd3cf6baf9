"""PIT's data: the answer to be improved is shown, and the four ordered pairs stand where the loss looks for them."""

import numpy as np

from alignment import losses
from alignment.data import formats
from alignment.data.recipes import pit

PAIRS = [
    {"prompt": "Say it. ", "chosen": "well", "rejected": "badly"},
    {"prompt": "And? ", "chosen": "a", "rejected": "b"},
]


def test_the_worse_answer_is_shown_and_the_better_written():
    first, second = formats.from_records(pit.pit_improvements(PAIRS), "completion", "here")
    assert (first.prompt, first.completion) == ("Say it. badly\n", "well")
    assert (second.prompt, second.completion) == ("And? b\n", "a")


def test_the_four_ordered_pairs_keep_their_order_when_read():
    (first, _) = formats.from_records(pit.pit_gap_lists(PAIRS), "lists", "here")
    assert list(first.responses) == ["well\nbadly", "well\nwell", "badly\nbadly", "badly\nwell"]


def test_a_reward_that_ranks_the_pairs_as_the_lists_say_has_less_loss_than_the_reverse():
    (first, _) = formats.from_records(pit.pit_gap_lists(PAIRS), "lists", "here")
    gaps = np.array([first.labels], np.float32)
    there = np.ones((1, 4, 1), bool)
    assert losses.pit_gap_loss(gaps, gaps, there) < losses.pit_gap_loss(-gaps, gaps, there)
