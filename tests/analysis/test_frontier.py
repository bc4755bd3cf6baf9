"""The best trade between KL and reward: its slope, its ends, and that nothing lies above it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import analysis, multi_objective

V = 7


def case(seed=0):
    rng = np.random.default_rng(seed)
    return jax.nn.log_softmax(jnp.asarray(rng.normal(size=V), jnp.float32)), jnp.asarray(
        rng.normal(size=V), jnp.float32
    )


def of(policy, base, rewards):
    return float((jnp.exp(policy) * (policy - base)).sum()), float((jnp.exp(policy) * rewards).sum())


def test_the_slope_is_beta_and_the_closed_form_of_the_kl_holds():
    base, rewards = case()
    grid = np.geomspace(0.2, 5.0, 400)
    kls, gains, betas = map(np.asarray, analysis.kl_reward_frontier(base, rewards, betas=tuple(grid)))
    slopes = np.diff(gains) / np.diff(kls)
    np.testing.assert_allclose(slopes, np.sqrt(betas[1:] * betas[:-1]), rtol=2e-2)
    log_z = jax.nn.logsumexp(base + rewards / betas[:, None], axis=-1)
    np.testing.assert_allclose(kls, gains / betas - log_z, atol=1e-4)


def test_its_ends_are_the_reference_and_the_best_outcome():
    base, rewards = case(1)
    kls, gains, _ = analysis.kl_reward_frontier(base, rewards, betas=(1e4, 1e-3))
    best = int(jnp.argmax(rewards))
    np.testing.assert_allclose(kls, [0.0, -base[best]], atol=1e-5)
    np.testing.assert_allclose(gains, [(jnp.exp(base) * rewards).sum(), rewards[best]], atol=1e-3)


def test_no_policy_lies_above_it_best_of_n_among_them():
    base, rewards = case(2)
    kls, gains, _ = map(
        np.asarray, analysis.kl_reward_frontier(base, rewards, betas=tuple(np.geomspace(1e-2, 1e2, 800)))
    )
    order = jnp.argsort(rewards)
    cumulative = jnp.cumsum(jnp.exp(base)[order])
    policies = [jax.nn.log_softmax(3.0 * case(seed)[0]) for seed in range(3, 10)]
    for n in (2, 4, 16):
        mass = jnp.diff(cumulative**n, prepend=0.0)
        policies.append(jnp.log(jnp.maximum(jnp.zeros(V).at[order].set(mass), 1e-30)))
    for policy in policies:
        kl, gain = of(policy, base, rewards)
        assert gain <= np.interp(kl, kls[::-1], gains[::-1]) + 1e-3


def test_an_outcome_that_cannot_be_changes_nothing():
    base, rewards = case(3)
    more = analysis.kl_reward_frontier(jnp.append(base, -jnp.inf), jnp.append(rewards, 9.0), betas=(0.5, 2.0))
    for got, want in zip(more, analysis.kl_reward_frontier(base, rewards, betas=(0.5, 2.0)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_points_that_are_beaten_go_and_equal_ones_stay():
    kls, rewards = jnp.asarray([1.0, 1.0, 2.0, 2.0, 0.5]), jnp.asarray([0.5, 0.5, 0.4, 0.9, 0.1])
    best = multi_objective.non_dominated(jnp.stack([-kls, rewards], axis=1), jnp.ones(5, bool))
    np.testing.assert_array_equal(best, [True, True, False, True, True])


def test_bad_input_is_refused():
    base, rewards = case(4)
    with pytest.raises(ValueError, match=r"each of betas must lie in \(0, inf\), got 0.0"):
        analysis.kl_reward_frontier(base, rewards, betas=(1.0, 0.0))
    with pytest.raises(ValueError, match="betas must not be empty"):
        analysis.kl_reward_frontier(base, rewards, betas=())
