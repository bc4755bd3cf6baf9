"""Policy filtration against its identities in the catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.policy_gradients import pf_bon_weights, pf_br_weights, pf_bw_weights, pf_pow_weights, pf_r_squared

FILTERS = {"bon": pf_bon_weights, "br": pf_br_weights, "bw": pf_bw_weights}


def batch(prompts, size, seed=0):
    """Shuffled: a group's rows stand anywhere."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat(np.arange(prompts) * 11 - 4, size))
    return jnp.asarray(rng.normal(size=prompts * size), jnp.float32), jnp.asarray(ids), jnp.ones(len(ids), bool)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_masses_per_group(size):
    rewards, ids, valid = batch(6, size)
    mass = {"bon": 1.0, "br": 0.4 + 0.1 * (size - 1), "bw": min(size, 2)}
    for name, weights_of in FILTERS.items():
        weights = weights_of(rewards, ids, valid)
        for group in np.unique(ids):
            np.testing.assert_allclose(np.sum(weights[ids == group]), mass[name], rtol=1e-6)


@pytest.mark.parametrize("name", FILTERS)
def test_one_response_per_prompt_is_no_filter(name):
    rewards, ids, valid = batch(6, 1)
    weights = np.asarray(FILTERS[name](rewards, ids, valid))
    np.testing.assert_array_equal(weights, weights[0])
    assert weights[0] > 0


def test_best_and_worst_of_two_is_uniform():
    np.testing.assert_array_equal(pf_bw_weights(*batch(6, 2)), 1)


def test_power_zero_is_no_filter_and_power_two_is_the_square():
    rewards, _, valid = batch(4, 3)
    np.testing.assert_allclose(pf_pow_weights(rewards, valid, power=0.0), 1)
    np.testing.assert_allclose(pf_pow_weights(rewards, valid), rewards**2, rtol=1e-5)


def test_equal_weights_of_best_and_rest_are_no_filter():
    np.testing.assert_allclose(pf_br_weights(*batch(4, 3), top=0.2, rest=0.2), 0.2)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 2), st.booleans()), min_size=1, max_size=8))
def test_top_and_bottom_of_any_groups_with_ties_and_padding(rows):
    rewards, ids, valid = (np.array(x) for x in zip(*rows, strict=True))
    args = jnp.asarray(rewards, jnp.float32), jnp.asarray(ids), jnp.asarray(valid)
    top, ends = np.asarray(pf_bon_weights(*args)), np.asarray(pf_bw_weights(*args))
    for group in set(ids[valid]):
        members = np.flatnonzero((ids == group) & valid)
        assert list(members[top[members] > 0]) == [members[np.argmax(rewards[members])]]
        bottom = members[::-1][np.argmin(rewards[members][::-1])]
        assert set(members[ends[members] > 0]) == {members[np.argmax(rewards[members])], bottom}
    assert not top[~valid].any() and not ends[~valid].any()


def test_r_squared_lies_between_zero_and_one_and_ignores_affine_maps():
    rng = np.random.default_rng(0)
    for _ in range(5):
        rewards, scores = (jnp.asarray(rng.normal(size=20), jnp.float32) for _ in range(2))
        weights, valid = jnp.asarray(rng.random(20), jnp.float32), jnp.ones(20, bool)
        value = pf_r_squared(rewards, scores, weights, valid)
        assert 0 <= value <= 1
        mapped = pf_r_squared(3 * rewards - 2, 5 - 0.5 * scores, 7 * weights, valid)
        np.testing.assert_allclose(mapped, value, rtol=1e-3, atol=1e-6)
        fit = np.polyfit(rewards, scores, 1, w=np.sqrt(weights))
        residual = np.asarray(scores) - np.polyval(fit, rewards)
        centred = scores - jnp.sum(weights * scores) / jnp.sum(weights)
        explained = 1 - np.sum(weights * residual**2) / np.sum(weights * centred**2)
        np.testing.assert_allclose(value, explained, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(pf_r_squared(rewards, -2 * rewards + 1, weights, valid), 1, rtol=1e-5)


def test_best_and_worst_pass_a_reward_model_that_is_noisy_in_the_middle():
    """The measurement the filter is chosen by: what it keeps is where the reward can be trusted."""
    truth = jax.random.uniform(jax.random.key(0), (400, 5), minval=-1.0, maxval=1.0)
    noise = 0.8 * (1 - jnp.abs(truth)) * jax.random.normal(jax.random.key(1), truth.shape)
    rewards, ids = (truth + noise).ravel(), jnp.repeat(jnp.arange(400), 5)
    valid = jnp.ones(2000, bool)

    def fit(weights):
        return pf_r_squared(rewards, truth.ravel(), weights, valid)

    assert fit(pf_bw_weights(rewards, ids, valid)) > fit(jnp.ones(2000)) > fit(pf_bon_weights(rewards, ids, valid))
