"""What each scalarisation can and cannot reach, and its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import multi_objective as mo
from alignment.multi_objective.scalarizations import IdealState

GRID = [(w, 1 - w) for w in np.linspace(0.05, 0.95, 19)]
# A front that bends inwards: x^(1/2) + y^(1/2) = 1 has all its points below the line between its ends.
T = np.linspace(0, 1, 101)
CONCAVE = np.stack([T**2, (1 - T) ** 2], axis=1).astype(np.float32)
ALL = np.ones(101, bool)


def test_linear_weights_find_the_two_ends_of_a_concave_front_only():
    found = {int(jnp.argmax(mo.linear_scalarization(CONCAVE, ALL, weights=w))) for w in GRID}
    assert found == {0, 100}


def test_tchebycheff_finds_the_inside_of_a_concave_front():
    best = [int(jnp.argmax(mo.tchebycheff_scalarization(CONCAVE, ALL, weights=w))) for w in GRID]
    assert len(set(best)) == 19 and min(best) > 0 and max(best) < 100
    assert best == sorted(best)  # more weight on the first objective gives more of it


def test_the_smooth_form_lies_within_mu_log_k_below_the_hard_one():
    rewards = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    settings = {"weights": (0.2, 0.3, 0.5), "ideal": (1.0, 2.0, 1.5)}
    hard = mo.tchebycheff_scalarization(rewards, np.ones(50, bool), **settings)
    for mu in (1.0, 0.1, 1e-4):
        smooth = mo.smooth_tchebycheff_scalarization(rewards, np.ones(50, bool), mu=mu, **settings)
        assert (smooth <= hard + 1e-5).all() and (smooth >= hard - mu * np.log(3) - 1e-5).all()
    np.testing.assert_allclose(smooth, hard, atol=2e-4)


def test_at_the_ideal_point_the_hard_form_is_zero():
    assert mo.tchebycheff_scalarization(np.float32([[1, 1]]), np.array([True]))[0] == 0


def test_one_weight_alone_is_that_objective():
    rewards = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    for k, weights in ((0, (1.0, 0.0)), (1, (0.0, 1.0))):
        np.testing.assert_array_equal(
            mo.linear_scalarization(rewards, np.ones(9, bool), weights=weights), rewards[:, k]
        )


def test_a_direction_of_any_length_orders_completions_alike():
    rewards = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    direction = np.broadcast_to(np.float32([0.97, -0.26]), rewards.shape)
    scores = [mo.preference_scalarization(rewards, c * direction, np.ones(30, bool)) for c in (1.0, 7.0)]
    np.testing.assert_array_equal(*map(np.argsort, scores))


def test_the_running_ideal_is_the_best_seen_so_far():
    method = mo.tchebycheff_running_ideal
    state = method.init()
    for rewards in ([[1.0, 0.0], [0.0, 2.0]], [[0.5, 3.0], [9.0, 9.0]]):
        _, aux = method.loss(np.float32(rewards), np.array([True, rewards[1][0] < 9]), state)
        state = method.update(state, aux)
    np.testing.assert_array_equal(state.best, [1.0, 3.0])
    values, _ = method.loss(np.float32([[1.0, 3.0]]), np.array([True]), state, slack=0.1)
    np.testing.assert_allclose(values, -0.05, rtol=1e-5)


def test_a_batch_without_a_row_leaves_the_ideal_and_gives_finite_numbers():
    method, none = mo.tchebycheff_running_ideal, np.zeros(2, bool)
    state = IdealState(jnp.array([-jnp.inf, 1.0]))
    values, aux = method.loss(np.float32([[1, 1], [2, 2]]), none, state)
    np.testing.assert_array_equal(values, 0)
    np.testing.assert_array_equal(method.update(state, aux).best, state.best)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": (0.5, 0.6)}, "weights must sum to 1, got 1.1"),
        ({"weights": (0.2, 0.3, 0.5)}, "weights must have one number for each of the 2 objectives, got 3"),
        ({"weights": (-0.5, 1.5)}, r"each of weights must lie in \[0, inf\), got -0.5"),
        ({"weights": 1.0}, "weights must have one number for each of the 2 objectives, got 1.0"),
    ],
)
def test_weights_that_are_not_on_the_simplex_are_an_error_that_says_why(settings, message):
    with pytest.raises(ValueError, match=message):
        mo.linear_scalarization(np.zeros((3, 2), np.float32), np.ones(3, bool), **settings)


def test_an_objective_without_spread_cannot_be_standardised():
    with pytest.raises(ValueError, match=r"each of deviations must lie in \(0, inf\), got 0"):
        mo.standardized_linear_scalarization(np.zeros((3, 2), np.float32), np.ones(3, bool), deviations=(0.0, 1.0))


def test_the_gradient_weights_of_the_smooth_form_are_a_softmax():
    """What a policy gradient on the scalarised mean weighs each objective by, here by differences."""
    rewards, mu = np.float64([[0.3, 0.6]]), 0.5
    with jax.enable_x64(True):

        def value(r):
            return float(mo.smooth_tchebycheff_scalarization(r, np.array([True]), mu=mu)[0])

        step = 1e-6 * np.eye(2)
        slopes = [(value(rewards + s) - value(rewards - s)) / 2e-6 for s in step]
    gaps = 0.5 * (1 - rewards[0]) / mu
    np.testing.assert_allclose(slopes, 0.5 * np.exp(gaps) / np.exp(gaps).sum(), rtol=1e-6)
