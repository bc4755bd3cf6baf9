"""Rewards for simplification: the grade's closed form, and a classifier that decides the order."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.rewards import readability
from alignment.rewards.readability import Simplicity, flesch_kincaid, flesch_kincaid_grade, syllables

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)
SOURCE = {"source": "The oncologist recommended immediate chemotherapy."}


def logit_of(text):
    return float(text)


def test_grade_of_one_word_in_one_sentence_of_one_syllable():
    # 0.39 * 1/1 + 11.8 * 1/1 - 15.59 = -3.40
    assert flesch_kincaid(1, 1, 1) == pytest.approx(-3.40)
    assert flesch_kincaid_grade("Go.") == pytest.approx(-3.40)


def test_grade_of_a_text_from_its_counts():
    # "The cat sat. It was happy." 6 words, 2 sentences, 7 syllables: 0.39 * 3 + 11.8 * 7/6 - 15.59
    assert flesch_kincaid_grade("The cat sat. It was happy.") == pytest.approx(1.17 + 11.8 * 7 / 6 - 15.59)


def test_text_without_words_is_no_simpler_than_one_short_word():
    for text in ("", " \n", "...", "!?"):
        assert flesch_kincaid_grade(text) == flesch_kincaid_grade("Go.")


@pytest.mark.parametrize("counts", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_counts_must_be_positive(counts):
    with pytest.raises(ValueError, match="at least 1"):
        flesch_kincaid(*counts)


@pytest.mark.parametrize(
    ("word", "count"),
    [("cat", 1), ("happy", 2), ("make", 1), ("table", 2), ("the", 1), ("chemotherapy", 5), ("rhythm", 1), ("free", 1),
     ("tsk", 1), ("3.5", 1)],
)  # fmt: skip
def test_syllables(word, count):
    assert syllables(word) == count


def test_readability_rewards():
    long, short = SOURCE["source"], "Start treatment now."
    assert readability.negative_grade("p", short, {}) == -flesch_kincaid_grade(short)
    gain = flesch_kincaid_grade(long) - flesch_kincaid_grade(short)
    assert readability.grade_reduction("p", short, SOURCE) == pytest.approx(gain) and gain > 0
    assert readability.grade_reduction(short, long, {}) == 0.0  # the prompt is the source; harder text gains nothing


@quick
@given(st.floats(-30, 30), st.floats(1e-3, 10), st.booleans())
def test_reward_rises_with_the_logit(logit, step, as_logit):
    reward = Simplicity(logit_of, content_weight=0.0, as_logit=as_logit)
    low, high = reward("p", str(logit), {}), reward("p", str(logit + step), {})
    assert low < high and (as_logit or 0 < low < high <= 1)


def test_logits_of_any_size_give_finite_rewards():
    reward = Simplicity(logit_of, content_weight=0.0)
    assert [reward("p", text, {}) for text in ("-1e4", "0", "1e4")] == [0.0, 0.5, 1.0]
    assert all(math.isfinite(readability.sigmoid(x)) for x in (-1e308, 1e308))


def test_the_reward_is_the_weighted_sum_of_classifier_and_content():
    reward = Simplicity(lambda text: 0.0, lambda source, text: 0.25, simplicity_weight=2.0, content_weight=4.0)
    assert reward("p", "x", {}) == 2.0 * 0.5 + 4.0 * 0.25


def test_the_content_term_sees_the_source_and_keeps_empty_completions_from_winning():
    reward = Simplicity(lambda text: -float(len(text)), simplicity_weight=0.5)  # prefers the shortest text there is
    assert reward("p", "chemotherapy now", SOURCE) > reward("p", "", SOURCE)
    alone = Simplicity(lambda text: -float(len(text)), content_weight=0.0)
    assert alone("p", "chemotherapy now", SOURCE) < alone("p", "", SOURCE)


@pytest.mark.parametrize(
    ("source", "text", "value"),
    [("a b c d", "a b c d", 1.0), ("a b c d", "A b", 2 / 3), ("a b", "a a a a", 1 / 3), ("a", "b", 0.0), ("a", "", 0.0),
     ("", "", 0.0)],
)  # fmt: skip
def test_word_overlap(source, text, value):
    assert readability.word_overlap(source, text) == pytest.approx(value)


@pytest.mark.parametrize("weights", [(-1.0, 1.0), (1.0, -0.1), (0.0, 0.0)])
def test_weights_must_not_be_negative_nor_both_zero(weights):
    with pytest.raises(ValueError, match="simplicity_weight and content_weight"):
        Simplicity(logit_of, simplicity_weight=weights[0], content_weight=weights[1])
