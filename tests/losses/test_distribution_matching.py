"""EXO, InfoNCA and NCA against their identities in the catalogue."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import dpo, exo, infonca, nca

B, K, T = 5, 4, 3
FULL = jnp.ones((B, K, T), bool)
BETA = 0.3
each = pytest.mark.parametrize("kernel", [exo, infonca, nca], ids=lambda k: k.__name__)


def lists(seed=0, size=K):
    rng = np.random.default_rng(seed)
    policy, reference = (jnp.asarray(rng.normal(size=(B, size)), jnp.float32) * 5 for _ in range(2))
    return policy, reference, jnp.asarray(rng.normal(size=(B, size)), jnp.float32)


def softmax(x):
    x = np.asarray(x, np.float64)
    return np.exp(x - x.max(-1, keepdims=True)) / np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)


def one_hot(size=K):
    """Rewards so far apart that their softmax is one and zeros in float32."""
    return jnp.zeros((B, size)).at[:, 0].set(1e4)


@each
@hypothesis.settings(deadline=None, max_examples=15)
@hypothesis.given(present=st.lists(st.lists(st.booleans(), min_size=K, max_size=K), min_size=B, max_size=B))
def test_a_ragged_list_is_the_list_of_what_is_there(kernel, present):
    policy, reference, rewards = lists(1)
    present = np.array(present)
    mask = jnp.asarray(present[..., None] & (np.arange(T) < 2))
    got = kernel(*(jnp.where(present, x, jnp.nan) for x in (policy, reference, rewards)), mask)
    for b, there in enumerate(present):
        alone = (x[b : b + 1, there] for x in (policy, reference, rewards, FULL))
        expected = kernel(*alone)[0] if there.any() else 0.0
        np.testing.assert_allclose(got[b], expected, rtol=1e-4, atol=1e-6)


@each
def test_an_empty_list_has_no_gradient(kernel):
    policy, reference, rewards = lists()
    value, gradient = jax.value_and_grad(lambda p: jnp.sum(kernel(p, reference, rewards, ~FULL)))(policy)
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros((B, K)))


@each
def test_joint_permutation_and_a_shift_of_the_rewards_change_nothing(kernel):
    policy, reference, rewards = lists()
    order = np.array([2, 0, 3, 1])
    expected = kernel(policy, reference, rewards, FULL)
    np.testing.assert_allclose(
        kernel(policy[:, order], reference[:, order], rewards[:, order], FULL), expected, rtol=1e-5
    )
    np.testing.assert_allclose(kernel(policy, reference, rewards + 3, FULL), expected, rtol=1e-4)


@each
def test_only_nca_minds_a_common_shift_of_the_log_ratios(kernel):
    policy, reference, rewards = lists()
    hyper = {"beta_pi": BETA} if kernel is exo else {"beta": BETA}
    difference = np.asarray(
        kernel(policy + 4, reference, rewards, FULL, **hyper) - kernel(policy, reference, rewards, FULL, **hyper)
    )
    if kernel is nca:
        assert (np.abs(difference) > 1e-2).all()
    else:
        np.testing.assert_allclose(difference, 0, atol=1e-5)


# ----------------------------------------------------------------------------------------------------------- exo


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(seed=st.integers(0, 2**16))
def test_exo_is_the_kl_of_the_policy_to_the_rewards_and_never_negative(seed):
    policy, reference, rewards = lists(seed)
    q, p = softmax(0.4 * (np.asarray(policy) - np.asarray(reference))), softmax(np.asarray(rewards) / 0.7)
    got = exo(policy, reference, rewards, FULL, beta_pi=0.4, beta_r=0.7)
    np.testing.assert_allclose(got, (q * np.log(q / p)).sum(-1), rtol=1e-3, atol=1e-5)
    assert (got > -1e-6).all()


def test_exo_is_zero_where_the_log_ratios_are_the_scaled_rewards_and_only_there():
    _, reference, rewards = lists()
    policy = reference + rewards / 0.7 / 0.4 + 5
    value, gradient = jax.value_and_grad(lambda p: jnp.sum(exo(p, reference, rewards, FULL, beta_pi=0.4, beta_r=0.7)))(
        policy
    )
    np.testing.assert_allclose(value, 0, atol=1e-5)
    np.testing.assert_allclose(gradient, 0, atol=1e-5)
    assert (exo(policy.at[:, 0].add(3.0), reference, rewards, FULL, beta_pi=0.4, beta_r=0.7) > 1e-3).all()


def test_exo_gradient_has_its_closed_form():
    """beta_pi * q_i * (log q_i - log p_i - KL): through q wherever it stands."""
    policy, reference, rewards = lists()
    q, p = softmax(0.4 * (np.asarray(policy) - np.asarray(reference))), softmax(np.asarray(rewards) / 0.7)
    gap = np.log(q / p)
    expected = 0.4 * q * (gap - (q * gap).sum(-1, keepdims=True))
    gradient = jax.grad(lambda x: jnp.sum(exo(x, reference, rewards, FULL, beta_pi=0.4, beta_r=0.7)))(policy)
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("eps", [1e-3, 0.1, 0.4])
def test_exo_of_two_responses_with_log_preferences_for_rewards_is_the_pair_form(eps):
    """q_w (log q_w - log(1 - eps)) + q_l (log q_l - log eps), q_w = s(beta * h); least at log((1 - eps) / eps)."""
    policy, reference, _ = lists(size=2)
    rewards = jnp.tile(0.7 * jnp.log(jnp.array([1 - eps, eps])), (B, 1))
    h = np.asarray((policy - reference) @ jnp.array([1.0, -1.0]), np.float64)
    log_w, log_l = -np.logaddexp(0, -BETA * h), -np.logaddexp(0, BETA * h)
    expected = np.exp(log_w) * (log_w - np.log(1 - eps)) + np.exp(log_l) * (log_l - np.log(eps))
    got = exo(policy, reference, rewards, FULL[:, :2], beta_pi=BETA, beta_r=0.7)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)
    best = reference.at[:, 0].add(np.log((1 - eps) / eps) / BETA)  # where cdpo with label smoothing eps is least
    gradient = jax.grad(lambda x: jnp.sum(exo(x, reference, rewards, FULL[:, :2], beta_pi=BETA, beta_r=0.7)))(best)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


# ------------------------------------------------------------------------------------------------- infonca and nca


def test_infonca_of_two_responses_of_which_one_has_all_the_reward_is_dpo():
    policy, reference, _ = lists(size=2)
    got = infonca(policy, reference, one_hot(2), FULL[:, :2], beta=BETA)
    expected = dpo(policy[:, 0], policy[:, 1], reference[:, 0], reference[:, 1], beta=BETA)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_nca_of_two_responses_of_which_one_has_all_the_reward_is_the_pair_form():
    """-log s(m_w) - 0.5 log s(-m_w) - 0.5 log s(-m_l)."""
    policy, reference, _ = lists(size=2)
    m = BETA * np.asarray(policy - reference, np.float64)
    expected = np.logaddexp(0, -m[:, 0]) + 0.5 * np.logaddexp(0, m).sum(-1)
    got = nca(policy, reference, one_hot(2), FULL[:, :2], beta=BETA)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_values_at_the_reference(size):
    policy, _, rewards = lists(size=size)
    mask = FULL[:, :size]
    np.testing.assert_allclose(infonca(policy, policy, rewards, mask), np.full(B, np.log(size)), rtol=1e-5)
    np.testing.assert_allclose(nca(policy, policy, rewards, mask), np.full(B, 2 * np.log(2)), rtol=1e-5)


def test_infonca_is_the_kl_the_other_way_round_plus_the_entropy_of_the_rewards():
    policy, reference, rewards = lists()
    q, p = softmax(BETA * (np.asarray(policy) - np.asarray(reference))), softmax(np.asarray(rewards) / 0.7)
    expected = (p * np.log(p / q)).sum(-1) - (p * np.log(p)).sum(-1)
    got = infonca(policy, reference, rewards, FULL, beta=BETA, alpha=0.7)
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    gradient = jax.grad(lambda x: jnp.sum(infonca(x, reference, rewards, FULL, beta=BETA, alpha=0.7)))(policy)
    np.testing.assert_allclose(gradient, BETA * (q - p), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("size", [2, 4])
def test_nca_is_best_at_log_k_times_p(size):
    """Each log-ratio is fixed, not only their differences; K counts the responses that are there."""
    _, reference, rewards = lists()
    mask = FULL.at[:, size:].set(False)
    p = softmax(np.asarray(rewards[:, :size]) / 0.7)
    best = np.zeros((B, K))
    best[:, :size] = np.log(size * p) / BETA
    gradient = jax.grad(lambda x: jnp.sum(nca(x, reference, rewards, mask, beta=BETA, alpha=0.7)))
    np.testing.assert_allclose(gradient(reference + jnp.asarray(best, jnp.float32)), 0, atol=1e-5)
    assert (gradient(reference + jnp.asarray(best, jnp.float32) + 1)[:, :size] > 0).all()
    assert (gradient(reference + jnp.asarray(best, jnp.float32) - 1)[:, :size] < 0).all()
