"""Regret metrics against runs small enough to count, and the growth fit against curves whose coefficients are known."""

import numpy as np
import pytest
from scipy import stats

from alignment import games

MEANS = np.float32([[0.2, 0.7, 0.4]])
ACTIONS = np.array([[0, 1, 2, 1, 1, 0]], np.int32)


def test_metrics_of_a_run_counted_by_hand():
    np.testing.assert_allclose(games.cumulative_regret(ACTIONS, MEANS)[0], [0.5, 0.5, 0.8, 0.8, 0.8, 1.3], rtol=1e-5)
    assert games.optimal_fraction(ACTIONS, MEANS) == 0.5
    np.testing.assert_allclose(games.least_pulled_share(ACTIONS, MEANS), 3 / 6, rtol=1e-6)
    np.testing.assert_array_equal(games.suffix_failure(ACTIONS, MEANS)[0], [False] * 4 + [True] * 2)


def test_always_best_and_uniform_are_the_ends_of_the_scales():
    best = np.full((1, 6), 1, np.int32)
    assert games.cumulative_regret(best, MEANS)[0, -1] == 0 and games.optimal_fraction(best, MEANS) == 1
    assert games.least_pulled_share(best, MEANS) == 0
    np.testing.assert_array_equal(games.suffix_failure(best, MEANS)[0], [False] * 5 + [True])
    uniform = np.tile(np.arange(3, dtype=np.int32), (1, 4))
    np.testing.assert_allclose(games.least_pulled_share(uniform, MEANS), 1, rtol=1e-6)
    # Two arms that are both the best count alike.
    tied = np.float32([[0.7, 0.7, 0.4]])
    np.testing.assert_allclose(games.optimal_fraction(uniform, tied), 2 / 3, rtol=1e-6)


def test_the_best_arm_of_a_context_is_its_own():
    rewards = np.float32([[1, 0], [0, 2]])
    regret = games.contextual_regret(np.array([0, 1, 1], np.int32), np.array([0, 0, 1], np.int32), rewards)
    np.testing.assert_array_equal(regret, [0, 2, 2])


@pytest.mark.parametrize(
    "power,coefficients", [(1.0, (2.0, 0.0, 1.5)), (2.0, (0.3, 0.2, -1.0)), (0.5, (4.0, 0.05, 0.0))]
)
def test_the_growth_fit_finds_the_coefficients_of_a_curve(power, coefficients):
    logarithmic, linear, constant = coefficients
    t, gap = np.arange(1, 301), 0.4
    curve = logarithmic * np.log(t) ** power / gap + linear * t + constant
    fit = games.regret_growth(np.stack([curve, 2 * curve]), np.array([gap, gap]))
    np.testing.assert_array_equal(fit.power, power)
    np.testing.assert_allclose(fit.logarithmic, [logarithmic, 2 * logarithmic], rtol=1e-8)
    np.testing.assert_allclose(fit.linear, [linear, 2 * linear], atol=1e-10)
    np.testing.assert_allclose(fit.constant, [constant, 2 * constant], atol=1e-8)
    np.testing.assert_allclose(fit.residual, 0, atol=1e-8)


def test_a_line_is_all_linear():
    fit = games.regret_growth(0.4 * np.arange(1, 200), np.float64(0.5))
    np.testing.assert_allclose([fit.linear, fit.logarithmic], [0.4, 0], atol=1e-9)


def test_wins_need_more_reward_and_significance():
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(3, 4, 30)) + np.array([0.0, 0.45, 3.0])[:, None, None]
    rates = games.exploration_win_rates(rewards)
    expected = np.zeros(3)
    for i in range(3):
        for j in set(range(3)) - {i}:
            for e in range(4):
                p = stats.ttest_ind(rewards[i, e], rewards[j, e]).pvalue
                expected[i] += (rewards[i, e].mean() > rewards[j, e].mean()) and p < 0.05
    np.testing.assert_allclose(rates, expected / 8)
    assert rates[2] == 1 and rates[0] == 0 and 0 < rates[1] < 0.5
    # Three trials each with variance 1: t = lead / sqrt(2 / 3); 4 degrees of freedom ask for 2.776, 2 for 4.303.
    three = np.array([[[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]]])
    for lead, won in ((2.9, 1), (2.0, 0)):
        np.testing.assert_array_equal(games.exploration_win_rates(three + np.array([[[lead]], [[0.0]]])), [won, 0])
    same = np.ones((2, 1, 3))
    np.testing.assert_array_equal(games.exploration_win_rates(same), 0)
    same[0] = 2
    np.testing.assert_array_equal(games.exploration_win_rates(same), [1, 0])


@pytest.mark.parametrize(
    "call,words",
    [
        (lambda: games.regret_growth(np.ones(3), np.float64(0.1)), "at least 4 pulls"),
        (lambda: games.regret_growth(np.ones(9), np.float64(0.0)), r"minimum_gaps must lie in \(0, inf\)"),
        (
            lambda: games.regret_growth(np.ones(9), np.float64(1.0), powers=(-1.0,)),
            r"each of powers must lie in \(0, inf\)",
        ),
        (lambda: games.exploration_win_rates(np.ones((1, 2, 3))), "at least 2 explorers"),
        (lambda: games.exploration_win_rates(np.ones((2, 2, 3)), level=1.0), r"level must lie in \(0, 1\)"),
    ],
)
def test_what_is_wrong_is_said(call, words):
    with pytest.raises(ValueError, match=words):
        call()
