"""Several scores as one: sums, saturating sums, quantiles, classes."""

import jax.numpy as jnp
import numpy as np
import pytest

from alignment.rewards import combining

RNG = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def test_a_one_hot_weight_is_that_head_and_equal_weights_are_the_mean():
    scores = draw(5, 3)
    np.testing.assert_allclose(combining.weighted_sum(scores, weights=(0, 1, 0)), scores[:, 1])
    np.testing.assert_allclose(combining.weighted_sum(scores), scores.mean(axis=-1), rtol=1e-6)
    np.testing.assert_array_equal(combining.one_head(scores, index=2), scores[:, 2])


def test_transformed_rewards_at_their_reference_are_minus_k_log_two_and_never_positive():
    reference = draw(5, 3)
    np.testing.assert_allclose(combining.transformed_reward_sum(reference, reference), -3 * np.log(2), rtol=1e-6)
    assert (combining.transformed_reward_sum(reference + 50, reference) <= 0).all()


def test_no_gain_from_one_reward_alone_and_a_linear_loss_far_below():
    low, high = jnp.array([[-1.0, 10.0]]), jnp.array([[-1.0, 1000.0]])
    np.testing.assert_allclose(combining.transformed_sum(low), combining.transformed_sum(high), rtol=1e-4)
    far = combining.transformed_sum(jnp.array([[-80.0], [-90.0]]), reference=(2.0,))
    np.testing.assert_allclose(far, [-82.0, -92.0], rtol=1e-6)


def test_of_one_reward_the_order_stays():
    scores = jnp.sort(draw(20))[:, None]
    assert (jnp.diff(combining.transformed_sum(scores, reference=(0.3,))) > 0).all()


def test_the_reference_is_a_quantile_of_the_samples():
    np.testing.assert_allclose(combining.reference_quantile(jnp.arange(101.0)[None]), [85.0])


def test_low_quantiles_are_sorted_before_they_are_averaged():
    crossed = jnp.array([[3.0, 1.0, 2.0, 4.0]])
    np.testing.assert_allclose(combining.lower_quantile_mean(crossed, share=0.5), [1.5])
    np.testing.assert_allclose(combining.lower_quantile_mean(crossed, share=0.01), [1.0])
    np.testing.assert_allclose(combining.quantile_mean(crossed), [2.5])


def test_spread_costs_an_exponential_utility():
    even, spread = jnp.zeros((1, 2)), jnp.array([[-1.0, 1.0]])
    np.testing.assert_allclose(combining.exponential_utility(even), [-1.0])
    np.testing.assert_allclose(combining.exponential_utility(spread), [-np.cosh(1.0)], rtol=1e-6)


def test_equal_logits_are_one_half_and_the_log_odds_are_those_of_the_probability():
    np.testing.assert_allclose(combining.class_probability(jnp.full((1, 2), 7.0)), [0.5])
    logits = draw(5, 2)
    p = combining.class_probability(logits)
    np.testing.assert_allclose(combining.class_log_odds(logits), jnp.log(p) - jnp.log1p(-p), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(combining.class_log_probability(logits), jnp.log(p), rtol=1e-5)


def test_what_does_not_fit_is_an_error():
    for call, said in (
        (lambda: combining.one_head(draw(2, 3), index=3), r"index must lie in \[0, 3\)"),
        (lambda: combining.weighted_sum(draw(2, 3), weights=(1, 2)), "3 entries"),
        (lambda: combining.transformed_sum(draw(2, 3), reference=(1, 2)), "1 or 3 entries"),
        (lambda: combining.lower_quantile_mean(draw(2, 3), share=0.0), r"share must lie in \(0, 1\]"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    with pytest.raises(AssertionError, match="two classes"):
        combining.class_probability(draw(2, 3))
