"""Completions in segments: what each token carries, from the record to the batch."""

import numpy as np
import pytest

from alignment.data import collating, formats, rows
from alignment.data.tokenizers import ByteTokenizer

TOKENIZER = ByteTokenizer()
EOS = TOKENIZER.eos_id
RECORD = {
    "prompt": "p",
    "segments": ["ab", "c", "de"],
    "rewards": [-1.0, 0.5, 0.0],
    "trained": [True, False, True],
    "ended": [True, False, True],
}


def batch_of(*records, completion_length=8, too_long="error"):
    examples = formats.from_records(records, "segments")
    tokenised, _ = rows.tokenize(examples, TOKENIZER, prompt_length=4, completion_length=completion_length,
                                 too_long=too_long)  # fmt: skip
    return collating.collate_trees(tokenised, 4, completion_length, 1)


def test_tokens_carry_the_reward_and_the_role_of_their_segment():
    batch = batch_of(RECORD)
    assert batch["targets"][0, 0].tolist() == [97, 98, EOS, 99, 100, 101, EOS, 0]
    assert batch["token_rewards"][0, 0].tolist() == [-1.0, -1.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0]
    assert batch["trained_mask"][0, 0].tolist() == [True, True, True, False, True, True, True, False]
    assert batch["mask"][0, 0].tolist() == [True] * 7 + [False]


def test_a_completion_of_one_segment_is_a_plain_completion():
    alone = batch_of({"prompt": "p", "segments": ["abc"]})
    plain, _ = rows.tokenize(formats.from_records([{"prompt": "p", "completion": "abc"}], "completion"), TOKENIZER,
                             prompt_length=4, completion_length=8)  # fmt: skip
    plain = collating.collate_trees(plain, 4, 8, 1)
    assert alone.keys() == plain.keys()
    for key in alone:
        np.testing.assert_array_equal(alone[key], plain[key])


def test_a_completion_that_is_cut_carries_as_much_as_is_left():
    batch = batch_of(RECORD, completion_length=4, too_long="truncate")
    assert batch["token_rewards"][0, 0].tolist() == [-1.0, -1.0, 0.0, 0.5]


@pytest.mark.parametrize(
    "change,message",
    [
        ({"rewards": [1.0]}, "'rewards' has 1 entries for 3 segments"),
        ({"trained": [True, 1, False]}, r"'trained\[1\]' must be true or false"),
        ({"trained": [False] * 3}, "at least one segment must be learnt"),
        ({"segments": ["a", "", "b"]}, r"'segments\[1\]' must be text that is not empty"),
        ({"segments": [" ", "\n", " "]}, "no visible character"),
        ({"prompt": " "}, "'prompt' must be text with a visible character"),
    ],
)
def test_what_is_wrong_with_a_record_is_said(change, message):
    with pytest.raises(formats.DataError, match=f"records:1: field {message}" if message[0] == "'" else message):
        formats.from_records([RECORD | change], "segments")


def test_all_records_carry_rewards_or_none():
    with pytest.raises(formats.DataError, match="'rewards' is in some records alone"):
        batch_of(RECORD, {k: v for k, v in RECORD.items() if k != "rewards"})


def test_packed_rows_have_no_place_for_what_tokens_carry():
    tokenised, _ = rows.tokenize(
        formats.from_records([RECORD], "segments"), TOKENIZER, prompt_length=4, completion_length=8
    )
    with pytest.raises(ValueError, match="nor for segments"):
        collating.pack(tokenised, 32)
