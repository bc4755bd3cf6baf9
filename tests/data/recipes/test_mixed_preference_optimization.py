"""The split of pairs by reward gap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.data import formats
from alignment.data.recipes import mixed_preference_optimization as recipe

CHOSEN, REJECTED = np.array([2.0, 0.0, 1.0, -1.0]), np.array([0.0, 0.5, 1.0, 3.0])  # gaps 2, 0.5, 0, 4


@pytest.mark.parametrize(
    ("gamma", "easy"),
    [(0.0, [1, 1, 0, 1]), (0.5, [1, 0, 0, 1]), (1.0, [1, 0, 0, 1]), (2.0, [0, 0, 0, 1]), (9.0, [0, 0, 0, 0])],
)
def test_easy_is_a_gap_above_gamma_whichever_side_is_ahead(gamma, easy):
    assert recipe.mpo_split(CHOSEN, REJECTED, gamma=gamma)[0].tolist() == [bool(x) for x in easy]


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=9), st.floats(0, 9))
def test_the_two_sets_partition_the_data(pairs, gamma):
    easy, difficult = recipe.mpo_split(*np.array(pairs).T, gamma=gamma)
    assert (easy ^ difficult).all()


def test_gamma_below_the_smallest_gap_is_plain_dpo_and_infinity_leaves_stage_one_empty():
    assert recipe.mpo_split(CHOSEN[[0, 1, 3]], REJECTED[[0, 1, 3]], gamma=0.4)[0].all()
    assert not recipe.mpo_split(CHOSEN, REJECTED, gamma=float("inf"))[0].any()


def test_a_pair_whose_score_is_not_a_number_is_refused_and_not_called_difficult():
    with pytest.raises(ValueError, match="finite"):
        recipe.mpo_split([1.0, np.nan], [0.0, 0.0], gamma=1.0)
    with pytest.raises(ValueError, match="one shape"):
        recipe.mpo_split([1.0], [0.0, 0.0], gamma=1.0)
    for gamma in (-1.0, float("nan")):
        with pytest.raises(ValueError, match=r"gamma must lie in \[0, inf\]"):
            recipe.mpo_split([1.0], [0.0], gamma=gamma)


@pytest.mark.parametrize("message", [False, True])
def test_records_split_into_pairs_and_prompts_each_once(message):
    def prompt(name):
        return [{"role": "user", "content": name}] if message else name

    def answer(name):
        return [{"role": "assistant", "content": name}] if message else name

    pairs = [
        {"prompt": prompt(n), "chosen": answer("a"), "rejected": answer("b"), "chosen_score": c, "rejected_score": 0.0}
        for n, c in (("x", 2.0), ("y", 0.1), ("y", -0.2), ("x", -3.0))
    ]
    easy, prompts, counts = recipe.records(pairs, gamma=1.0)
    assert len(formats.from_records(easy, "pairs")) == 2 and "chosen_score" not in easy[0]
    assert prompts == [{"prompt": prompt("y")}]
    assert counts == {"pairs_read": 4, "easy_pairs": 2, "difficult_pairs": 2, "difficult_prompts": 1}
