"""beta-DPO against its identities in the catalogue: moments, draws, and the method as a whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from alignment.losses import beta_dpo, beta_dpo_sampling_weights, beta_dpo_stats, dpo
from alignment.losses.dynamic_beta import BetaDpoState

B, BETA = 8, 0.3
RNG = np.random.default_rng(0)
PAIR = tuple(jnp.asarray(-10 + 2 * RNG.normal(size=B), jnp.float32) for _ in range(4))
H = (PAIR[0] - PAIR[2]) - (PAIR[1] - PAIR[3])
ALL = jnp.ones(B, bool)
MOMENTS = jnp.array([0.3, 2.0])


def state(moments=MOMENTS, seed=0):
    return BetaDpoState(jnp.asarray(moments, jnp.float32), beta_dpo.init(seed=seed).key)


def pair_of(margins):
    margins = jnp.asarray(margins, jnp.float32)
    return (margins, *(jnp.zeros_like(margins),) * 3)


def test_without_sensitivity_and_filter_it_is_dpo():
    values, aux = beta_dpo.loss(*PAIR, ALL, state(), beta=BETA, alpha=0.0, rho=0.0)
    assert aux["drawn"].all()
    np.testing.assert_allclose(values, dpo(*PAIR, beta=BETA), rtol=1e-5)


def test_margins_at_their_running_mean_leave_beta_alone():
    mean = float(H.mean())
    values, _ = beta_dpo.loss(*PAIR, ALL, state([mean, 1.0]), beta=BETA, alpha=0.6, rho=0.0)
    np.testing.assert_allclose(values, dpo(*PAIR, beta=BETA), rtol=1e-4)


@pytest.mark.parametrize("gap", [-1.0, 0.5, 3.0])
def test_beta_grows_in_proportion_to_how_far_the_margins_are_above_their_running_mean(gap):
    """With momentum near 1 M0 stays 0, and all pairs have the same margin."""
    values, _ = beta_dpo.loss(*pair_of([gap] * B), ALL, state([0.0, 9.0]), beta=BETA, alpha=0.6, momentum=1 - 1e-9)
    expected = jax.nn.softplus(-BETA * (1 + 0.6 * gap) * gap)
    np.testing.assert_allclose(values.mean(), expected, rtol=1e-5)


def test_beta_has_a_floor():
    values, _ = beta_dpo.loss(*pair_of([-5.0] * B), ALL, state([0.0, 9.0]), alpha=0.6, rho=0.0, momentum=1 - 1e-9)
    np.testing.assert_allclose(values, jax.nn.softplus(1e-3 * 5.0), rtol=1e-6)


def test_beta_and_the_draw_are_held_fixed():
    hyper = {"beta": BETA, "alpha": 0.6, "rho": 0.25}
    _, aux = beta_dpo.loss(*PAIR, ALL, state(), **hyper)
    drawn, m0 = aux["drawn"], 0.9 * MOMENTS[0] + 0.1 * H.mean()
    beta_b = BETA * (1 + 0.6 * (H[drawn].mean() - m0))
    got = jax.grad(lambda c: jnp.sum(beta_dpo.loss(c, *PAIR[1:], ALL, state(), **hyper)[0]))(PAIR[0])
    expected = -jnp.where(drawn, beta_b * jax.nn.sigmoid(-beta_b * H) * B / drawn.sum(), 0)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)


def test_the_mean_over_the_batch_is_the_mean_over_the_pairs_drawn():
    values, aux = beta_dpo.loss(*PAIR, ALL, state(), alpha=0.0, rho=0.25, beta=BETA)
    assert int(aux["drawn"].sum()) == 6
    np.testing.assert_allclose(values.mean(), dpo(*PAIR, beta=BETA)[aux["drawn"]].mean(), rtol=1e-5)
    np.testing.assert_array_equal(values[~aux["drawn"]], 0.0)


@pytest.mark.parametrize("rho,size,drawn", [(0.0, 8, 8), (0.2, 8, 6), (0.5, 8, 4), (0.9, 8, 1), (0.99, 8, 1)])
def test_a_fixed_share_is_drawn_and_never_nothing(rho, size, drawn):
    for seed in range(5):
        _, aux = beta_dpo.loss(*PAIR, ALL, state(seed=seed), rho=rho)
        assert int(aux["drawn"].sum()) == drawn


def test_pairs_are_drawn_by_their_weights():
    """Of three pairs one is drawn: its frequencies are the normalised weights."""
    margins = jnp.array([0.0, 1.0, 2.0])
    still = {"rho": 0.6, "momentum": 1 - 1e-9}
    first = lambda key: beta_dpo.loss(  # noqa: E731
        *pair_of(margins), jnp.ones(3, bool), BetaDpoState(jnp.array([0.0, 1.0]), key), **still
    )[1]["drawn"]
    keys = jax.vmap(lambda n: jax.random.key_data(jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), n)))
    shares = jax.jit(jax.vmap(first))(keys(jnp.arange(20_000))).mean(0)
    weights = beta_dpo_sampling_weights(margins, jnp.ones(3, bool), jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.012)


def test_an_outlier_is_left_out():
    margins = jnp.array([0.1, -0.2, 0.3, 0.0, 40.0, 0.2, -0.1, 0.1])
    for seed in range(5):
        _, aux = beta_dpo.loss(*pair_of(margins), ALL, state([0.0, 0.5], seed), rho=0.125)
        assert not aux["drawn"][4] and int(aux["drawn"].sum()) == 7


def test_weights_are_one_at_the_mean_and_fall_off_like_a_normal_density():
    got = beta_dpo_sampling_weights(jnp.array([1.0, 3.0, -1.0, 5.0]), jnp.ones(4, bool), jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(got, np.exp([0, -0.5, -0.5, -2.0]), rtol=1e-6)


def test_moments_of_zero_are_no_division_by_zero():
    same = (PAIR[0], PAIR[1], PAIR[0], PAIR[1])
    values, aux = beta_dpo.loss(*same, ALL, beta_dpo.init())
    np.testing.assert_allclose(values[aux["drawn"]], np.log(2) * B / 6, rtol=1e-6)
    np.testing.assert_array_equal(beta_dpo.update(beta_dpo.init(), aux).moments, 0.0)
    assert np.isfinite(beta_dpo_sampling_weights(H, ALL, jnp.zeros(2))).all()


def test_statistics_are_those_of_the_examples_with_the_unbiased_deviation():
    valid = jnp.arange(B) < 5
    got = beta_dpo_stats(jnp.where(valid, H, jnp.nan), valid, MOMENTS, momentum=0.6)
    part = np.asarray(H[:5], np.float64)
    np.testing.assert_allclose(got, 0.6 * MOMENTS + 0.4 * np.array([part.mean(), part.std(ddof=1)]), rtol=1e-5)


def test_statistics_that_a_batch_is_too_small_for_are_kept():
    one = beta_dpo_stats(H, jnp.arange(B) == 2, MOMENTS)
    assert one[0] != MOMENTS[0] and one[1] == MOMENTS[1]
    np.testing.assert_array_equal(beta_dpo_stats(H, ~ALL, MOMENTS), MOMENTS)


def test_the_update_keeps_the_moments_of_the_loss_and_draws_anew_in_the_next_step():
    old = state()
    _, aux = beta_dpo.loss(*PAIR, ALL, old, rho=0.5)
    new = beta_dpo.update(old, aux, rho=0.5)
    np.testing.assert_allclose(new.moments, beta_dpo_stats(H, ALL, MOMENTS), rtol=1e-6)
    assert new.key.dtype == jnp.uint32 and (new.key != old.key).any()
    draws = []
    for _ in range(6):
        _, aux = beta_dpo.loss(*PAIR, ALL, old, rho=0.5)
        draws.append(tuple(np.asarray(aux["drawn"])))
        old = BetaDpoState(MOMENTS, beta_dpo.update(old, aux, rho=0.5).key)
    assert len(set(draws)) > 1


def test_the_seed_decides_the_draws():
    draws = {tuple(np.asarray(beta_dpo.loss(*PAIR, ALL, state(seed=s), rho=0.5)[1]["drawn"])) for s in range(6)}
    again = {tuple(np.asarray(beta_dpo.loss(*PAIR, ALL, state(seed=s), rho=0.5)[1]["drawn"])) for s in range(6)}
    assert draws == again and len(draws) > 1


@pytest.mark.parametrize("count", [1, 2, 8])
def test_draw_and_state_over_devices_are_those_of_the_batch(count):
    if count > jax.device_count():
        pytest.skip("not so many devices")
    mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])
    split, valid = PartitionSpec("data"), jnp.arange(B) != 3

    def step(*arrays, axis_name=None):
        _, aux = beta_dpo.loss(*arrays, state(), rho=0.4, axis_name=axis_name)
        return aux["drawn"], beta_dpo.update(state(), aux, rho=0.4, axis_name=axis_name)

    sharded = jax.shard_map(
        lambda *a: step(*a, axis_name="data"), mesh=mesh, in_specs=(split,) * 5, out_specs=(split, PartitionSpec())
    )
    (drawn, new), (expected_drawn, expected) = sharded(*PAIR, valid), step(*PAIR, valid)
    np.testing.assert_array_equal(drawn, expected_drawn)
    np.testing.assert_allclose(new.moments, expected.moments, rtol=1e-5)
    np.testing.assert_array_equal(new.key, expected.key)


@pytest.mark.parametrize("seed", range(5))
def test_rows_that_only_pad_do_not_change_which_pairs_are_drawn(seed):
    kept = np.array([1, 2, 4, 5, 7])
    valid = jnp.asarray(np.isin(np.arange(B), kept))
    poisoned = tuple(jnp.where(valid, x, jnp.nan) for x in PAIR)
    _, whole = beta_dpo.loss(*poisoned, valid, state(seed=seed), rho=0.4)
    _, part = beta_dpo.loss(*(x[kept] for x in PAIR), ALL[:5], state(seed=seed), rho=0.4)
    np.testing.assert_array_equal(whole["drawn"][kept], part["drawn"])
    assert int(whole["drawn"].sum()) == 3


def test_a_state_that_is_none_is_rejected():
    with pytest.raises(AssertionError, match=r"moments must have shape \(2,\)"):
        beta_dpo.loss(*PAIR, ALL, BetaDpoState(jnp.zeros(3), beta_dpo.init().key))
    with pytest.raises(AssertionError, match=r"state.key must be uint32"):
        beta_dpo.loss(*PAIR, ALL, BetaDpoState(jnp.zeros(2), jnp.zeros(2)))
