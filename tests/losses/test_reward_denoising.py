"""Denoised reward losses and MetaRM's separation against their identities in the catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import (
    bt_reward_loss,
    bt_reward_margin_loss,
    denoised_bt_loss,
    denoised_bt_margin_loss,
    meta_rm_separation,
)

RNG = np.random.default_rng(0)
CHOSEN, REJECTED, VOTES = (jnp.asarray(RNG.normal(size=8), jnp.float32) for _ in range(3))
INF = float("inf")


def test_nothing_turned_round_and_hard_labels_is_bradley_terry():
    got = denoised_bt_loss(CHOSEN, REJECTED, VOTES, threshold=-INF, label_smoothing=0.0)
    np.testing.assert_allclose(got, bt_reward_loss(CHOSEN, REJECTED), rtol=1e-6)


def test_everything_turned_round_is_bradley_terry_with_the_sides_swapped():
    got = denoised_bt_loss(CHOSEN, REJECTED, VOTES, threshold=INF, label_smoothing=0.2)
    np.testing.assert_allclose(got, bt_reward_loss(REJECTED, CHOSEN, label_smoothing=0.2), rtol=1e-6)


def test_turned_at_zero_every_margin_is_the_size_of_the_vote():
    got = denoised_bt_margin_loss(CHOSEN, REJECTED, VOTES, threshold=0.0, label_smoothing=0.0)
    swap = VOTES < 0
    chosen, rejected = jnp.where(swap, REJECTED, CHOSEN), jnp.where(swap, CHOSEN, REJECTED)
    np.testing.assert_allclose(got, bt_reward_margin_loss(chosen, rejected, jnp.abs(VOTES)), rtol=1e-6)


def test_a_pair_voted_against_but_not_turned_round_gets_no_margin():
    got = denoised_bt_margin_loss(CHOSEN, REJECTED, -jnp.abs(VOTES), threshold=-INF, label_smoothing=0.0)
    np.testing.assert_allclose(got, bt_reward_loss(CHOSEN, REJECTED), rtol=1e-6)


def test_half_smoothing_ignores_the_order_of_the_labels():
    half = jnp.float32(0.5)
    got = denoised_bt_loss(CHOSEN, REJECTED, VOTES, label_smoothing=half)
    np.testing.assert_allclose(got, denoised_bt_loss(REJECTED, CHOSEN, -VOTES, label_smoothing=half), rtol=1e-6)
    np.testing.assert_allclose(got, denoised_bt_loss(CHOSEN, REJECTED, -VOTES, label_smoothing=half), rtol=1e-6)


def mask(count):
    return jnp.ones((count, 1), bool)


@pytest.mark.parametrize("count", [2, 4, 7])
def test_separation_of_equal_rewards_is_the_least_and_far_ones_approach_the_bound(count):
    equal = meta_rm_separation(jnp.full(count, 0.3), mask(count))
    far = meta_rm_separation(100.0 * jnp.arange(count), mask(count))
    np.testing.assert_allclose(equal, (count - 1) / (2 * count), rtol=1e-6)
    np.testing.assert_allclose(far, (count - 1) / count, rtol=1e-6)
    between = meta_rm_separation(jnp.asarray(RNG.normal(size=count), jnp.float32), mask(count))
    assert equal < between < far


def test_separation_sees_differences_only_and_missing_samples_not_at_all():
    rewards = jnp.asarray(RNG.normal(size=5), jnp.float32)
    here = mask(5)
    np.testing.assert_allclose(meta_rm_separation(rewards + 7, here), meta_rm_separation(rewards, here), rtol=1e-5)
    np.testing.assert_allclose(
        meta_rm_separation(rewards, here.at[3].set(False)), meta_rm_separation(jnp.delete(rewards, 3), mask(4)),
        rtol=1e-6,
    )  # fmt: skip


def test_tied_samples_never_move():
    gradient = jax.grad(lambda r: meta_rm_separation(r, mask(4)))(jnp.full(4, 1.5))
    np.testing.assert_array_equal(gradient, 0.0)
