"""Accelerated preference optimization: exact rounds on a bandit, and rounds of an optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alignment.training import optimizer
from alignment.training.references import apo_momentum, apo_momentum_logps

REWARDS = np.array([1.0, 0.2, -0.5, 0.7])
BETA = 2.0


def rounds(alpha, count):
    """Logits of the solution of each exact round: hat_{t+1} ~ pi_t exp(r / beta), then momentum."""
    with jax.enable_x64(True):
        policy = solution = np.zeros(4)
        for _ in range(count):
            solved = policy + REWARDS / BETA
            policy, solution = np.asarray(apo_momentum(solved, solution, alpha=alpha)), solved
        return solution


@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_exact_rounds_have_the_closed_form(alpha):
    """log hat_T = log pi_0 + (r / beta) sum of (1 - alpha^k) / (1 - alpha); without momentum T r / beta."""
    steps = sum((1 - alpha**k) / (1 - alpha) for k in range(1, 41))
    np.testing.assert_allclose(rounds(alpha, 40), steps * REWARDS / BETA, rtol=1e-10)


def test_a_table_of_logits_moves_alike_in_parameters_and_in_policies():
    new, old = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    of_parameters = jax.nn.log_softmax(apo_momentum(new, old, alpha=0.4))
    logps = [jax.nn.log_softmax(x) for x in (new, old)]
    np.testing.assert_allclose(apo_momentum_logps(*logps, alpha=0.4), of_parameters, atol=1e-5)


def test_a_solution_that_did_not_change_stays():
    logps = jax.nn.log_softmax(np.random.default_rng(0).normal(size=5))
    np.testing.assert_allclose(apo_momentum_logps(logps, logps, alpha=0.9), logps, atol=1e-6)
    np.testing.assert_array_equal(apo_momentum({"a": logps}, {"a": logps}, alpha=0.9)["a"], logps)


@pytest.mark.parametrize("alpha", [-0.1, 1.0, float("nan")])
def test_alpha_out_of_range_is_refused(alpha):
    for function in (apo_momentum, apo_momentum_logps):
        with pytest.raises(ValueError, match=r"alpha must lie in \[0, 1\)"):
            function(np.ones(2), np.ones(2), alpha=alpha)


def test_an_optimizer_goes_on_after_each_round_along_the_change_of_its_solutions():
    """Two steps a round: against the same steps by hand."""
    plain = optax.sgd(0.1)
    tx = optimizer.with_momentum_of_rounds(plain, 2, 0.5)
    params = by_hand = solution = jnp.array([1.0, -2.0])
    state = tx.init(params)
    update = jax.jit(lambda p, s: tx.update(2 * p, s, p))  # of the square
    for step in range(1, 7):
        updates, state = update(params, state)
        params = optax.apply_updates(params, updates)
        by_hand = by_hand - 0.1 * 2 * by_hand
        if step % 2 == 0:
            by_hand, solution = by_hand + 0.5 * (by_hand - solution), by_hand
        np.testing.assert_allclose(params, by_hand, rtol=1e-6)
        np.testing.assert_allclose(state["solution"], solution, rtol=1e-6)


@pytest.mark.parametrize("settings, words", [((0.5, 0.3), "momentum_every"), ((2, 1.0), "momentum_alpha")])
def test_rounds_that_cannot_be_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        optimizer.with_momentum_of_rounds(optax.sgd(0.1), *settings)
