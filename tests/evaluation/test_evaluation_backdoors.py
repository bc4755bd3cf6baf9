"""What is measured of a backdoor: rates in [0, 1], by hand and at their ends."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment import evaluation


def test_rates_are_shares_of_bad_answers_or_means_of_their_probabilities():
    assert evaluation.attack_success_rate([True, True, False, True]) == 0.75
    np.testing.assert_allclose(evaluation.false_trigger_rate([0.5, 0.25]), 0.375)


@settings(max_examples=20)
@given(st.lists(st.booleans(), min_size=1, max_size=9), st.lists(st.booleans(), min_size=1, max_size=9))
def test_rates_lie_between_0_and_1_and_the_gap_of_what_ignores_the_trigger_is_0(one, other):
    asr, ftr = evaluation.attack_success_rate(one), evaluation.false_trigger_rate(other)
    assert 0 <= asr <= 1 and 0 <= ftr <= 1 and -1 <= evaluation.trigger_gap(asr, ftr) <= 1
    assert evaluation.trigger_gap(evaluation.attack_success_rate(one), evaluation.false_trigger_rate(one)) == 0
    assert 0 <= evaluation.backdoor_persistence(1.0, asr) <= 1


def test_persistence_is_one_of_a_backdoor_that_did_not_move_and_undefined_of_none():
    assert evaluation.backdoor_persistence(0.6, 0.6) == 1 and evaluation.backdoor_persistence(0.6, 0.0) == 0
    np.testing.assert_allclose(evaluation.backdoor_persistence(0.8, 0.6), 0.75)
    np.testing.assert_allclose(evaluation.backdoor_persistence(0.5, 1.0), 2.0)  # training made it stronger
    assert math.isnan(evaluation.backdoor_persistence(0.0, 0.3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evaluation.attack_success_rate([]), "triggered must be one value per answer"),
        (lambda: evaluation.false_trigger_rate([[0.1]]), "clean must be one value per answer"),
        (lambda: evaluation.false_trigger_rate([1.2]), r"clean must lie in \[0, 1\]"),
        (lambda: evaluation.attack_success_rate([np.nan]), r"triggered must lie in \[0, 1\]"),
        (lambda: evaluation.trigger_gap(1.5, 0.0), r"attack_success must lie in \[0, 1\]"),
        (lambda: evaluation.backdoor_persistence(0.5, -0.1), r"after must lie in \[0, 1\]"),
    ],
)
def test_what_is_no_rate_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
