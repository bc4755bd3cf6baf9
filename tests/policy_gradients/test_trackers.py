"""What is remembered between rollouts: the KL controller and the running moments of the rewards."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from alignment.policy_gradients import (
    adaptive_kl_rewards,
    adaptive_kl_rewards_fixed_gain,
    kl_coefficient_update,
    kl_coefficient_update_fixed_gain,
    kl_shaped_rewards,
    reward_normalization,
    reward_scaling,
    running_reward_moments,
)

few = hypothesis.settings(deadline=None, max_examples=15)
RNG = np.random.default_rng(0)
ALL = jnp.ones(4, bool)
BETA = jnp.asarray(0.3)


def kls(mean):
    return jnp.asarray(mean + np.array([-1.0, 1.0, 2.0, -2.0]), jnp.float32)


def test_the_controllers_do_nothing_at_the_target():
    np.testing.assert_allclose(kl_coefficient_update(BETA, kls(6.0), ALL), BETA, rtol=1e-6)
    np.testing.assert_allclose(kl_coefficient_update_fixed_gain(BETA, kls(6.0), ALL), BETA, rtol=1e-6)


@pytest.mark.parametrize("kl,sign", [(1e4, 1), (7.3, 1), (4.7, -1), (-1e4, -1)])
def test_the_controllers_saturate_at_twenty_percent(kl, sign):
    got = kl_coefficient_update(BETA, kls(kl), ALL, horizon=40)
    np.testing.assert_allclose(got, 0.3 * (1 + sign * 0.2 * 4 / 40), rtol=1e-5)
    got = kl_coefficient_update_fixed_gain(BETA, kls(kl), ALL, gain=0.5)
    np.testing.assert_allclose(got, 0.3 * (1 + sign * 0.2 * 0.5), rtol=1e-5)


def test_between_the_bounds_the_controllers_are_proportional():
    got = kl_coefficient_update(BETA, kls(6.6), ALL, horizon=40)
    np.testing.assert_allclose(got, 0.3 * (1 + 0.1 * 4 / 40), rtol=1e-5)
    np.testing.assert_allclose(kl_coefficient_update_fixed_gain(BETA, kls(6.6), ALL), 0.3 * (1 + 0.1 * 0.1), rtol=1e-5)


def test_the_controllers_agree_where_the_gain_is_the_share_of_the_horizon_and_not_for_another_batch():
    """One moves by sequences seen, the other by updates: a filter that leaves fewer rows slows down only the first."""
    given = {"target": 6.0}
    by_horizon = kl_coefficient_update(BETA, kls(7.0), ALL, horizon=40, **given)
    np.testing.assert_allclose(
        by_horizon, kl_coefficient_update_fixed_gain(BETA, kls(7.0), ALL, gain=4 / 40, **given), rtol=1e-6
    )
    fewer = jnp.array([True, True, False, False])
    by_horizon = kl_coefficient_update(BETA, kls(7.0), fewer, horizon=40, **given)
    by_update = kl_coefficient_update_fixed_gain(BETA, kls(7.0), fewer, gain=4 / 40, **given)
    np.testing.assert_allclose((by_update - BETA) / (by_horizon - BETA), 2.0, rtol=1e-4)


def test_a_batch_of_nothing_leaves_the_coefficient():
    nan = jnp.full(4, jnp.nan)
    assert kl_coefficient_update(BETA, nan, ~ALL) == BETA
    assert kl_coefficient_update_fixed_gain(BETA, nan, ~ALL) == BETA


def test_the_controller_brings_a_policy_that_answers_to_beta_to_the_target():
    """A policy whose KL is 3 / beta: the coefficient settles at the one whose KL is the target."""
    beta = jnp.asarray(2.0)
    for _ in range(400):
        beta = kl_coefficient_update(beta, jnp.full(4, 3 / beta), ALL, target=6.0, horizon=40)
    np.testing.assert_allclose(beta, 0.5, rtol=1e-2)


METHODS = {
    "ziegler": (adaptive_kl_rewards, {"beta": 0.3, "target": 2.0, "horizon": 20}, kl_coefficient_update),
    "fixed gain": (
        adaptive_kl_rewards_fixed_gain,
        {"beta": 0.3, "target": 2.0, "gain": 0.4},
        kl_coefficient_update_fixed_gain,
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_adaptive_rewards_use_the_coefficient_of_before_and_then_move_it(name):
    method, hyper, update = METHODS[name]
    rewards = jnp.asarray(RNG.normal(size=4), jnp.float32)
    old, reference = (jnp.asarray(RNG.normal(size=(4, 5)), jnp.float32) for _ in range(2))
    mask = jnp.asarray(RNG.random((4, 5)) < 0.7).at[:, 0].set(True)
    valid = jnp.asarray([True, True, False, True])
    state = method.init(**hyper)
    assert float(state.beta) == pytest.approx(0.3)
    values, aux = method.loss(rewards, old, reference, mask, valid, state, **hyper)
    np.testing.assert_allclose(values, kl_shaped_rewards(rewards, old, reference, mask, beta=0.3), rtol=1e-5)
    new = method.update(state, aux, **hyper)
    sums = jnp.sum(jnp.where(mask, old - reference, 0.0), -1)
    rest = {k: v for k, v in hyper.items() if k != "beta"}
    np.testing.assert_allclose(new.beta, update(state.beta, sums, valid, **rest), rtol=1e-6)
    np.testing.assert_allclose(new.kl, jnp.mean(sums[valid]), rtol=1e-5)
    assert new.beta != state.beta
    assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(lambda x: (x.shape, x.dtype), state)


# ---------------------------------------------------------------------------------------------------- running moments


@few
@hypothesis.given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    seed=st.integers(0, 2**16),
    shift=st.sampled_from([0.0, 30.0]),
)
def test_moments_after_several_batches_are_those_of_their_concatenation(sizes, seed, shift):
    rng = np.random.default_rng(seed)
    moments, seen = jnp.zeros(3), []
    for size in sizes:
        rewards = rng.normal(size=6) + shift
        moments = running_reward_moments(moments, jnp.asarray(rewards, jnp.float32), jnp.arange(6) < size)
        seen += rewards[:size].tolist()
    np.testing.assert_allclose(moments, [np.mean(seen), np.var(seen), len(seen)], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", [reward_scaling, reward_normalization])
def test_running_scale_is_the_unbiased_deviation_of_everything_so_far(method):
    state, seen = method.init(), []
    for _ in range(3):
        rewards = 5 + 3 * RNG.normal(size=6)
        values, aux = method.loss(jnp.asarray(rewards, jnp.float32), jnp.ones(6, bool), state)
        state = method.update(state, aux)
        seen += rewards.tolist()
        centre = np.mean(seen) if method is reward_normalization else 0.0
        np.testing.assert_allclose(values, (rewards - centre) / np.std(seen, ddof=1), rtol=1e-4, atol=1e-5)


def test_scaling_keeps_the_order_and_the_sign_of_the_rewards():
    rewards = jnp.asarray(3 + 100 * RNG.normal(size=6), jnp.float32)
    values, _ = reward_scaling.loss(rewards, jnp.ones(6, bool), reward_scaling.init())
    np.testing.assert_array_equal(jnp.argsort(values), jnp.argsort(rewards))
    np.testing.assert_array_equal(jnp.sign(values), jnp.sign(rewards))


def test_a_reward_model_on_another_scale_gives_the_same_scaled_rewards():
    rewards = jnp.asarray(RNG.normal(size=6), jnp.float32)
    one, hundred = (reward_scaling.loss(c * rewards, jnp.ones(6, bool), reward_scaling.init())[0] for c in (1.0, 100.0))
    np.testing.assert_allclose(one, hundred, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 6])
def test_without_a_spread_rewards_stay_finite(count):
    valid = jnp.arange(6) < count
    rewards = jnp.full(6, 4.0)
    scaled, aux = reward_scaling.loss(rewards, valid, reward_scaling.init())
    np.testing.assert_array_equal(scaled, jnp.where(valid, 4.0, 0.0))
    normalized, _ = reward_normalization.loss(rewards, valid, reward_normalization.init())
    np.testing.assert_array_equal(normalized, 0.0)
    assert np.isfinite(reward_scaling.update(reward_scaling.init(), aux).moments).all()


def test_a_batch_of_nothing_leaves_the_moments():
    moments = jnp.asarray([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(running_reward_moments(moments, jnp.full(6, jnp.nan), jnp.zeros(6, bool)), moments)


def test_updates_on_a_split_batch_are_those_of_the_whole():
    count = min(8, jax.device_count())
    mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])
    rewards, valid = jnp.asarray(RNG.normal(size=8), jnp.float32), jnp.arange(8) != 3
    split, whole = PartitionSpec("data"), PartitionSpec()

    def both(rewards, valid, axis_name=None):
        state = adaptive_kl_rewards.init()
        state = adaptive_kl_rewards.update(state, {"sequence_kls": rewards, "valid": valid}, axis_name=axis_name)
        moments = reward_scaling.init()
        return state, reward_scaling.update(moments, {"rewards": rewards, "valid": valid}, axis_name=axis_name)

    sharded = jax.shard_map(lambda *a: both(*a, axis_name="data"), mesh=mesh, in_specs=(split, split), out_specs=whole)
    leaves = [jax.tree.leaves(f(rewards, valid)) for f in (jax.jit(sharded), both)]
    for got, wanted in zip(*leaves, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
