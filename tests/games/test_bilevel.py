"""PARL on a bandit: closed-form, implicit and sampled gradients of one objective."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_games import random_preferences

from alignment import analysis, games

RNG = np.random.default_rng(4)
PHI = RNG.normal(size=(6, 3)).astype(np.float32)
NU = RNG.normal(size=3).astype(np.float32)
REFERENCE = np.log(RNG.dirichlet(np.ones(6))).astype(np.float32)
P = random_preferences(RNG, size=6)


def policy(nu, beta=0.5):
    return analysis.kl_regularised_optimum(REFERENCE, PHI @ nu, beta=beta)


def test_both_terms_are_the_gradient_of_the_objective_and_one_is_not():
    def both(beta):
        whole = jax.grad(games.parl_objective)(NU, PHI, REFERENCE, P, beta=beta)
        return whole, games.parl_gradients(NU, PHI, REFERENCE, P, beta=beta)

    whole, terms = jax.jit(jax.vmap(both))(jnp.array([0.2, 0.5, 2.0]))
    np.testing.assert_allclose(terms.direct + terms.through_policy, whole, rtol=1e-4, atol=1e-6)
    assert np.all(np.abs(terms.through_policy).max(-1) > 1e-2)


def test_the_objective_and_its_gradient_agree_with_finite_differences():
    direction, step = RNG.normal(size=3), 1e-5
    with jax.enable_x64(True):
        arrays = [np.float64(a) for a in (PHI, REFERENCE, P)]
        arrays[2] = (arrays[2] - arrays[2].T + 1) / 2
        high, low = (games.parl_objective(NU + s * step * direction, *arrays) for s in (1, -1))
        terms = games.parl_gradients(np.float64(NU), *arrays)
        np.testing.assert_allclose(sum(terms) @ direction, (high - low) / (2 * step), rtol=1e-6)


def test_with_a_large_beta_the_data_are_fixed():
    terms = games.parl_gradients(NU, PHI, REFERENCE, P, beta=1e4)
    np.testing.assert_allclose(terms.through_policy, 0, atol=1e-3)
    start = np.exp(REFERENCE)
    pulls = np.outer(start, start) * (P - 1 / (1 + np.exp(-np.subtract.outer(PHI @ NU, PHI @ NU))))
    np.testing.assert_allclose(terms.direct, (pulls.sum(1) - pulls.sum(0)) @ PHI, atol=1e-3)


def test_equal_features_leave_nothing_to_learn_from_where_the_data_come():
    """All rewards equal: every label has log-likelihood -log 2, a constant, whose second term is zero."""
    flat = np.tile(PHI[:1], (6, 1))
    np.testing.assert_allclose(games.parl_gradients(NU, flat, REFERENCE, P).through_policy, 0, atol=1e-6)
    constant = games.parl_gradients(0 * NU, PHI, REFERENCE, P)
    np.testing.assert_allclose(constant.through_policy, 0, atol=1e-5)


def test_the_implicit_derivative_is_that_of_the_closed_form():
    beta = 0.5

    def lower(nu, logits):
        return games.kl_rl_objective(jax.nn.log_softmax(logits), REFERENCE, jnp.asarray(PHI) @ nu, beta=beta)

    def upper(nu, logits):
        p, rewards = jax.nn.softmax(logits), jnp.asarray(PHI) @ nu
        margins = rewards[:, None] - rewards[None, :]
        return p @ (P * jax.nn.log_sigmoid(margins) + (1 - P) * jax.nn.log_sigmoid(-margins)) @ p

    found = jax.jit(lambda nu: games.bilevel_gradients(upper, lower, nu, policy(nu)))(NU)
    expected = games.parl_gradients(NU, PHI, REFERENCE, P, beta=beta)
    np.testing.assert_allclose(found.direct, expected.direct, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.through_policy, expected.through_policy, rtol=1e-3, atol=1e-4)
    # And it is the derivative of log pi*, up to a constant per column: phi / beta.
    np.testing.assert_allclose(jax.jit(jax.jacobian(policy))(NU), (PHI - np.exp(policy(NU)) @ PHI) / beta, atol=1e-5)


def test_estimates_from_pairs_have_the_gradients_as_their_mean():
    keys = jax.random.split(jax.random.key(0), 3)
    first, second = jax.random.categorical(keys[0], policy(NU), shape=(2, 4000, 8))
    labels = (jax.random.uniform(keys[1], first.shape) < P[first, second]).astype(jnp.float32)
    estimate = jax.jit(jax.vmap(lambda *pairs: games.parl_sampled_gradients(NU, PHI, REFERENCE, *pairs)))
    runs = estimate(first, second, labels)
    for estimates, exact in zip(runs, games.parl_gradients(NU, PHI, REFERENCE, P), strict=True):
        error = np.asarray(estimates).std(0) / np.sqrt(4000)
        assert np.all(np.abs(np.asarray(estimates).mean(0) - exact) < 4.5 * error)


def test_what_is_wrong_is_said():
    with pytest.raises(AssertionError, match=r"must have shapes \(F,\), \(Y, F\) and \(Y,\)"):
        games.parl_objective(NU[:2], PHI, REFERENCE, P)
    with pytest.raises(ValueError, match=r"beta must lie in \(0, inf\)"):
        games.parl_gradients(NU, PHI, REFERENCE, P, beta=0.0)
    one = np.zeros(1, np.int32)
    with pytest.raises(ValueError, match="at least 2 pairs"):
        games.parl_sampled_gradients(NU, PHI, REFERENCE, one, one, np.ones(1, np.float32))
