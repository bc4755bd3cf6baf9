"""The bandit whose utility turns over: what the constraints hold, what overshoots, and what cannot be held."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import analysis

STATES, ARMS = 16, 32
SHARED, OWN = jax.random.split(jax.random.key(3))
REWARDS = jax.random.normal(SHARED, (STATES, ARMS, 1)) + 0.5 * jax.random.normal(OWN, (STATES, ARMS, 2))
UTILITIES = analysis.turning_utilities(REWARDS, point=1.25, slope=4.0)
START = jnp.zeros((STATES, ARMS))
KEYS = jax.random.split(jax.random.key(0), 3)
CONSTRAINED = {"mu": analysis.mu_constrained_bandit, "xi": analysis.xi_constrained_bandit}
SETTINGS = {"learning_rate": 1.0, "draws": 8, "steps": 1200}


def history(method, **hyper):
    run = jax.jit(jax.vmap(lambda key: method(key, START, START, REWARDS, UTILITIES, **SETTINGS | hyper)))
    return jax.tree.map(np.asarray, run(KEYS))


@pytest.fixture(scope="module")
def summed():
    return history(analysis.summed_rewards_bandit)


def test_the_utility_has_its_kink_at_the_point():
    rewards = jnp.array([[0.5, 2.0], [1.0, 2.0], [1.5, -1.0]])
    np.testing.assert_allclose(analysis.turning_utilities(rewards, point=1.0, slope=3.0), [2.5, 3.0, 1 - 1.5 - 1])


def test_the_sum_of_the_rewards_passes_the_best_utility_and_ends_below_it(summed):
    assert (summed.utilities.max(axis=1) - summed.utilities[:, -1] > 0.2).all()
    assert (summed.utilities[:, 0] < summed.utilities.max(axis=1)).all()
    assert (summed.returns[:, -1] > 1.5).all()


@pytest.mark.parametrize("name", CONSTRAINED)
def test_constrained_rewards_rest_at_their_thresholds_and_keep_the_utility(name, summed):
    run = history(CONSTRAINED[name], thresholds=(0.8, 0.8), multiplier_learning_rate=0.03)
    np.testing.assert_allclose(run.returns[:, -200:].mean(axis=1), 0.8, atol=0.1)
    assert (run.utilities[:, -200:].mean(axis=1) > summed.utilities[:, -1] + 0.3).all()
    assert (run.kls[:, -1] < summed.kls[:, -1]).all()


@pytest.mark.parametrize("name", CONSTRAINED)
def test_constraints_that_cannot_be_met_leave_nothing_to_the_kl_and_stay_finite(name):
    """The weights of both rewards go to 1, whatever the thresholds ask beyond what any arm has."""
    run = history(CONSTRAINED[name], thresholds=(50.0, 50.0), multiplier_learning_rate=0.1, steps=600)
    weights = {"mu": lambda u: 1 / (1 + np.exp(-u)), "xi": np.tanh}[name](run.multipliers[:, -1])
    assert (weights > 0.9).all() and np.isfinite(run.logits).all()
    assert (run.returns[:, -1] > 1.2).all()


def test_a_met_inequality_is_given_up_and_a_passed_equality_is_pushed_down():
    """Both rewards begin at about 0, above thresholds of -1: too far down for weights within (-1, 1) to get there."""
    hyper = {"thresholds": (-1.0, -1.0), "multiplier_learning_rate": 0.1, "steps": 500}
    mu, xi = (history(CONSTRAINED[name], **hyper) for name in ("mu", "xi"))
    assert (np.abs(mu.returns[:, -1] - mu.returns[:, 0]) < 0.1).all() and (mu.multipliers[:, -1] < -1).all()
    assert (xi.returns.min(axis=1) < mu.returns[:, -1] - 0.2).all()


def test_a_run_in_two_parts_is_one_that_was_not_stopped():
    method, hyper = CONSTRAINED["mu"], {"thresholds": (0.5, 0.5), "draws": 2, "learning_rate": 1.0}
    keys = jax.random.split(KEYS[0], 6)

    def one_step(state, key):
        new = method(key, state[0], START, REWARDS, UTILITIES, state[1], steps=1, **hyper)
        return (new.logits, new.last), new.returns[0]

    whole, seen = jax.lax.scan(one_step, (START, jnp.zeros((2, 2))), keys)
    half, _ = jax.lax.scan(one_step, (START, jnp.zeros((2, 2))), keys[:3])
    again, rest = jax.lax.scan(one_step, half, keys[3:])
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    np.testing.assert_array_equal(seen[3:], rest)
    assert np.abs(whole[1]).max() > 0


def test_what_is_out_of_range_is_an_error():
    given = (KEYS[0], START, START, REWARDS, UTILITIES)
    for name in ("steps", "draws"):
        with pytest.raises(ValueError, match=f"^{name} must be an integer"):
            analysis.summed_rewards_bandit(*given, **{name: 0})
    with pytest.raises(ValueError, match=r"^beta must lie in"):
        analysis.summed_rewards_bandit(*given, beta=-1.0)
    for method in CONSTRAINED.values():
        with pytest.raises(ValueError, match="thresholds must have one number for each of the 2 objectives, got 3"):
            method(*given, thresholds=(1.0, 1.0, 1.0), steps=1)
    with pytest.raises(AssertionError):
        analysis.summed_rewards_bandit(KEYS[0], START, START, REWARDS[:3], UTILITIES)
    with pytest.raises(AssertionError, match=r"logits must have shape \('S', 'A'\)"):
        analysis.summed_rewards_bandit(KEYS[0], START[0], START[0], REWARDS[0], UTILITIES[0])
