"""Regression of ratings, quantiles, Gaussians and classes against their identities in the catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import (
    brme_loss,
    brme_nll,
    classifier_reward_loss,
    multi_label_reward_regression,
    quantile_rm,
    reductions,
)

RNG = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def test_one_attribute_is_the_mean_squared_error():
    heads, ratings, rated = draw(6, 1), draw(6, 1), jnp.ones((6, 1), bool)
    values = multi_label_reward_regression(heads, ratings, rated)
    loss = reductions.token_mean.total(values, rated) / reductions.token_mean.weight(rated)
    np.testing.assert_allclose(loss, jnp.mean((heads - ratings) ** 2), rtol=1e-6)


def test_the_mean_is_over_the_ratings_that_are_there():
    rated = jnp.array([[True, False], [True, True]])
    values = multi_label_reward_regression(jnp.zeros((2, 2)), jnp.array([[1.0, 9.0], [2.0, 3.0]]), rated)
    loss = reductions.token_mean.total(values, rated) / reductions.token_mean.weight(rated)
    np.testing.assert_allclose(loss, (1 + 4 + 9) / 3)


def test_the_median_alone_costs_half_the_absolute_error():
    heads, ratings = draw(6, 2), draw(6, 2)
    got = quantile_rm(heads, ratings, jnp.ones((6, 2), bool), num_quantiles=1)
    np.testing.assert_allclose(got, jnp.abs(heads - ratings) / 2, rtol=1e-5)


def test_quantile_loss_is_zero_only_at_the_target_and_positive_elsewhere():
    rated = jnp.ones((1, 1), bool)
    at = lambda q: quantile_rm(jnp.full((1, 3), q), jnp.full((1, 1), 0.4), rated, num_quantiles=3)[0, 0]  # noqa: E731
    np.testing.assert_allclose(at(0.4), 0.0, atol=1e-7)
    assert at(0.41) > 0 and at(0.39) > 0


@pytest.mark.parametrize("index", [0, 4, 8])
def test_each_constant_head_is_best_at_its_empirical_quantile(index):
    targets = jnp.asarray(RNG.normal(size=199), jnp.float32)
    grid = jnp.linspace(-2.5, 2.5, 1001)
    rated = jnp.ones((199, 1), bool)

    def loss(value):
        heads = jnp.zeros((199, 9)).at[:, index].set(value)
        return quantile_rm(heads, targets[:, None], rated, num_quantiles=9).mean()

    best = grid[jnp.argmin(jax.vmap(loss)(grid))]
    np.testing.assert_allclose(best, jnp.quantile(targets, (index + 1) / 10), atol=0.02)


def test_levels_are_symmetric_about_one_half():
    quantiles, target = draw(1, 5), draw(1, 1)
    rated = jnp.ones((1, 1), bool)
    there = quantile_rm(quantiles, target, rated, num_quantiles=5)
    back = quantile_rm(-quantiles[:, ::-1], -target, rated, num_quantiles=5)
    np.testing.assert_allclose(there, back, rtol=1e-5)


def test_brme_averages_over_its_noise_to_squared_error_plus_variance():
    heads, count = draw(1, 4), 40_000
    got = brme_loss(jnp.repeat(heads, count, 0), jnp.full(count, 0.7), jnp.arange(count)).mean()
    means, deviations = heads[0, :2], jax.nn.softplus(heads[0, 2:])
    np.testing.assert_allclose(got, jnp.mean((means - 0.7) ** 2 + deviations**2), rtol=0.03)


def test_brme_nll_is_least_where_the_deviation_is_the_residual():
    def slope(raw, mean):
        return jax.grad(lambda s: brme_nll(jnp.stack([mean, s])[None], jnp.zeros(1))[0])(raw)

    raw = jnp.log(jnp.expm1(0.8 - 1e-3))
    np.testing.assert_allclose(slope(raw, jnp.float32(0.8)), 0.0, atol=1e-4)
    assert slope(raw - 0.2, jnp.float32(0.8)) < 0 < slope(raw + 0.2, jnp.float32(0.8))


def test_equal_logits_cost_log_two_and_the_loss_is_of_log_odds_alone():
    wanted = jnp.array([True, False])
    np.testing.assert_allclose(classifier_reward_loss(jnp.full((2, 2), 3.0), wanted), np.log(2), rtol=1e-6)
    logits = draw(2, 2)
    np.testing.assert_allclose(
        classifier_reward_loss(logits + 5, wanted), classifier_reward_loss(logits, wanted), rtol=1e-5
    )
    expected = -jax.nn.log_softmax(logits)[jnp.arange(2), wanted.astype(int)]
    np.testing.assert_allclose(classifier_reward_loss(logits, wanted), expected, rtol=1e-5)
