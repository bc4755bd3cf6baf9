"""ArmoRM on given features: normal equations, verbosity out, a gate that reads the prompt only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.rewards import armo

RNG = np.random.default_rng(0)


def test_ridge_solves_its_normal_equations_on_the_rated_rows():
    features, ratings, rated = RNG.normal(size=(40, 5)), RNG.normal(size=(40, 3)), RNG.random((40, 3)) < 0.6
    alphas = (0.1, 1.0, 10.0)
    weights = armo.ridge(features, np.where(rated, ratings, np.nan), rated, alphas=alphas)
    for k, alpha in enumerate(alphas):
        f, y = features[rated[:, k]], ratings[rated[:, k], k]
        np.testing.assert_allclose((f.T @ f + alpha * np.eye(5)) @ weights[:, k], f.T @ y, rtol=1e-8)
    with pytest.raises(ValueError, match="attribute 1: needs at least one rating"):
        armo.ridge(features, ratings, rated & np.array([True, False, True]), alphas=alphas)


def test_the_best_alpha_is_small_without_noise_and_large_with_nothing_to_learn():
    features = RNG.normal(size=(400, 5))
    ratings = np.stack([features @ np.arange(5.0), RNG.normal(size=400)], axis=1)
    small, large = armo.best_alphas(features, ratings, np.ones((400, 2), bool), grid=(1e-4, 1.0, 1e4))
    assert small == 1e-4 and large == 1e4


def test_the_transform_takes_verbosity_out_and_is_the_identity_but_for_its_row():
    verbosity = RNG.normal(size=500)
    rewards = np.stack([RNG.normal(size=500) + 0.8 * verbosity, verbosity, RNG.normal(size=500)], axis=1)
    transform = armo.verbosity_transform(rewards, 1, grid=np.linspace(0, 2, 41))
    adjusted = rewards @ transform
    assert armo.spearman(rewards[:, 0], verbosity) > 0.4
    assert all(armo.spearman(adjusted[:, k], verbosity) <= 0.03 for k in (0, 2))
    np.testing.assert_array_equal(adjusted[:, 1], 0.0)
    np.testing.assert_array_equal(np.delete(transform, 1, axis=0), np.delete(np.eye(3), 1, axis=0))
    with pytest.raises(ValueError, match="attribute 0: no value of the grid"):
        armo.verbosity_transform(rewards, 1, grid=(0.0, 0.1))


def test_rank_correlation_sees_order_only():
    x = RNG.normal(size=50)
    assert armo.spearman(x, np.exp(3 * x)) == pytest.approx(1.0)
    assert armo.spearman(x, -x) == pytest.approx(-1.0)
    assert armo.spearman(x, np.ones(50)) == 0.0


def test_the_gate_is_nearly_uniform_at_first_and_its_scale_scales_the_reward():
    params = armo.init_gate(jax.random.key(0), 6, 3, hidden=(16, 16))
    prompts = jnp.asarray(RNG.normal(size=(8, 6)), jnp.float32)
    gates = armo.gate(params, prompts)
    np.testing.assert_allclose(gates, 1 / 3, atol=0.01)
    np.testing.assert_allclose(armo.gate({**params, "scale": 2.0}, prompts), 2 * gates, rtol=1e-6)
    rewards = jnp.asarray(RNG.normal(size=(8, 3)), jnp.float32)
    mean = armo.armo_score(jnp.full((8, 3), 1 / 3), rewards, np.eye(3))
    np.testing.assert_allclose(mean, rewards.mean(axis=-1), rtol=1e-5)
