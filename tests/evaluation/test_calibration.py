"""Calibration of judges: extreme judges, closed forms, Murphy's parts, and no say of the order among ties."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment import evaluation as ev

JUDGED = st.lists(st.tuples(st.sampled_from([0.0, 0.3, 0.6, 0.9, 0.95, 1.0]), st.booleans()), min_size=2, max_size=15)


def test_perfect_and_certain_is_all_zero():
    got = ev.judge_calibration([1.0] * 5, [True] * 5)
    assert (got.ece, got.brier, got.aurc, got.accuracy, got.wrong_at_095) == (0, 0, 0, 1, 0)


def test_a_constant_confidence():
    correct = np.array([1, 1, 1, 0])
    got = ev.judge_calibration([0.9] * 4, correct)
    assert got.ece == pytest.approx(0.15) and got.brier == pytest.approx(0.75 * 0.01 + 0.25 * 0.81)
    assert got.wrong_at_080 == got.wrong_at_090 == pytest.approx(0.25) and np.isnan(got.wrong_at_095)
    assert got.aurc == pytest.approx(0.25 * 0.75)  # the risk is 1/4 at every coverage, from 1/4 to 1
    assert got.accuracy_low <= 0.75 <= got.accuracy_high


@settings(max_examples=20)
@given(JUDGED)
def test_murphys_parts_add_up(judged):
    confidences, correct = zip(*judged, strict=True)
    parts = ev.brier_parts(confidences, correct)
    total = parts.reliability - parts.resolution + parts.uncertainty
    assert ev.brier_score(confidences, correct) == pytest.approx(total, abs=1e-12)
    # By convexity no binning finds more than the reliability of the finest one.
    assert ev.expected_calibration_error(confidences, correct) ** 2 <= parts.reliability + 1e-12


@settings(max_examples=20)
@given(JUDGED)
def test_risk_coverage_depends_on_the_ordering_of_confidences_only(judged):
    confidences, correct = (np.array(x) for x in zip(*judged, strict=True))
    coverage, risk = ev.risk_coverage(confidences, correct)
    assert coverage[-1] == 1 and risk[-1] == pytest.approx(1 - correct.mean())
    area = ev.area_under_risk_coverage(confidences, correct)
    assert ev.area_under_risk_coverage(confidences**3 / 2, correct) == pytest.approx(area)
    order = np.random.default_rng(0).permutation(len(correct))
    assert ev.area_under_risk_coverage(confidences[order], correct[order]) == pytest.approx(area)


def test_ties_have_the_mean_over_their_orders():
    """Against brute force over the orders of three equal confidences."""
    confidences, correct = np.array([0.9, 0.5, 0.5, 0.5]), np.array([0, 1, 1, 0])
    risks = [1 - np.cumsum([0, *order]) / np.arange(1, 5) for order in itertools.permutations([1, 1, 0])]
    np.testing.assert_allclose(ev.risk_coverage(confidences, correct).risk, np.mean(risks, axis=0))


def test_decimals_on_an_edge_belong_to_the_upper_bin():
    edges = [i / 100 for i in range(100)]
    assert (ev.reliability(edges, [True] * 100, bins=100).count == 1).all()
    count = ev.reliability([0.3, 0.7, 1.0], [True] * 3, bins=10).count
    assert list(np.flatnonzero(count)) == [3, 7, 9]


def test_by_hand_ece():
    got = ev.expected_calibration_error([0.91, 0.99, 0.15, 0.11], [1, 0, 0, 0])
    assert got == pytest.approx(0.5 * abs(0.95 - 0.5) + 0.5 * 0.13)


def test_the_threshold_is_the_first_best_f1():
    # From 0.31 to 0.6 the calls are exactly the labels.
    assert ev.similarity_threshold([0.2, 0.3, 0.6, 0.9], [False, False, True, True]) == 0.31
    assert ev.similarity_threshold([0.29], [True]) == 0.0  # every t <= 0.29 has F1 = 1: the first one
    assert ev.similarity_threshold([0.28, 0.29], [False, True]) == 0.29  # 0.29 of the data reaches 29 hundredths


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: ev.judge_calibration([1.2], [True]), r"confidences must lie in \[0, 1\]"),
        (lambda: ev.judge_calibration([0.2], [0.5]), "correct must be true or false"),
        (lambda: ev.judge_calibration([0.2], []), "confidences 1, correct 0"),
        (lambda: ev.reliability([0.2], [True], bins=0), "bins must be"),
        (lambda: ev.wrong_at_confidence([0.2], [True], at=2.0), "at must lie in"),
        (lambda: ev.similarity_threshold([0.2], [False]), "at least one that is true"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
