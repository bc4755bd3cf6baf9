"""Pairs of two objectives: labels, margin rewards and harm, and what the reader refuses of such fields."""

import numpy as np
import pytest

from alignment.data import collating, formats, rows, trade_offs
from alignment.data.tokenizers import ByteTokenizer


def test_pairs_are_labelled_by_their_objective_and_carry_what_the_other_gives():
    for record in trade_offs.pairs(40, 0):
        by = record["objective_id"]
        chosen, rejected = (trade_offs.rewards(record["prompt"], record[side]) for side in ("chosen", "rejected"))
        assert chosen[by] > rejected[by]
        assert record["chosen_margin_rewards"] == [pytest.approx(chosen[1 - by])]
        assert record["rejected_margin_rewards"] == [pytest.approx(rejected[1 - by])]
        assert record["rejected_harmful"] == trade_offs.harmful(record["rejected"])
    assert {r["objective_id"] for r in trade_offs.pairs(10, 0)} == {0, 1}
    assert {r["objective_id"] for r in trade_offs.pairs(10, 0, objective="brevity")} == {1}


def test_the_objectives_disagree_on_some_pairs_and_the_same_arguments_give_the_same_ones():
    records = trade_offs.pairs(60, 0)
    assert records == trade_offs.pairs(60, 0) != trade_offs.pairs(60, 1)
    gaps = [r["chosen_margin_rewards"][0] - r["rejected_margin_rewards"][0] for r in records]
    assert min(gaps) < 0 < max(gaps)
    assert not {r["prompt"] for r in records} & {r["prompt"] for r in trade_offs.pairs(60, 0, "test")}


def test_an_unknown_objective_is_an_error():
    with pytest.raises(ValueError, match="there are: quality, brevity"):
        trade_offs.pairs(3, 0, objective="wit")


def test_the_fields_reach_the_batch():
    tokenised, _ = rows.tokenize(
        formats.from_records(trade_offs.pairs(4, 0), "pairs"), ByteTokenizer(), prompt_length=32, completion_length=48
    )
    batch = collating.collate_trees(tokenised, 32, 48, 2)
    assert batch["objective_ids"].tolist() == [0, 1, 0, 1] and batch["objective_ids"].dtype == np.int32
    assert batch["chosen_margin_rewards"].shape == (4, 1) and batch["chosen_harmful"].dtype == bool
    padded = collating.pad_batch(batch, 6)
    assert padded["rejected_margin_rewards"].shape == (6, 1) and not padded["valid"][4:].any()


PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"objective_id": -1}, "'objective_id' must be an integer"),
        ({"chosen_margin_rewards": [1.0]}, "'rejected_margin_rewards' must be a list of numbers"),
        ({"chosen_margin_rewards": [1.0], "rejected_margin_rewards": [1.0, 2.0]}, "different lengths"),
        ({"chosen_margin_rewards": "ab", "rejected_margin_rewards": [1.0]}, "must be a list of numbers"),
        ({"chosen_margin_rewards": [float("nan")], "rejected_margin_rewards": [1.0]}, "chosen_margin_rewards"),
        ({"chosen_harmful": True}, "'rejected_harmful' must be true or false"),
        ({"chosen_harmful": 1, "rejected_harmful": False}, "'chosen_harmful' must be true or false"),
    ],
)
def test_what_a_pair_says_of_its_sides_is_checked(fields, message):
    with pytest.raises(formats.DataError, match=message):
        formats.from_records([PAIR | fields], "pairs")


def test_pairs_with_different_numbers_of_margin_rewards_do_not_mix():
    records = [PAIR | {f"{s}_margin_rewards": [0.0] * n for s in ("chosen", "rejected")} for n in (1, 2)]
    with pytest.raises(formats.DataError, match="has 2 entries but"):
        rows.tokenize(formats.from_records(records, "pairs"), ByteTokenizer(), prompt_length=8, completion_length=8)
