"""KL estimates on distributions small enough to sum over, and the entropy terms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import reductions
from alignment.policy_gradients import (
    entropy_bonus,
    entropy_target,
    kl_full_vocabulary,
    kl_k1,
    kl_k2,
    kl_k3,
    kl_k3_plus,
)

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(size=7), jnp.float32)
REFERENCE = jax.nn.log_softmax(jnp.asarray(RNG.normal(size=7), jnp.float32))
EVERY = jnp.ones(7, bool)
# Every token of the vocabulary once, as if it had been sampled; its probability is then its weight.
ESTIMATORS = {"kl_k1": kl_k1, "kl_k2": kl_k2, "kl_k3": kl_k3, "kl_k3_plus": kl_k3_plus}
each = pytest.mark.parametrize("name", ESTIMATORS)


def kl(p, q):
    return jnp.sum(jnp.exp(p) * (p - q))


def expected_value(estimator, logits):
    policy = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(policy) * estimator(policy, REFERENCE, EVERY))


def expected_gradient(estimator, logits):
    """Mean over the policy's samples of the gradient of the term, the samples themselves held fixed."""
    weights = jax.lax.stop_gradient(jax.nn.softmax(logits))
    return jax.grad(lambda x: jnp.sum(weights * estimator(jax.nn.log_softmax(x), REFERENCE, EVERY)))(logits)


def reverse_kl_gradient(logits):
    return jax.grad(lambda x: kl(jax.nn.log_softmax(x), REFERENCE))(logits)


def forward_kl_gradient(logits):
    return jax.grad(lambda x: kl(REFERENCE, jax.nn.log_softmax(x)))(logits)


@pytest.mark.parametrize("name", ["kl_k1", "kl_k3", "kl_k3_plus"])
def test_k1_and_k3_are_the_kl_in_expectation(name):
    wanted = kl(jax.nn.log_softmax(LOGITS), REFERENCE)
    assert wanted > 0.1
    np.testing.assert_allclose(expected_value(ESTIMATORS[name], LOGITS), wanted, rtol=1e-5)


@pytest.mark.parametrize("name", ["kl_k2", "kl_k3_plus"])
def test_the_expected_gradient_of_k2_and_k3_plus_is_that_of_the_reverse_kl(name):
    np.testing.assert_allclose(
        expected_gradient(ESTIMATORS[name], LOGITS), reverse_kl_gradient(LOGITS), rtol=1e-4, atol=1e-6
    )


def test_the_expected_gradient_of_k1_is_zero():
    np.testing.assert_allclose(expected_gradient(kl_k1, LOGITS), 0, atol=1e-6)


def test_the_expected_gradient_of_k3_is_that_of_the_forward_kl_and_not_of_the_kl_it_estimates():
    got = expected_gradient(kl_k3, LOGITS)
    np.testing.assert_allclose(got, forward_kl_gradient(LOGITS), rtol=1e-4, atol=1e-6)
    assert np.abs(got - reverse_kl_gradient(LOGITS)).max() > 0.01


def test_gradients_per_token_are_one_d_and_one_minus_the_inverse_ratio():
    policy, reference = jnp.array([-1.0, -2.0]), jnp.array([-1.5, -1.0])
    d = policy - reference
    wanted = {"kl_k1": jnp.ones(2), "kl_k2": d, "kl_k3": 1 - jnp.exp(-d), "kl_k3_plus": d}
    for name, estimator in ESTIMATORS.items():
        got = jax.grad(lambda p, e=estimator: jnp.sum(e(p, reference, jnp.ones(2, bool))))(policy)
        np.testing.assert_allclose(got, wanted[name], rtol=1e-5, err_msg=name)


@each
def test_estimates_vanish_where_policy_and_reference_agree(name):
    x = jnp.linspace(-5, -0.1, 7)
    np.testing.assert_array_equal(ESTIMATORS[name](x, x, EVERY), 0.0)


@pytest.mark.parametrize("name", ["kl_k2", "kl_k3", "kl_k3_plus"])
def test_k2_and_k3_are_positive_wherever_they_differ(name):
    d = jnp.array([-1e4, -19.0, -1.0, -1e-3, 1e-3, 1.0, 19.0])
    assert (ESTIMATORS[name](d, jnp.zeros(7), EVERY) > 0).all()


def test_k3_keeps_its_second_order_where_the_exponential_rounds_to_one():
    d = jnp.full(7, 1e-4)
    np.testing.assert_allclose(kl_k3(d, jnp.zeros(7), EVERY), kl_k2(d, jnp.zeros(7), EVERY), rtol=0.1)


def test_the_bias_of_k2_is_of_order_kl_to_the_three_halves():
    """Along a line into the reference, (E k2 - KL) / KL^(3/2) tends to a constant, so E k2 / KL tends to 1."""
    with jax.enable_x64(True):
        start, direction = np.asarray(REFERENCE, np.float64), np.asarray(LOGITS, np.float64)
        biases = []
        for step in (0.1, 0.05, 0.025):
            policy = jax.nn.log_softmax(jnp.asarray(start + step * direction))
            reference = jax.nn.log_softmax(jnp.asarray(start))
            exact = jnp.sum(jnp.exp(policy) * (policy - reference))
            bias = jnp.sum(jnp.exp(policy) * kl_k2(policy, reference, EVERY)) - exact
            biases.append(float(bias / exact**1.5))
            third = jnp.sum(jnp.exp(policy) * kl_k3(policy, reference, EVERY))
            np.testing.assert_allclose(third, exact, rtol=1e-10)
        assert biases[0] != 0
        np.testing.assert_allclose(biases[1:], biases[:-1], rtol=0.2)


def test_k1_is_noisier_than_k2_and_k3_near_the_reference():
    policy = jax.nn.log_softmax(REFERENCE + 0.1 * LOGITS)
    weights = jnp.exp(policy)

    def variance(estimator):
        values = estimator(policy, REFERENCE, EVERY)
        return jnp.sum(weights * jnp.square(values - jnp.sum(weights * values)))

    assert variance(kl_k1) > 10 * max(variance(kl_k2), variance(kl_k3))


def test_full_vocabulary_kl_is_what_the_samples_estimate():
    policy = jax.nn.log_softmax(LOGITS)
    exact = kl_full_vocabulary(kl(policy, REFERENCE)[None], jnp.array([True]))
    np.testing.assert_allclose(expected_value(kl_k3, LOGITS), exact[0], rtol=1e-5)


def test_k3_plus_logs_k3_even_where_k2_is_huge():
    far = jnp.array([-1e4, 1e4])
    both = jnp.ones(2, bool)
    np.testing.assert_array_equal(kl_k3_plus(far, jnp.zeros(2), both), kl_k3(far, jnp.zeros(2), both))


# -------------------------------------------------------------------------------------------------------------- entropy

ENTROPIES = jnp.asarray(RNG.gamma(2.0, size=(4, 5)), jnp.float32)
MASK = jnp.asarray(RNG.random((4, 5)) < 0.6).at[:, 0].set(True)
VALID = jnp.array([True, True, False, True])
MEAN = float(jnp.mean(ENTROPIES[MASK & VALID[:, None]]))


@pytest.mark.parametrize("target", [0.0, MEAN - 0.3, MEAN + 0.3, 35.0])
def test_the_token_mean_of_entropy_target_is_the_distance_of_the_mean_and_its_gradient_a_sign(target):
    def loss(entropies):
        total, weight = reductions.token_mean(
            entropy_target(entropies, MASK, VALID, target=target), MASK & VALID[:, None]
        )
        return total / weight

    value, gradient = jax.value_and_grad(loss)(ENTROPIES)
    np.testing.assert_allclose(value, abs(MEAN - target), rtol=1e-5)
    count = int(jnp.sum(MASK & VALID[:, None]))
    np.testing.assert_allclose(
        gradient, jnp.where(MASK & VALID[:, None], np.sign(MEAN - target) / count, 0.0), rtol=1e-5
    )


def test_a_target_out_of_reach_is_the_entropy_bonus():
    gradients = [
        jax.grad(lambda h: jnp.sum(entropy_target(h, MASK, VALID, target=35.0)))(ENTROPIES),
        jax.grad(lambda h: jnp.sum(entropy_bonus(h, MASK & VALID[:, None])))(ENTROPIES),
    ]
    np.testing.assert_array_equal(*gradients)
