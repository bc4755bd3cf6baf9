"""Regret matching on games whose solution is known, k-means by its two conditions, and pairs across latents only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment import games

CATALOGUE = np.array([[0.0, -1.0, 2.0], [1.0, 0.0, -1.0], [-2.0, 1.0, 0.0]], np.float32)
seeds = st.integers(0, 2**31 - 1)


# --------------------------------------------------------------------------------------------------- regret matching


def test_without_a_positive_regret_the_strategy_is_uniform():
    np.testing.assert_allclose(games.regret_matching_strategy(jnp.array([-1.0, 0.0, -3.0, 0.0])), 0.25)
    np.testing.assert_allclose(games.regret_matching_strategy(jnp.array([3.0, -5.0, 1.0])), [0.75, 0.0, 0.25])


def test_the_three_by_three_game_has_its_nash_strategy_and_the_averages_find_it():
    nash = jnp.array([0.25, 0.5, 0.25])
    np.testing.assert_allclose(games.exploitability(CATALOGUE, nash, nash), 0, atol=1e-7)
    found = games.regret_matching(CATALOGUE, steps=20_000)
    np.testing.assert_allclose(found.rows[-1], nash, atol=0.02)
    np.testing.assert_allclose(found.columns[-1], nash, atol=0.02)
    assert games.exploitability(CATALOGUE, found.rows[-1], found.columns[-1]) < 0.02


def test_the_value_of_a_game_of_two_kinds_of_actions_is_found():
    """Matching pennies with unequal prizes: both players mix (2/5, 3/5), and the value is 1/5."""
    payoffs = jnp.array([[2.0, -1.0], [-1.0, 1.0]])
    found = games.regret_matching(payoffs, steps=20_000)
    np.testing.assert_allclose(found.rows[-1], [0.4, 0.6], atol=0.02)
    np.testing.assert_allclose(found.rows[-1] @ payoffs @ found.columns[-1], 0.2, atol=0.02)


@settings(max_examples=10)
@given(seeds)
def test_exploitability_of_the_averages_stays_below_its_bound(seed):
    payoffs = np.random.default_rng(seed).normal(size=(4, 3)).astype(np.float32)
    found = games.regret_matching(payoffs, steps=300)
    gaps = jax.vmap(games.exploitability, (None, 0, 0))(payoffs, found.rows, found.columns)
    t = np.arange(1, 301)
    assert (gaps >= -1e-5).all()
    assert (gaps <= np.ptp(payoffs) * np.sqrt(4 / t) + 1e-4).all()
    np.testing.assert_allclose(found.rows.sum(-1), 1, atol=1e-4)


def test_a_dominated_action_is_dropped_and_games_may_be_stacked():
    payoffs = np.stack([CATALOGUE, np.array([[1.0, 2, 3], [0, 1, 2], [-1, 0, 1]], np.float32)])
    found = games.regret_matching(payoffs, steps=500)
    assert found.rows.shape == (500, 2, 3)
    np.testing.assert_allclose(found.rows[-1, 1], [1, 0, 0], atol=0.01)
    np.testing.assert_allclose(found.rows[:, 0], games.regret_matching(CATALOGUE, steps=500).rows, atol=1e-5)


def test_exploitability_is_what_best_responses_win():
    x, y = jnp.array([1.0, 0.0, 0.0]), jnp.array([0.0, 1.0, 0.0])
    # Against y the third row wins 1; against x the second column pays the row player -1.
    np.testing.assert_allclose(games.exploitability(CATALOGUE, x, y), (1 - (-1)) / 2)
    np.testing.assert_allclose(games.exploitability(CATALOGUE, x, x), jnp.max(CATALOGUE @ x))


# ----------------------------------------------------------------------------------------------------------- k-means


@settings(max_examples=10)
@given(seeds)
def test_lloyd_never_raises_the_distortion_and_ends_at_its_own_means(seed):
    points = np.random.default_rng(seed).normal(size=(30, 3)).astype(np.float32)
    found = games.lloyd(points, games.farthest_points(points, count=4), steps=30)
    assert (np.diff(found.distortions) <= 1e-5).all()
    distances = np.square(points[:, None] - np.asarray(found.centres)).sum(-1)
    np.testing.assert_array_equal(found.assignments, distances.argmin(1))
    np.testing.assert_allclose(found.distortions[-1], distances.min(1).mean(), rtol=1e-4)
    for c in range(4):  # every one has members: they began on points of their own
        np.testing.assert_allclose(found.centres[c], points[np.asarray(found.assignments) == c].mean(0), atol=1e-4)


def test_clusters_that_lie_apart_are_found_and_an_empty_one_keeps_its_centre():
    rng = np.random.default_rng(0)
    middles = np.array([[0, 0], [10, 0], [0, 10]], np.float32)
    truth = np.repeat(np.arange(3), 8)
    points = middles[truth] + rng.uniform(-1, 1, (24, 2)).astype(np.float32)
    centres = games.farthest_points(points, count=3)
    found = games.lloyd(points, centres)
    assert len({(int(a), int(b)) for a, b in zip(found.assignments, truth, strict=True)}) == 3
    far = jnp.concatenate([centres, jnp.array([[100.0, 100.0]])])
    found = games.lloyd(points, far)
    np.testing.assert_array_equal(found.centres[3], [100, 100])
    assert set(found.assignments.tolist()) == {0, 1, 2}


def test_farthest_points_are_points_and_lie_in_different_clusters():
    points = np.array([[0.0], [1.0], [10.0], [11.0], [30.0]], np.float32)
    np.testing.assert_allclose(games.farthest_points(points, count=3)[:, 0], [30, 0, 11])


# ---------------------------------------------------------------------------------------------- the game of the latents


def test_the_game_of_pure_latents_is_the_game_of_the_strategies():
    strategies, others = np.array([0, 0, 1, 2, 2, 2]), np.array([2, 1, 0, 0])
    payoffs = CATALOGUE[strategies][:, others]
    np.testing.assert_allclose(games.latent_payoffs(payoffs, strategies, others, count=3), CATALOGUE, atol=1e-6)


def test_a_latent_of_two_strategies_earns_their_mean():
    strategies = np.array([0, 1, 1, 2])
    payoffs = CATALOGUE[strategies][:, strategies]
    found = games.latent_payoffs(payoffs, np.array([0, 0, 0, 1]), np.array([0, 0, 0, 1]), count=2)
    np.testing.assert_allclose(found[0, 1], (2 - 1 - 1) / 3, atol=1e-6)
    np.testing.assert_allclose(found, -found.T, atol=1e-6)


@settings(max_examples=10)
@given(seeds, st.sampled_from([0.0, 0.3]))
def test_pairs_never_connect_utterances_of_one_latent(seed, margin):
    rng = np.random.default_rng(seed)
    latents, values = rng.integers(4, size=12), rng.normal(size=4).astype(np.float32)
    values[rng.integers(4)] = -np.inf
    pairs = np.asarray(games.latent_pairs(latents, values, margin=margin))
    assert not pairs[latents[:, None] == latents[None]].any()
    assert not (pairs & pairs.T).any()
    for i, j in np.ndindex(12, 12):
        assert pairs[i, j] == (latents[i] != latents[j] and values[latents[i]] - values[latents[j]] > margin)


def test_a_margin_above_every_difference_leaves_no_pair():
    assert not games.latent_pairs(np.array([0, 1]), np.array([0.0, 0.5]), margin=0.5).any()
    assert games.latent_pairs(np.array([0, 1]), np.array([0.0, 0.5]), margin=0.4).tolist() == [
        [False, False],
        [True, False],
    ]


def test_what_does_not_fit_is_said():
    points = np.zeros((4, 2), np.float32)
    with pytest.raises(ValueError, match="count must be at most the 4 points, got 5"):
        games.farthest_points(points, count=5)
    with pytest.raises(AssertionError, match=r"centres must have shape \(K, 2\)"):
        games.lloyd(points, np.zeros((3, 1), np.float32))
    with pytest.raises(ValueError, match=r"steps must be an integer in \[1, inf\)"):
        games.lloyd(points, points, steps=0)
    with pytest.raises(ValueError, match=r"steps must be an integer in \[1, inf\)"):
        games.regret_matching(CATALOGUE, steps=0)
    with pytest.raises(AssertionError, match=r"payoffs must have shape \(\.\.\., A, B\)"):
        games.regret_matching(CATALOGUE[0])
    with pytest.raises(ValueError, match="opponent_latents must be all of 0 to 1, got \\[0\\]"):
        games.latent_payoffs(points, np.array([0, 1, 0, 1]), np.array([0, 0]), count=2)
    with pytest.raises(AssertionError, match=r"payoffs \(4, 2\) must be of latents \(3,\)"):
        games.latent_payoffs(points, np.array([0, 1, 0]), np.array([0, 1]), count=2)
