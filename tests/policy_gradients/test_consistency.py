"""COPO: entropy of the answers, prompts against prompts, and the blend of two surrogates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import policy_gradients as pg

BLENDS = (pg.copo_blend_weights, pg.copo_forced_blend_weights, pg.copo_nonzero_blend_weights)


def call(function, rewards, answers, ids, **hyper):
    arrays = jnp.asarray(rewards, jnp.float32), jnp.asarray(answers), jnp.asarray(ids)
    return np.asarray(function(*arrays, jnp.ones(len(ids), bool), **hyper))


def global_rewards(rewards, answers, ids):
    """Written out, one prompt after the other; the R_g of each, in order of their number."""
    out = []
    for g in np.unique(ids):
        a, r = np.asarray(answers)[ids == g], np.asarray(rewards)[ids == g]
        shares = np.unique(a, return_counts=True)[1] / len(a)
        entropy = -(shares * np.log2(shares)).sum()
        scale = (1 - 1 / len(a)) / np.log2(len(a)) if len(a) > 1 else 0.0
        out.append(r.mean() * (1 - scale * entropy))
    return np.array(out)


def z_score(values):
    return (values - values.mean()) / (values.std(ddof=1) + 1e-6)


def test_global_advantages_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    ids = np.array([3, 1, 1, 3, 2, 2, 2, 1, 1, 7])
    rewards, answers = rng.random(10), rng.integers(0, 3, 10)
    expected = z_score(global_rewards(rewards, answers, ids))[np.searchsorted([1, 2, 3, 7], ids)]
    got = call(pg.copo_global_advantages, rewards, answers, ids)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_each_prompt_counts_once_whatever_its_size():
    ids, answers = np.array([0, 0, 0, 0, 0, 0, 1, 2]), np.zeros(8, int)
    rewards = np.array([1.0] * 6 + [0.0, 0.0])
    got = call(pg.copo_global_advantages, rewards, answers, ids)
    np.testing.assert_allclose(got[[0, 6, 7]], z_score(np.array([1.0, 0.0, 0.0])), rtol=1e-5)


def test_a_unanimous_group_learns_from_the_prompt_alone():
    """H = 0: factor 1, the local loss weighs s(-k b), and all its advantages in the group are 0."""
    ids, answers, rewards = np.array([0, 0, 0, 1, 1, 1]), np.array([5, 5, 5, 1, 2, 3]), np.array([1.0, 1, 1, 0, 0, 0])
    weights = call(pg.copo_blend_weights, rewards, answers, ids, k=5.0, b=1.0)
    np.testing.assert_allclose(weights[:3], 1 / (1 + np.exp(5.0)), rtol=1e-5)
    between = call(pg.copo_global_advantages, rewards, answers, ids)
    logps = jnp.full((6, 1), -1.0)
    fixed = jnp.zeros(6), jnp.asarray(between), jnp.asarray(weights), jnp.ones((6, 1), bool)

    def surrogate(x):
        return jnp.sum(pg.copo_surrogate(x, logps, *fixed)[:3])

    np.testing.assert_allclose(jax.grad(surrogate)(logps)[:3, 0], -(1 - weights[:3]) * between[:3], rtol=1e-5)


@pytest.mark.parametrize("size", [2, 3, 6])
def test_a_group_of_all_different_answers_keeps_one_part_in_g(size):
    """H = log2 G and the factor is 1 / G: such a group at reward 1 ties with a unanimous one at reward 1 / G."""
    ids = np.repeat([0, 1], size)
    answers = np.concatenate([np.arange(size), np.zeros(size, int)])
    rewards = np.concatenate([np.ones(size), np.full(size, 1 / size)])
    np.testing.assert_allclose(global_rewards(rewards, answers, ids), 1 / size, rtol=1e-6)
    third = np.concatenate([rewards, [0.0]]), np.concatenate([answers, [0]]), np.concatenate([ids, [2]])
    got = call(pg.copo_global_advantages, *third)
    np.testing.assert_allclose(got[: 2 * size], got[0], rtol=1e-4)
    weights = call(pg.copo_blend_weights, rewards, answers, ids, k=2.0, b=0.5)
    np.testing.assert_allclose(weights[:size], 1 / (1 + np.exp(-2 * (np.log2(size) - 0.5))), rtol=1e-5)


def test_global_rewards_of_binary_rewards_stay_between_zero_and_one():
    rng = np.random.default_rng(1)
    for _ in range(20):
        ids, answers = rng.integers(0, 3, 12), rng.integers(0, 4, 12)
        values = global_rewards(rng.integers(0, 2, 12).astype(float), answers, ids)
        assert (values >= 0).all() and (values <= 1).all()


def test_a_large_slope_is_a_switch():
    ids, answers = np.array([0, 0, 0, 0, 1, 1]), np.array([1, 2, 3, 4, 1, 1])
    weights = call(pg.copo_blend_weights, np.ones(6), answers, ids, k=1e6)
    np.testing.assert_array_equal(weights, [1, 1, 1, 1, 0, 0])


@pytest.mark.parametrize("rewards", [[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
def test_one_prompt_alone_has_no_global_advantage(rewards):
    np.testing.assert_array_equal(call(pg.copo_global_advantages, rewards, [0, 1, 1], [4, 4, 4], eps=0.0), 0)


def test_without_the_entropy_factor_prompts_compare_by_mean_reward():
    ids, answers, rewards = np.array([0, 0, 1, 1]), np.array([1, 2, 1, 1]), np.array([1.0, 0.0, 1.0, 1.0])
    got = call(pg.copo_global_advantages, rewards, answers, ids, entropy_coef=0.0)
    np.testing.assert_allclose(got[[0, 2]], z_score(np.array([0.5, 1.0])), rtol=1e-5)


def test_the_forced_blends_are_the_soft_one_where_there_is_something_to_learn_in_the_group():
    ids, answers = np.array([0, 0, 0, 1, 1]), np.array([1, 2, 3, 1, 2])
    rewards = np.array([1.0, 0.0, 0.5, 0.1, 0.1])
    soft, forced, nonzero = (call(blend, rewards, answers, ids) for blend in BLENDS)
    np.testing.assert_array_equal(forced, soft * [1, 1, 0, 0, 0])  # the mean of prompt 0 is 1/2
    np.testing.assert_array_equal(nonzero, soft * [1, 0, 1, 1, 1])


def test_entropy_does_not_mix_the_answers_of_different_prompts():
    weights = call(pg.copo_blend_weights, np.ones(4), [7, 7, 7, 8], [0, 1, 0, 1])
    np.testing.assert_allclose(weights, [1 / (1 + np.exp(5.0)), 0.5] * 2, rtol=1e-5)
