"""FActScore and IFEval: means of means, abstentions, penalties; strict within loose."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment import evaluation as ev
from alignment.rewards import claims, instructions

SUPPORTED = [[True, False], [True] * 4, None, [False, False, False, True], []]


def test_without_the_penalty_it_is_the_mean_of_means():
    got = ev.factscore(SUPPORTED, gamma=0)
    assert got.score == got.precision == pytest.approx((0.5 + 1 + 0.25) / 3)  # pooled it would be 6 / 10
    assert got.respond_ratio == pytest.approx(3 / 5) and got.claims_per_answer == pytest.approx(10 / 3) and got.n == 5


def test_abstentions_never_enter_the_score():
    got, more = ev.factscore(SUPPORTED), ev.factscore([*SUPPORTED, None, None])
    assert got.score == more.score and got.precision == more.precision and more.respond_ratio == pytest.approx(3 / 7)


def test_the_penalty():
    assert ev.length_penalty(10) == ev.length_penalty(11) == ev.length_penalty(1, gamma=0) == 1
    assert ev.length_penalty(5) == pytest.approx(math.exp(-1))
    got = ev.factscore([[True] * 10, [True] * 5, [True] * 2])
    assert got.score == pytest.approx((1 + math.exp(-1) + math.exp(-4)) / 3) and got.precision == 1


def test_a_model_that_never_answers_has_no_score():
    got = ev.factscore([None, []])
    assert got.respond_ratio == 0 and np.isnan([got.score, got.precision, got.claims_per_answer]).all()


def test_rules_split_and_verify():
    text = "Lima is a city. The Moon is made of cheese."
    record = {"knowledge": "The capital of Peru, Lima is a City; it lies near the sea."}
    found = claims.sentences("", text, record)
    assert found == ["Lima is a city.", "The Moon is made of cheese."]
    assert [claims.stated_in_knowledge("", c, record) for c in found] == [True, False]
    assert claims.sentences("", "I do not know. Lima is a city.", record) == []
    assert not claims.stated_in_knowledge("", "a cit", record)  # whole words


@settings(max_examples=20)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=8))
def test_a_prompt_is_followed_no_more_often_than_its_instructions(followed):
    got = ev.ifeval(followed, [[True] * 3] * len(followed))
    assert got.prompt_strict <= got.instruction_strict + 1e-12
    assert got.prompt_strict <= got.prompt_loose == got.instruction_loose == 1
    single = [one[:1] for one in followed]
    got = ev.ifeval(single, single)
    assert got.prompt_strict == got.instruction_strict == got.prompt_loose


def test_strict_is_within_loose_on_real_verdicts():
    record = {"instruction_id_list": ["startend:start_checker", "punctuation:no_comma"],
              "kwargs": [{"starter": "Yes"}, {}]}  # fmt: skip
    for text in ("Yes it is.", "Sure:\nYes it is.", "**Yes** it is.", "Yes, it is.", ""):
        strict, loose = instructions.followed(text, record), instructions.followed_loosely(text, record)
        assert all(not s or k for s, k in zip(strict, loose, strict=True))
    got = ev.ifeval([[True, False], [False, False]], [[True, True], [True, False]])
    assert got == (0, 0.25, 0.5, 0.75, 2)


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: ev.factscore([]), "at least one prompt"),
        (lambda: ev.factscore([[0.5]]), "prompt 0 must be true or false"),
        (lambda: ev.factscore([[True]], gamma=-1), "gamma must lie in"),
        (lambda: ev.length_penalty(0), "claims must be"),
        (lambda: ev.ifeval([[]], [[]]), "prompt 0 has 0 strict and 0 loose"),
        (lambda: ev.ifeval([[True]], [[True, True]]), "1 strict and 2 loose"),
        (lambda: ev.ifeval([[True]], []), "lengths differ"),
        (lambda: ev.ifeval([], []), "at least one prompt"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
