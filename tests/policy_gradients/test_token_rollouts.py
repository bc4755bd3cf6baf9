"""One-token rollouts, restricted actions and roll-ins against their identities in the catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.policy_gradients import (
    aggrevated_mask,
    d2lols_mask,
    lols_mask,
    nlpo_logps,
    nlpo_token_logps,
    nlpo_top_k,
    nlpo_top_p,
    otr,
    otr_exact,
    ppo_plus_plus_mask,
    rlgf_roll_in_lengths,
)

N, T, V = 4, 5, 7
RNG = np.random.default_rng(0)
LOGITS, OTHER_LOGITS = (jnp.asarray(1.5 * RNG.normal(size=(N, T, V)), jnp.float32) for _ in range(2))
TOKENS = jnp.asarray(RNG.integers(0, V, (N, T)))
MASK = jnp.asarray(RNG.random((N, T)) < 0.7).at[:, 0].set(True)
NONE = jnp.zeros((N, T, V), bool)


def logit_gradient(loss, logits=LOGITS):
    return jax.grad(lambda z: jnp.sum(loss(z)))(logits)


def dft(logits):
    """Dynamic fine-tuning, written out: the token's probability, held fixed, times its negative log-likelihood."""
    taken = jnp.take_along_axis(jax.nn.log_softmax(logits), TOKENS[..., None], -1)[..., 0]
    return jnp.where(MASK, -jax.lax.stop_gradient(jnp.exp(taken)) * taken, 0.0)


@pytest.mark.parametrize("beta", [-0.1, 0.0, 0.5])
def test_untempered_otr_has_in_expectation_one_minus_beta_times_the_gradient_of_dft(beta):
    got = logit_gradient(lambda z: otr_exact(z, TOKENS, MASK, beta=beta, kappa=1.0))
    np.testing.assert_allclose(got, (1 - beta) * logit_gradient(dft), rtol=1e-4, atol=1e-6)


def test_otr_with_a_reward_of_one_for_every_token_has_no_expected_gradient_untempered():
    got = logit_gradient(lambda z: otr_exact(z, TOKENS, MASK, beta=1.0, kappa=1.0))
    np.testing.assert_allclose(got, 0, atol=1e-6)
    assert np.abs(logit_gradient(lambda z: otr_exact(z, TOKENS, MASK, beta=1.0, kappa=1.3))).max() > 1e-3


def test_temperature_is_what_separates_otr_from_a_rescaled_dft():
    got = logit_gradient(lambda z: otr_exact(z, TOKENS, MASK, kappa=1.3))
    assert np.abs(got - 1.1 * logit_gradient(dft)).max() > 1e-2


def sampled_gradient(key, draws, kappa=1.3):
    drawn = jax.random.categorical(key, LOGITS[..., None, :] / kappa, shape=(N, T, draws))

    def loss(logits):
        logps = jnp.take_along_axis(jax.nn.log_softmax(logits), drawn, -1)
        return otr(logps, drawn, TOKENS, MASK)

    return logit_gradient(loss)


def test_otr_converges_to_its_exact_form_with_a_variance_of_one_over_k():
    exact = logit_gradient(lambda z: otr_exact(z, TOKENS, MASK))
    keys = jax.random.split(jax.random.key(0), 64)
    few, many = (jax.vmap(lambda k, n=n: sampled_gradient(k, n))(keys) for n in (4, 64))
    np.testing.assert_allclose(many.mean(0), exact, atol=0.02)
    assert np.abs(exact).max() > 0.1
    variance = [float(jnp.mean((x - exact) ** 2)) for x in (few, many)]
    np.testing.assert_allclose(variance[0] / variance[1], 16, rtol=0.25)


def test_a_position_whose_token_is_certain_has_no_loss():
    certain = 50 * jax.nn.one_hot(TOKENS, V)
    np.testing.assert_allclose(otr_exact(certain, TOKENS, MASK), 0, atol=1e-5)
    drawn = jnp.broadcast_to(TOKENS[..., None], (N, T, 8))
    np.testing.assert_array_equal(otr(jnp.zeros((N, T, 8)), drawn, TOKENS, MASK), 0)


# ----------------------------------------------------------------------------------------------------------- NLPO


def test_p_of_one_masks_nothing_and_is_the_policy_itself():
    actions = nlpo_top_p(OTHER_LOGITS, NONE, p=1.0, min_tokens=1)
    assert actions.all()
    np.testing.assert_allclose(nlpo_logps(LOGITS, actions), jax.nn.log_softmax(LOGITS), rtol=1e-6)


def test_p_of_zero_with_one_token_is_greedy_in_the_mask_policy():
    actions = nlpo_top_p(OTHER_LOGITS, NONE, p=0.0, min_tokens=1)
    np.testing.assert_array_equal(actions, jax.nn.one_hot(OTHER_LOGITS.argmax(-1), V) > 0)
    np.testing.assert_array_equal(actions, nlpo_top_k(OTHER_LOGITS, NONE, k=1))


@pytest.mark.parametrize("p", [0.3, 0.7, 0.95])
def test_top_p_is_the_smallest_set_of_likeliest_tokens_with_more_than_mass_p(p):
    probabilities = np.asarray(jax.nn.softmax(OTHER_LOGITS))
    actions = np.asarray(nlpo_top_p(OTHER_LOGITS, NONE, p=p, min_tokens=1))
    kept = np.where(actions, probabilities, 0).sum(-1)
    least = np.where(actions, probabilities, np.inf).min(-1)
    assert np.all(kept > p) and np.all(kept - least <= p)
    assert np.all(np.where(actions, 0, probabilities).max(-1) <= least)


def test_special_tokens_and_the_least_number_of_tokens_are_always_there():
    special = NONE.at[..., 2].set(True)
    assert nlpo_top_p(OTHER_LOGITS, special, p=0.0, min_tokens=1)[..., 2].all()
    np.testing.assert_array_equal(nlpo_top_p(OTHER_LOGITS, NONE, p=0.0, min_tokens=3).sum(-1), 3)
    np.testing.assert_array_equal(nlpo_top_k(OTHER_LOGITS, NONE, k=3).sum(-1), 3)
    assert nlpo_top_p(OTHER_LOGITS, NONE).all()  # 100 tokens of a vocabulary of seven


def test_restricted_probabilities_sum_to_one_and_are_nothing_outside_gradient_included():
    actions = nlpo_top_p(OTHER_LOGITS, NONE, p=0.6, min_tokens=1)
    probabilities = jnp.exp(nlpo_logps(LOGITS, actions))
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-6)
    assert not actions.all()
    np.testing.assert_array_equal(probabilities[~actions], 0)
    tokens = OTHER_LOGITS.argmax(-1)
    gradient = logit_gradient(lambda z: nlpo_token_logps(z, actions, tokens, MASK))
    np.testing.assert_array_equal(gradient[~actions], 0)
    expected = jnp.where(MASK[..., None], jax.nn.one_hot(tokens, V) - probabilities, 0)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_ratio_with_one_mask_is_one_at_the_old_policy_and_a_token_outside_its_mask_has_no_probability():
    actions = nlpo_top_p(OTHER_LOGITS, NONE, p=0.6, min_tokens=1)
    outside = jnp.argmin(OTHER_LOGITS, -1)
    logps = nlpo_token_logps(LOGITS, actions, outside, MASK)
    np.testing.assert_array_equal(jnp.exp(logps)[MASK], 0)
    np.testing.assert_array_equal(logit_gradient(lambda z: nlpo_token_logps(z, actions, outside, MASK)), 0)


# ----------------------------------------------------------------------------------------------------------- RLGF

LENGTHS = jnp.asarray(RNG.integers(0, T, N))


def test_ppo_plus_plus_without_roll_ins_is_ppo():
    lengths = rlgf_roll_in_lengths(*jnp.asarray(RNG.random((2, N)), jnp.float32), MASK.sum(-1), beta=0.0)
    np.testing.assert_array_equal(ppo_plus_plus_mask(lengths, MASK), MASK)


def test_the_two_masks_are_complements_on_the_completion():
    after, within = ppo_plus_plus_mask(LENGTHS, MASK), aggrevated_mask(LENGTHS, MASK)
    np.testing.assert_array_equal(after ^ within, MASK)
    assert not (after & within).any()
    np.testing.assert_array_equal(within.sum(-1), jnp.minimum(LENGTHS, MASK.sum(-1)))


def test_limits_of_lols_and_d2lols():
    coins, iterations = jnp.asarray(RNG.random(N), jnp.float32), jnp.arange(N)
    after, within = ppo_plus_plus_mask(LENGTHS, MASK), aggrevated_mask(LENGTHS, MASK)
    np.testing.assert_array_equal(lols_mask(coins, LENGTHS, MASK, tau=1.0), after)
    np.testing.assert_array_equal(lols_mask(coins, LENGTHS, MASK, tau=0.0), within)
    np.testing.assert_array_equal(d2lols_mask(iterations, LENGTHS, MASK, tau=0), after)
    np.testing.assert_array_equal(d2lols_mask(iterations, LENGTHS, MASK), within)
    mixed = d2lols_mask(iterations, LENGTHS, MASK, tau=2)
    np.testing.assert_array_equal(mixed, jnp.concatenate([within[:2], after[2:]]))


def test_roll_in_lengths_are_uniform_below_the_last_token_with_probability_beta():
    coins, uniforms = jax.random.uniform(jax.random.key(0), (2, 20000))
    lengths = np.asarray(rlgf_roll_in_lengths(coins, uniforms, jnp.full(20000, 5), beta=0.8))
    shares = np.bincount(lengths, minlength=4) / 20000
    np.testing.assert_allclose(shares, [0.2 + 0.2, 0.2, 0.2, 0.2], atol=0.015)
    assert lengths.max() == 3


def test_with_the_optimal_guide_the_greedy_step_of_aggrevated_is_optimal():
    """A lock of three dials: completed by the optimal guide, a roll-in loses its reward at the first wrong digit."""
    secret, digits = jnp.array([2, 0, 1]), 3
    codes = jnp.stack(jnp.meshgrid(*[jnp.arange(digits)] * 3), -1).reshape(-1, 3)
    right = (codes == secret).astype(jnp.float32)
    still = jnp.cumprod(right, -1)
    advantages = still - jnp.concatenate([jnp.ones((len(codes), 1)), still[:, :-1]], -1)
    gradient = jnp.zeros((3, digits))  # at the uniform policy, every code and every roll-in length once
    for length in (1, 2, 3):
        trained = aggrevated_mask(jnp.full(len(codes), length), jnp.ones(codes.shape, bool))
        weights = jnp.where(trained, advantages, 0.0)
        gradient += jnp.einsum("nt,ntd->td", weights, jax.nn.one_hot(codes, digits) - 1 / digits)
    np.testing.assert_array_equal(jnp.argmax(gradient, -1), secret)
