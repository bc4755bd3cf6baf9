"""Preference games against closed forms, brute force and the symmetry of the two players."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_games import random_preferences

from alignment import games

RNG = np.random.default_rng(0)
SIZE = 5


P = random_preferences(RNG, (3,))
PI, NU, MU = (np.log(RNG.dirichlet(np.ones(SIZE), size=3)).astype(np.float32) for _ in range(3))


def test_the_two_players_payoffs_add_up_to_one():
    np.testing.assert_allclose(games.win_rate(P, PI, NU) + games.win_rate(P, NU, PI), 1, atol=1e-6)
    there, back = (games.regularised_payoff(P, *pair, MU, tau=0.3) for pair in ((PI, NU), (NU, PI)))
    np.testing.assert_allclose(there + back, 1, atol=1e-6)
    np.testing.assert_allclose(games.regularised_payoff(P, PI, PI, MU), 0.5, atol=1e-6)


def test_the_best_response_has_the_largest_payoff_and_the_gap_is_what_it_wins_on_both_sides():
    tau = 0.2
    best = games.best_response(P, PI, MU, tau=tau)

    def payoff(logits):
        return jnp.sum(games.regularised_payoff(P, jax.nn.log_softmax(logits), PI, MU, tau=tau))

    np.testing.assert_allclose(jax.grad(payoff)(best), 0, atol=1e-6)
    gap = games.regularised_duality_gap(P, PI, MU, tau=tau)
    wins = games.regularised_payoff(P, best, PI, MU, tau=tau) - games.regularised_payoff(P, PI, best, MU, tau=tau)
    np.testing.assert_allclose(gap, wins, atol=1e-6)
    # The form of the catalogue, with the partition function.
    log_partition = jax.nn.logsumexp(MU + games.win_rates(P, PI) / tau, axis=-1)
    np.testing.assert_allclose(gap, 2 * tau * (log_partition + games.kl_divergence(PI, MU)) - 1, atol=1e-5)


def test_the_gap_without_regularisation_is_that_of_the_best_pure_responses():
    pure = np.where(np.eye(SIZE), 0.0, -np.inf).astype(np.float32)
    for p, pi, gap in zip(P, PI, games.duality_gap(P, PI), strict=True):
        against = [float(games.win_rate(p, pi, response)) for response in pure]
        np.testing.assert_allclose(gap, (1 - min(against)) - min(against), atol=1e-6)
        assert gap >= 0
        for y, response in enumerate(pure):
            np.testing.assert_allclose(games.duality_gap(p, response), 2 * p[:, y].max() - 1, atol=1e-6)
    small = games.regularised_duality_gap(P, PI, MU, tau=1e-4)
    np.testing.assert_allclose(small, games.duality_gap(P, PI), atol=1e-3)


@pytest.mark.parametrize("tau", [2.0, 0.1, 0.003])
def test_only_the_nash_policy_has_no_gap(tau):
    nash = games.regularised_nash(P, MU, tau=tau)
    np.testing.assert_allclose(np.exp(nash).sum(-1), 1, rtol=1e-9)
    response = MU + (np.einsum("bij,bj->bi", P.astype(np.float64), np.exp(nash)) - 0.5) / tau
    np.testing.assert_allclose(response - np.logaddexp.reduce(response, axis=-1)[:, None], nash, atol=1e-6)
    assert np.all(games.regularised_duality_gap(P, nash.astype(np.float32), MU, tau=tau) < 1e-6)
    assert np.all(games.regularised_duality_gap(P, PI, MU, tau=tau) > 1e-3)


def test_a_constant_game_leaves_the_reference_and_a_cycle_the_uniform_policy():
    even = np.full((SIZE, SIZE), 0.5, np.float32)
    np.testing.assert_allclose(games.regularised_nash(even, MU[0]), MU[0], atol=1e-6)
    uniform = jnp.full(7, -np.log(7.0))
    for strength in (1.0, 0.4):
        cycle = games.cyclic_preferences(7, strength=strength)
        np.testing.assert_allclose(games.duality_gap(cycle, uniform), 0, atol=1e-6)
        np.testing.assert_allclose(games.regularised_nash(cycle, uniform, tau=0.01), uniform, atol=1e-6)
    np.testing.assert_array_equal(games.cyclic_preferences(3), [[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]])


def test_the_nash_policy_of_a_reward_is_its_largest():
    rewards = np.array([0.3, -1.0, 2.0, 1.9], np.float32)
    matrix = games.bradley_terry_preferences(rewards)
    point = np.where(np.arange(4) == 2, 0.0, -np.inf).astype(np.float32)
    assert games.duality_gap(matrix, point) == 0
    assert np.exp(games.regularised_nash(matrix, np.zeros(4, np.float32), tau=1e-3))[2] > 1 - 1e-6


def test_no_mass_counts_nothing_and_mass_outside_of_the_reference_costs_everything():
    without = np.log(np.array([0.5, 0.5, 0, 0, 0], np.float32), where=[1, 1, 0, 0, 0], out=np.full(5, -np.inf, "f"))
    assert games.kl_divergence(without, without) == 0
    assert games.kl_divergence(PI[0], without) == np.inf
    assert np.isfinite(games.regularised_payoff(P[0], without, without, MU[0]))
    assert games.regularised_duality_gap(P[0], PI[0], without) == np.inf


@pytest.mark.parametrize(
    "where,value,words",
    [
        ((1, 2, 3), 0.9, r"P\[1, 2, 3\] is 0.9 and P\[1, 3, 2\] is .* 2 of 75"),
        ((0, 4, 4), 0.6, r"P\[0, 4, 4\] is 0.6 .* together 1.2"),
        ((2, 0, 1), 1.5, r"lie in \[0, 1\], got 1.5 at P\[2, 0, 1\]"),
        ((2, 0, 1), np.nan, r"lie in \[0, 1\], got .* at P\[2, 0, 1\]"),
    ],
)
def test_a_matrix_of_no_game_is_an_error_that_names_the_worst_entry(where, value, words):
    wrong = 0.5 * np.ones_like(P)
    wrong[where] = value
    with pytest.raises(ValueError, match=words):
        games.check_preferences(wrong)
    with pytest.raises(ValueError, match=words):
        games.duality_gap(wrong, PI)
    with pytest.raises(ValueError, match=words):
        games.optimistic_omd(wrong, PI, steps=2)


def test_a_matrix_of_wins_and_one_in_half_precision_are_games():
    games.check_preferences(games.cyclic_preferences(5))
    games.check_preferences(jnp.asarray(P, jnp.bfloat16))
    with pytest.raises(AssertionError, match=r"\(\.\.\., Y, Y\)"):
        games.check_preferences(P[:, :, :2])
    for size in (2, 4, 1):
        with pytest.raises(ValueError, match="odd"):
            games.cyclic_preferences(size)
