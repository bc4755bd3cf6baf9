"""Preferences among the completions of a prompt: from a judge, an oracle or rewards, all as one matrix."""

import numpy as np
import pytest

from alignment.rewards import pairwise_judges as judges
from alignment.rewards.judges import JudgeError

CYCLE = {"rock": "scissors", "scissors": "paper", "paper": "rock"}


def cyclic(prompt, first, second, record):
    return 0.9 if CYCLE[first] == second else 0.1


def test_a_judge_without_an_order_of_its_own_is_read_as_it_is_and_equal_answers_are_even():
    found = judges.preference_matrix(cyclic, "p", ["rock", "paper", "scissors", "rock"], {})
    expected = [[0.5, 0.1, 0.9, 0.5], [0.9, 0.5, 0.1, 0.9], [0.1, 0.9, 0.5, 0.1], [0.5, 0.1, 0.9, 0.5]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_a_judge_adds_for_the_first_place_cancels():
    biased = lambda p, a, b, r: cyclic(p, a, b, r) / 2 + 0.4  # noqa: E731
    texts = ["rock", "paper", "scissors"]
    found = judges.preference_matrix(biased, "p", texts, {})
    np.testing.assert_allclose(found - 0.5, (judges.preference_matrix(cyclic, "p", texts, {}) - 0.5) / 2, atol=1e-6)
    np.testing.assert_allclose(found + found.T, 1.0)


def test_a_judge_is_told_the_prompt_and_its_record():
    knows = lambda prompt, a, b, record: float(a == record["right"]) if prompt == "p" else 1 / 0  # noqa: E731
    np.testing.assert_array_equal(judges.preference_matrix(knows, "p", ["x", "y"], {"right": "y"})[0], [0.5, 0.0])


@pytest.mark.parametrize("said", [1.5, -0.1, float("nan"), None, "0.5", [0.5, 0.5], np.zeros(2)])
def test_what_is_no_probability_is_refused(said):
    with pytest.raises(JudgeError, match=r"must give a probability in \[0, 1\], got .* on prompt 'what\?'"):
        judges.preference_matrix(lambda *_: said, "what?", ["x", "y"], {})


def test_a_judge_that_fails_is_named_with_the_prompt():
    with pytest.raises(JudgeError, match=r"failed on prompt 'what\?': ZeroDivisionError"):
        judges.preference_matrix(lambda *_: 1 / 0, "what?", ["x", "y"], {})


def test_rewards_become_preferences_by_the_sigmoid_of_their_difference():
    found = judges.bradley_terry(np.array([[0.0, np.log(3.0), np.inf, np.inf, -1e4]]))[0]
    np.testing.assert_allclose(found[0, :4], [0.5, 0.25, 0.0, 0.0])
    np.testing.assert_allclose(found + found.T, 1.0)
    assert found[2, 3] == 0.5 and found[4, 0] == 0.0
    with pytest.raises(ValueError, match="NaN"):
        judges.bradley_terry(np.array([0.0, np.nan]))


def test_win_rates_against_all_have_mean_a_half_and_against_one_are_its_column():
    matrix = judges.bradley_terry(np.random.default_rng(0).normal(size=(3, 4)))
    np.testing.assert_allclose(judges.win_rates(matrix, np.ones((3, 4), bool)).mean(-1), 0.5, rtol=1e-6)
    against = np.tile(np.arange(4) == 2, (3, 1))
    np.testing.assert_allclose(judges.win_rates(matrix, against), matrix[:, :, 2])


def test_a_game_that_always_has_a_better_answer_has_even_win_rates():
    matrix = judges.preference_matrix(cyclic, "p", ["rock", "paper", "scissors"], {})
    np.testing.assert_allclose(judges.win_rates(matrix, np.ones(3, bool)), 0.5, rtol=1e-6)


@pytest.mark.parametrize(
    "matrix, opponents, words",
    [
        ([[0.5, 0.7], [0.7, 0.5]], [True, True], r"P \+ P\^T = 1: .* is 0\.7 and .* is 0\.7"),
        ([[0.9, 0.7], [0.3, 0.5]], [True, True], r"P \+ P\^T = 1: .* together 1\.8"),
        ([[0.5, 1.7], [-0.7, 0.5]], [True, True], r"must lie in \[0, 1\]"),
        ([[0.5, np.nan], [0.3, 0.5]], [True, True], r"must lie in \[0, 1\]"),
        ([[0.5, 0.7], [0.3, 0.5]], [False, False], "a group without a completion to compare with"),
        ([[0.5, 0.7], [0.3, 0.5]], [True], r"must have shape \[\.\.\., G, G\]"),
    ],
)
def test_matrices_that_are_no_preferences_are_refused(matrix, opponents, words):
    with pytest.raises(ValueError, match=words):
        judges.win_rates(np.array(matrix), np.array(opponents))
