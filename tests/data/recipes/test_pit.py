"""PIT's data: the answer to be improved is shown, and the four ordered pairs stand where the loss looks for them."""

import numpy as np
import pytest

from alignment import losses, policy_gradients
from alignment.data import corpus, formats
from alignment.data.recipes import on_corpus, pit

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


def test_the_reward_model_reads_the_new_answer_against_the_one_that_was_shown():
    first, second = pit.pit_tasks(PAIRS)
    assert (first["prompt"], first["demonstration"]) == ("Say it. badly\n", "well")
    # As in the lists: what is written stands first.
    assert pit.gap_input(first["prompt"], "well", first) == ("Say it. ", "well\nbadly")
    assert pit.gap_input(second["prompt"], "b", second) == ("And? ", "b\nb")
    with pytest.raises(ValueError, match="no text 'shown'; make prompts by `make_data pit --what=tasks`"):
        pit.gap_input("p", "c", {"question": "q"})


def test_in_the_second_stage_every_sample_is_shown():
    tasks = pit.pit_tasks_of_samples([{"prompt": "And? ", "responses": ["x", "y"]}])
    assert [t["prompt"] for t in tasks] == ["And? x\n", "And? y\n"]
    assert [pit.gap_input(t["prompt"], "z", t) for t in tasks] == [("And? ", "z\nx"), ("And? ", "z\ny")]


def test_a_gap_that_is_a_difference_of_rewards_has_the_advantages_of_the_reward():
    """What is shown is the same for a whole group: it is a baseline, and the policy gradient is that of RLHF."""
    tasks, _ = on_corpus.records("pit_tasks", 3, 0, "train")
    rng = np.random.default_rng(0)
    gaps, rewards = [], []
    for task in tasks:
        texts = [corpus.demonstration(task["question"], rng) for _ in range(4)]
        gaps += [on_corpus.gold_gap(task["prompt"], text, task) for text in texts]
        rewards += [corpus.gold_reward(task["question"], text) for text in texts]
    assert not np.allclose(gaps, rewards)
    groups, valid = np.repeat(np.arange(3), 4), np.ones(12, bool)
    of_gaps, of_rewards = (
        policy_gradients.grpo_advantages(np.asarray(r, np.float32), groups, valid) for r in (gaps, rewards)
    )
    np.testing.assert_allclose(of_gaps, of_rewards, atol=1e-4)
