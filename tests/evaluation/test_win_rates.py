"""Win rates: both directions sum to one, prompts are averaged first, and intervals hold what they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment import evaluation as ev

OUTCOMES = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=2, max_size=20)


@settings(max_examples=15)
@given(OUTCOMES)
def test_both_directions_sum_to_one(outcomes):
    prompts = range(len(outcomes))
    one, other = ev.win_rate(outcomes, prompts, rounds=5), ev.win_rate(1 - np.array(outcomes), prompts, rounds=5)
    assert one.win_rate + other.win_rate == pytest.approx(1)
    assert (one.wins, one.ties, one.losses) == (other.losses, other.ties, other.wins)
    assert one.wins + one.ties + one.losses == one.n == len(outcomes)
    assert one.low + other.high == pytest.approx(1)
    assert one.standard_error == pytest.approx(other.standard_error)


def test_by_hand():
    # 3 wins, 1 tie, 1 loss: 3.5 / 5; the variance of (1, 1, 1, 1/2, 0) with ddof 1 is (3 * .09 + .04 + .49) / 4 = 0.2.
    got = ev.win_rate([1, 1, 1, 0.5, 0], list("abcde"))
    assert got.win_rate == pytest.approx(0.7) and (got.wins, got.ties, got.losses, got.n) == (3, 1, 1, 5)
    assert got.standard_error == pytest.approx(np.sqrt(0.2 / 5))
    assert got.low < got.bootstrap_low + 0.2 and got.bootstrap_low < 0.7 < got.bootstrap_high


def test_all_ties_are_a_half_without_error():
    got = ev.win_rate([0.5] * 6, range(6))
    assert (got.win_rate, got.standard_error, got.bootstrap_low, got.bootstrap_high) == (0.5, 0, 0.5, 0.5)


def test_samples_of_one_prompt_are_averaged_first():
    """Asking the same prompts four times over makes nothing more certain."""
    once = ev.win_rate([1, 0, 1, 1], list("abcd"))
    assert ev.win_rate([1, 0, 1, 1] * 4, list("abcd") * 4) == once
    uneven = ev.win_rate([1, 1, 1, 0], ["a", "a", "a", "b"])  # each prompt counts once, however often it was sampled
    assert uneven.win_rate == 0.5 and uneven.n == 2


def test_wilson_is_where_the_normal_test_rejects():
    low, high = ev.wilson_interval(0.7, 40)
    for bound in (low, high):
        assert abs(0.7 - bound) / np.sqrt(bound * (1 - bound) / 40) == pytest.approx(1.959964, rel=1e-5)
    assert ev.wilson_interval(1.0, 10)[1] == 1 and 0.6 < ev.wilson_interval(1.0, 10)[0] < 1
    assert ev.wilson_interval(0.0, 10)[0] == pytest.approx(0)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    wilson = boot = 0
    for seed in range(200):
        got = ev.win_rate(rng.random(60) < 0.6, range(60), rounds=200, seed=seed)
        wilson += got.low <= 0.6 <= got.high
        boot += got.bootstrap_low <= 0.6 <= got.bootstrap_high
    assert 0.9 <= wilson / 200 <= 0.99 and 0.88 <= boot / 200 <= 0.99


def test_the_bootstrap_draws_whole_clusters():
    seen = ev.bootstrap(lambda counts: counts, ["a", "a", "b", "c"], rounds=20)
    assert (seen[:, 0] == seen[:, 1]).all() and (seen[:, 1:].sum(axis=1) == 3).all()
    np.testing.assert_array_equal(seen, ev.bootstrap(lambda counts: counts, ["a", "a", "b", "c"], rounds=20))


def test_percentiles_keep_infinities_and_leave_nan_out():
    low, high = ev.percentiles(np.array([[1.0, np.nan], [np.nan, np.nan], [np.inf, np.nan]]))
    assert low[0] == 1 and high[0] == np.inf and np.isnan([low[1], high[1]]).all()


def test_scores_within_the_tolerance_tie():
    first, second = [1.0, 1.0, 1.0, 0.0], [0.5, 1.0, 1.05, 1.0]
    np.testing.assert_array_equal(ev.outcomes_of_scores(first, second), [1, 0.5, 0, 0])
    np.testing.assert_array_equal(ev.outcomes_of_scores(first, second, tie_within=0.1), [1, 0.5, 0.5, 0])


def test_verdicts():
    assert [ev.outcome_of_verdict(v) for v in ("A>>B", "A>B", "A=B", "B>A", "B>>A")] == [1, 1, 0.5, 0, 0]
    assert [ev.verdict_weight(v) for v in ("A>>B", "A>B", "A=B", "B>A", "B>>A")] == [3, 1, 1, 1, 3]
    with pytest.raises(ValueError, match="'A' is not one of A>>B"):
        ev.outcome_of_verdict("A")


def test_the_matrix_has_both_directions_and_nothing_where_models_never_met():
    models, opponents = ["x", "x", "y", "x"], ["y", "y", "z", "y"]
    names, rates = ev.win_rate_matrix(models, opponents, [1, 0, 1, 0.5], ["p", "p", "p", "q"])
    assert names == ["x", "y", "z"]
    x, y, z = range(3)
    assert rates[x, y] == 0.5 and rates[y, z] == 1 and np.isnan(rates[x, z]) and np.isnan(rates[z, x])
    met = ~np.isnan(rates)
    np.testing.assert_allclose((rates + rates.T)[met], 1)


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_policies_on_a_finite_set(seed):
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.ones(4), size=2)
    upper = np.triu(rng.random((4, 4)), 1)
    preferences = upper + np.tril(1 - upper.T, -1) + np.eye(4) / 2
    assert ev.policy_win_rate(p, preferences, q) + ev.policy_win_rate(q, preferences, p) == pytest.approx(1)
    assert ev.policy_win_rate(p, preferences, p) == pytest.approx(0.5)
    assert ev.policy_win_rate(np.eye(4)[1], preferences, np.eye(4)[2]) == pytest.approx(preferences[1, 2])


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: ev.win_rate([1.5], ["a"]), r"outcomes must lie in \[0, 1\], got 1.5 at 0"),
        (lambda: ev.win_rate([1.0], ["a", "b"]), "outcomes 1, prompts 2"),
        (lambda: ev.win_rate([], []), "N > 0"),
        (lambda: ev.win_rate([np.nan], ["a"]), "must be finite"),
        (lambda: ev.win_rate([1.0], ["a"], level=1.0), r"level must lie in \(0, 1\)"),
        (lambda: ev.bootstrap(lambda counts: 0, ["a"], rounds=0), "rounds must be"),
        (lambda: ev.bootstrap(lambda counts: 0, []), "at least one entry"),
        (lambda: ev.wilson_interval(1.1, 3), "rate must lie in"),
        (lambda: ev.outcomes_of_scores([1.0], [1.0], tie_within=-1.0), "tie_within must lie in"),
        (lambda: ev.policy_win_rate(np.ones(2) / 2, np.ones((2, 2)) * 2, np.ones(2) / 2), "preferences must lie"),
        (lambda: ev.policy_win_rate(np.ones(2) / 2, np.ones((3, 3)), np.ones(2) / 2), "shapes"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
