"""Estimators over groups and batches against numpy, their limits and their invariances."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import policy_gradients as pg

IDS = np.array([4, 9, 4, 9, 9, 4, 4, 2])


def call(estimator, rewards, ids=IDS, valid=None, **hyper):
    rewards = jnp.asarray(rewards, jnp.float32)
    valid = jnp.ones(rewards.shape, bool) if valid is None else jnp.asarray(valid)
    return np.asarray(estimator(rewards, jnp.asarray(ids), valid, **hyper))


def grpo(rewards, ids=IDS, ddof=1, eps=1e-6):
    """Written out: the z-score within the group; 0 where nothing deviates."""
    rewards, out = np.asarray(rewards, float), np.zeros(len(rewards))
    for g in np.unique(ids):
        r = rewards[ids == g]
        if np.ptp(r) > 0:
            out[ids == g] = (r - r.mean()) / (r.std(ddof=ddof) + eps)
    return out


def stratified(rewards, strata, ids=IDS, valid=None, **hyper):
    strata = jnp.asarray(strata)
    return call(lambda r, i, v, **h: pg.stratified_grpo_advantages(r, strata, i, v, **h), rewards, ids, valid, **hyper)


def draw(seed, size=8):
    return np.random.default_rng(seed).normal(size=size)


# --- Lite PPO --------------------------------------------------------------------------------------------------------


def test_lite_ppo_on_one_prompt_is_grpo():
    rewards, ids = draw(0), np.full(8, 3)
    np.testing.assert_allclose(call(pg.lite_ppo_advantages, rewards, ids), grpo(rewards, ids), rtol=1e-5, atol=1e-6)


def test_lite_ppo_is_group_mean_over_batch_deviation():
    rewards = draw(1)
    means = np.array([rewards[i == IDS].mean() for i in IDS])
    expected = (rewards - means) / (rewards.std(ddof=1) + 1e-6)
    np.testing.assert_allclose(call(pg.lite_ppo_advantages, rewards), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_lite_ppo_advantages_sum_to_zero_in_each_group(seed):
    advantages = call(pg.lite_ppo_advantages, draw(seed))
    for g in np.unique(IDS):
        assert abs(advantages[g == IDS].sum()) < 1e-5


def test_lite_ppo_forgets_the_scale_of_all_rewards_but_not_of_one_group():
    rewards = draw(2)
    whole = call(pg.lite_ppo_advantages, rewards, eps=0.0)
    np.testing.assert_allclose(call(pg.lite_ppo_advantages, 5 * rewards, eps=0.0), whole, rtol=1e-5)
    scaled = np.where(IDS == 4, 5 * rewards, rewards)
    assert np.abs(call(pg.lite_ppo_advantages, scaled, eps=0.0) - whole)[IDS == 9].max() > 0.1
    np.testing.assert_allclose(grpo(scaled, eps=0.0), grpo(rewards, eps=0.0), rtol=1e-5)


def test_lite_ppo_gives_exactly_nothing_to_a_group_of_equal_rewards():
    """0.1 has no exact mean in float32; at eps = 0 a deviation of 1e-8 would be an advantage of one."""
    rewards = np.where(IDS == 4, 0.1, draw(3))
    np.testing.assert_array_equal(call(pg.lite_ppo_advantages, rewards, eps=0.0)[IDS == 4], 0)
    np.testing.assert_array_equal(call(pg.lite_ppo_advantages, np.full(8, 0.1), eps=0.0), 0)


# --- NGRPO -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 8])
def test_ngrpo_pushes_an_all_wrong_group_down_by_a_known_amount(size):
    ids = np.zeros(size, int)
    with_ddof, without = (call(pg.ngrpo_advantages, np.zeros(size), ids, eps=0.0, ddof=d) for d in (1, 0))
    np.testing.assert_allclose(with_ddof, -1 / np.sqrt(size + 1), rtol=1e-5)
    np.testing.assert_allclose(without, -1 / np.sqrt(size), rtol=1e-5)


def test_ngrpo_gives_an_all_correct_group_exactly_nothing():
    np.testing.assert_array_equal(call(pg.ngrpo_advantages, np.ones(8), eps=0.0), 0)
    np.testing.assert_array_equal(call(pg.ngrpo_advantages, np.full(8, 0.1), max_reward=0.1, eps=0.0), 0)


@pytest.mark.parametrize("seed", range(3))
def test_ngrpo_leaves_the_positive_part_to_the_virtual_sample(seed):
    rewards = np.random.default_rng(seed).random(8)
    advantages = call(pg.ngrpo_advantages, rewards, eps=0.0)
    for g in np.unique(IDS):
        r = np.append(rewards[g == IDS], 1.0)
        expected = -(1 - r.mean()) / r.std(ddof=1)
        np.testing.assert_allclose(advantages[g == IDS].sum(), expected, rtol=1e-4)
        assert expected < 0


def test_ngrpo_shifts_mixed_groups_down():
    rewards = np.array([1.0, 0, 0, 1, 0, 0, 1, 1])
    mixed = IDS != 2
    assert (call(pg.ngrpo_advantages, rewards)[mixed] < grpo(rewards)[mixed]).all()


@pytest.mark.parametrize("ddof", [0, 1])
def test_ngrpo_without_virtual_samples_is_grpo(ddof):
    rewards = draw(4)
    got = call(pg.ngrpo_advantages, rewards, num_virtual=0, ddof=ddof)
    np.testing.assert_allclose(got, grpo(rewards, ddof=ddof), rtol=1e-5, atol=1e-6)


# --- PSR, NSR, W-REINFORCE -------------------------------------------------------------------------------------------


def test_psr_and_nsr_share_out_a_reward_of_plus_or_minus_one():
    rewards, valid = jnp.array([0.0, 1.0, 1.0]), jnp.ones(3, bool)
    both = pg.psr_advantages(rewards, valid) + pg.nsr_advantages(rewards, valid)
    np.testing.assert_array_equal(both, 2 * rewards - 1)
    np.testing.assert_array_equal(pg.weighted_reinforce_advantages(rewards, valid, positive_weight=1.0), both)


def test_psr_on_policy_is_sft_on_the_correct_samples_times_their_share():
    rng = np.random.default_rng(0)
    logps = jnp.asarray(-rng.random((4, 3)), jnp.float32)
    rewards, mask = jnp.array([1.0, 0.0, 1.0, 0.0]), jnp.ones((4, 3), bool)
    a = jnp.broadcast_to(pg.psr_advantages(rewards, jnp.ones(4, bool))[:, None], (4, 3))
    on_policy = jax.grad(lambda x: jnp.mean(-a * jnp.exp(x - jax.lax.stop_gradient(x))))(logps)
    sft = jax.grad(lambda x: -jnp.sum(jnp.where(rewards[:, None] == 1, x, 0.0)) / (2 * 3))(logps)
    np.testing.assert_allclose(on_policy, 0.5 * sft, rtol=1e-6)
    assert mask.all()


# --- Stratified GRPO -------------------------------------------------------------------------------------------------

STRATA = np.array([0, 1, 0, 1, 0, 2, 2, 1])


def test_one_stratum_or_no_share_of_strata_is_grpo():
    rewards = draw(5)
    expected = grpo(rewards, ddof=0, eps=1e-8)
    np.testing.assert_allclose(stratified(rewards, np.zeros(8, int)), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stratified(rewards, STRATA, alpha=0.0), expected, rtol=1e-5, atol=1e-6)


def test_a_constant_per_stratum_changes_nothing_at_alpha_one():
    rewards = draw(6)
    shifted = rewards + np.array([0.0, 3.0, -2.0])[STRATA] * np.where(IDS == 4, 1.0, -2.0)
    at_one = stratified(rewards, STRATA, alpha=1.0)
    np.testing.assert_allclose(stratified(shifted, STRATA, alpha=1.0), at_one, rtol=1e-4, atol=1e-5)
    assert np.abs(stratified(shifted, STRATA, alpha=0.0) - stratified(rewards, STRATA, alpha=0.0)).max() > 0.1


def test_strata_without_a_degenerate_one_leave_the_group_mean_zero_and_variance_one():
    ids, strata, rewards = np.full(8, 5), np.array([0, 0, 0, 1, 1, 2, 2, 2]), draw(7)
    advantages = stratified(rewards, strata, ids, alpha=1.0)
    for members in [strata == s for s in range(3)] + [np.ones(8, bool)]:
        np.testing.assert_allclose(advantages[members].mean(), 0.0, atol=1e-6)
        np.testing.assert_allclose(advantages[members].var(), 1.0, rtol=1e-5)


def test_the_only_one_of_a_stratum_gets_nothing_from_it():
    ids, strata = np.full(8, 5), np.array([0, 0, 0, 0, 0, 1, 2, 2])
    assert stratified(draw(8), strata, ids, alpha=1.0, eps=0.0)[5] == 0


@hypothesis.settings(deadline=None, max_examples=15)
@hypothesis.given(scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
def test_positive_affine_maps_of_one_stratum_change_nothing_at_alpha_one(scale, shift):
    rewards = draw(9)
    mapped = np.where((STRATA == 0) & (IDS == 4), scale * rewards + shift, rewards)
    got, expected = (stratified(r, STRATA, alpha=1.0, eps=0.0) for r in (mapped, rewards))
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


def test_equal_strata_of_different_prompts_do_not_meet():
    rewards, ids = draw(10), np.array([1, 1, 1, 1, 2, 2, 2, 2])
    whole = stratified(rewards, np.zeros(8, int), ids, alpha=1.0)
    part = stratified(rewards[:4], np.zeros(4, int), ids[:4], alpha=1.0)
    np.testing.assert_allclose(whole[:4], part, rtol=1e-5)


# --- all of them -----------------------------------------------------------------------------------------------------


def with_strata(rewards, ids, valid, **hyper):
    return pg.stratified_grpo_advantages(rewards, jnp.asarray(STRATA), ids, valid, **hyper)


@pytest.mark.parametrize("estimator", [pg.lite_ppo_advantages, pg.ngrpo_advantages, with_strata])
@hypothesis.settings(deadline=None, max_examples=15)
@hypothesis.given(seed=st.integers(0, 2**16), valid=st.lists(st.booleans(), min_size=8, max_size=8))
def test_rows_that_are_not_there_count_for_nothing(estimator, seed, valid):
    """Neither in the groups nor in the batch; their own advantage is 0, whatever their reward."""
    valid, rewards = np.array(valid), draw(seed)
    dirty = call(estimator, np.where(valid, rewards, np.nan), valid=valid)
    np.testing.assert_array_equal(dirty, call(estimator, np.where(valid, rewards, 7.0), valid=valid))
    np.testing.assert_array_equal(dirty[~valid], 0)
    if estimator is not with_strata and valid.any():
        alone = call(estimator, rewards[valid], IDS[valid])
        np.testing.assert_allclose(dirty[valid], alone, rtol=1e-5, atol=1e-6)
