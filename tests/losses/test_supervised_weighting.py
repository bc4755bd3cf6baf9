"""Weighted supervised losses against their identities and limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import analysis, losses
from alignment.losses import reductions

B, T, V = 3, 4, 6
MASK = jnp.array([[True, True, False, False], [True, False, True, True], [False, False, False, True]])
RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(size=(B, T, V)), jnp.float32)
TARGETS = jnp.asarray(RNG.integers(0, V, (B, T)))
ALL = jnp.ones(B, bool)
FDIVS = (losses.fdiv_sft_total_variation, losses.fdiv_sft_pearson, losses.fdiv_sft_hellinger)


def logps_of(logits):
    return jnp.take_along_axis(jax.nn.log_softmax(logits), TARGETS[..., None], -1)[..., 0]


def mean(values, mask=MASK, reduction=reductions.token_mean):
    total, weight = reduction(values, mask)
    return total / weight


def test_dft_has_the_gradient_of_minus_the_mean_probability():
    probabilities = lambda logits: -mean(jnp.exp(logps_of(logits)))  # noqa: E731
    got = jax.grad(lambda logits: mean(losses.dft(logps_of(logits), MASK)))(LOGITS)
    np.testing.assert_allclose(got, jax.grad(probabilities)(LOGITS), rtol=1e-5, atol=1e-7)
    p = jnp.exp(logps_of(LOGITS))[..., None]
    expected = p * (jax.nn.softmax(LOGITS) - jax.nn.one_hot(TARGETS, V)) * MASK[..., None] / MASK.sum()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


def test_dft_at_uniform_logits_is_log_v_over_v():
    np.testing.assert_allclose(mean(losses.dft(logps_of(jnp.zeros((B, T, V))), MASK)), np.log(V) / V, rtol=1e-6)


def test_dft_approaches_sft_as_every_token_becomes_certain():
    sure = LOGITS + 12 * jax.nn.one_hot(TARGETS, V)
    grads = [jax.grad(lambda x, f=f: mean(f(logps_of(x), MASK)))(sure) for f in (losses.dft, losses.sft)]
    np.testing.assert_allclose(*grads, rtol=1e-3)
    values = losses.dft(logps_of(LOGITS), MASK) / jnp.exp(logps_of(LOGITS))
    np.testing.assert_allclose(values, losses.sft(logps_of(LOGITS), MASK), rtol=1e-6)


def test_crlft_with_equal_weights_is_sft_and_a_constant_factor_changes_nothing():
    logps, weights = logps_of(LOGITS), jnp.array([1.0, 0.1, 0.4])
    sft = losses.sft(logps, MASK)
    np.testing.assert_allclose(losses.crlft(logps, 7 * jnp.ones(B), MASK, ALL), sft, rtol=1e-6)
    scaled = [losses.crlft(logps, factor * weights, MASK, ALL) for factor in (1.0, 30.0)]
    np.testing.assert_allclose(*scaled, rtol=1e-6)
    by_rows = losses.crlft_per_sequence(logps, jnp.ones(B), MASK, ALL)
    np.testing.assert_allclose(by_rows.mean(), mean(sft, reduction=reductions.sequence_mean), rtol=1e-6)


def test_crlft_divides_by_the_weights_and_a_weight_of_zero_filters():
    logps, weights = logps_of(LOGITS), jnp.array([1.0, 0.0, 0.25])
    tokens = MASK * weights[:, None]
    expected = -(tokens * logps).sum() / tokens.sum()
    np.testing.assert_allclose(mean(losses.crlft(logps, weights, MASK, ALL)), expected, rtol=1e-6)
    expert = np.array([0, 2])
    filtered = losses.crlft(logps, jnp.array([1.0, 0.0, 1.0]), MASK, ALL)
    np.testing.assert_allclose(mean(filtered), mean(losses.sft(logps[expert], MASK[expert]), MASK[expert]), rtol=1e-6)


def test_rewards_of_openchat_give_its_weights():
    alpha, beta = 0.1, 0.9 / np.log(10)
    np.testing.assert_allclose(np.exp((1 - alpha) / beta), 10, rtol=1e-6)


@pytest.mark.parametrize("loss", FDIVS)
def test_at_the_reference_every_loss_is_zero_and_pulls_by_beta(loss):
    logps = logps_of(LOGITS)
    values, pull = jax.vjp(lambda x: loss(x, logps, MASK, beta=0.3), logps)
    np.testing.assert_array_equal(values, 0.0)
    np.testing.assert_allclose(pull(jnp.ones((B, T)))[0], jnp.where(MASK, -0.3, 0.0), rtol=1e-6)


def test_total_variation_is_beta_times_the_difference_of_losses():
    logps, reference = logps_of(LOGITS), logps_of(LOGITS[..., ::-1])
    expected = 0.3 * (losses.sft(logps, MASK) - losses.sft(reference, MASK))
    got = losses.fdiv_sft_total_variation(logps, reference, MASK, beta=0.3)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def phi(loss, rewards):
    rewards = jnp.asarray(rewards, jnp.float32)
    return -loss(rewards, jnp.zeros_like(rewards), jnp.ones(rewards.shape, bool), beta=1.0)


def test_pearson_turns_round_at_two_and_hellinger_fades():
    rewards = np.array([0.5, 2.0, 3.0])
    for loss, weights in ((FDIVS[1], 1 - rewards / 2), (FDIVS[2], 1 / (1 + rewards) ** 2)):
        got = jax.grad(lambda r, loss=loss: phi(loss, r).sum())(jnp.asarray(rewards, jnp.float32))
        np.testing.assert_allclose(got, weights, rtol=1e-5, atol=1e-6)
    assert (phi(FDIVS[2], [1.0, 1e2, 1e6]) <= 1).all()
    # The tangent meets the curve in value and slope.
    at = [jax.value_and_grad(lambda r: phi(FDIVS[2], r))(r) for r in (-0.89999, -0.90001)]
    np.testing.assert_allclose(at[0], at[1], rtol=1e-3)


def test_every_phi_is_a_numerical_legendre_transform():
    rewards, t = np.array([-0.6, -0.1, 0.0, 0.3, 0.45]), np.linspace(0, 30, 300_001)
    generators = (0.5 * np.abs(t - 1), (t - 1) ** 2, (np.sqrt(t) - 1) ** 2)
    for loss, generator in zip(FDIVS, generators, strict=True):
        # f* of total variation is finite on [-1/2, 1/2] alone; beyond, t goes to infinity.
        inside = rewards[np.abs(rewards) <= 0.5] if loss is FDIVS[0] else rewards
        conjugate = np.array([np.max(-r * t - generator) for r in inside])
        np.testing.assert_allclose(phi(loss, inside), -conjugate, atol=1e-4)
    for loss, f in zip(FDIVS[1:], (analysis.pearson_conjugate, analysis.squared_hellinger_conjugate), strict=True):
        np.testing.assert_allclose(phi(loss, rewards), -f(-rewards), rtol=1e-5)
