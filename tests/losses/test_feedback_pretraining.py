"""Pretraining with human feedback: every loss against the likelihood it becomes in a limit."""

import jax
import jax.numpy as jnp
import numpy as np

from alignment import losses

RNG = np.random.default_rng(0)
SHAPE = (3, 5)
LOGPS = jnp.asarray(-RNG.gamma(1.0, size=SHAPE), jnp.float32)
MASK = jnp.asarray(RNG.random(SHAPE) < 0.7)
BAD = jnp.asarray(RNG.random(SHAPE) < 0.5)
REWARDS = -BAD.astype(jnp.float32)
SFT = losses.sft(LOGPS, MASK)
GOOD_ALONE = jnp.where(BAD, 0.0, SFT)  # with a zero for every bad token: the mean is over all of them


def test_where_all_is_good_every_loss_is_the_likelihood():
    nothing = jnp.zeros(SHAPE)
    for loss in (losses.phf_unlikelihood, losses.phf_soft_unlikelihood, losses.phf_rwr):
        np.testing.assert_allclose(loss(LOGPS, nothing, MASK), SFT, rtol=1e-6)


def test_unlikelihood_without_its_second_term_counts_bad_tokens_as_zero():
    np.testing.assert_allclose(losses.phf_unlikelihood(LOGPS, REWARDS, MASK, alpha=0.0), GOOD_ALONE, rtol=1e-6)


def test_a_threshold_of_zero_is_a_threshold():
    slightly = jnp.where(BAD, -1e-3, 0.0)
    np.testing.assert_allclose(
        losses.phf_unlikelihood(LOGPS, slightly, MASK, threshold=0.0), losses.phf_unlikelihood(LOGPS, REWARDS, MASK)
    )


def test_the_gradient_of_unlikelihood_by_the_bad_tokens_logit_is_its_probability():
    logits = jnp.asarray(RNG.normal(size=(5, 7)), jnp.float32)
    bad, mask = -jnp.ones(5), jnp.ones(5, bool)
    loss = lambda x: losses.phf_unlikelihood(jax.nn.log_softmax(x)[:, 2], bad, mask).sum()  # noqa: E731
    np.testing.assert_allclose(jax.grad(loss)(logits)[:, 2], jax.nn.softmax(logits)[:, 2], rtol=1e-5)


def test_unlikelihood_keeps_its_digits_near_certainty_and_near_impossibility():
    logps = jnp.array([-1e-6, -1e-3, -0.6931472, -20.0, -1e4])
    exact = -np.log(-np.expm1(np.asarray(logps, np.float64)))
    got = losses.phf_unlikelihood(logps, -jnp.ones(5), jnp.ones(5, bool))
    np.testing.assert_allclose(got, exact, rtol=1e-5)


def test_hard_and_soft_unlikelihood_agree_on_scores_of_zero_and_one():
    hard, soft = (f(LOGPS, REWARDS, MASK, alpha=0.3) for f in (losses.phf_unlikelihood, losses.phf_soft_unlikelihood))
    np.testing.assert_allclose(hard, soft, rtol=1e-6)


def test_regression_goes_from_the_likelihood_to_that_of_good_tokens_alone():
    np.testing.assert_allclose(losses.phf_rwr(LOGPS, REWARDS, MASK, beta=1e6), SFT, rtol=1e-5)
    np.testing.assert_allclose(losses.phf_rwr(LOGPS, REWARDS, MASK, beta=1e-2), GOOD_ALONE, atol=1e-6)


def test_advantage_weighting_becomes_plain_or_reward_weighting():
    exact = losses.phf_awr(LOGPS, REWARDS, REWARDS, MASK, alpha=0.3)
    np.testing.assert_allclose(exact, 0.3 * SFT, rtol=1e-6)
    blind = losses.phf_awr(LOGPS, jnp.zeros(SHAPE), REWARDS, MASK, alpha=1.0, beta=0.5)
    np.testing.assert_allclose(blind, losses.phf_rwr(LOGPS, REWARDS, MASK, beta=0.5), rtol=1e-6)


def test_only_the_regression_trains_the_value_head():
    values = jnp.asarray(RNG.normal(size=SHAPE), jnp.float32)
    got = jax.grad(lambda v: losses.phf_awr(LOGPS, v, REWARDS, MASK, alpha=0.3, beta=0.5).sum())(values)
    np.testing.assert_allclose(got, jnp.where(MASK, 0.7 * 2 * (values - REWARDS), 0.0), rtol=1e-5)
