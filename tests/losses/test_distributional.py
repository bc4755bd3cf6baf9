"""AOT against dpo, against sorting by numpy, and split over devices against the whole batch."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from alignment.losses import aot_paired, aot_unpaired, cdpo, dpo

BETA = 0.3
each = pytest.mark.parametrize("kernel", [aot_paired, aot_unpaired], ids=lambda k: k.__name__)


def batch(seed=0, size=8):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(-10 + 4 * rng.normal(size=size), jnp.float32) for _ in range(4))


def all_valid(size=8):
    return jnp.ones(size, bool)


def samples(kernel, logps):
    """The two samples that are compared, in float64."""
    c, r, rc, rr = (np.asarray(x, np.float64) for x in logps)
    return (c - r, rc - rr) if kernel is aot_paired else (c - rc, r - rr)


@each
def test_a_batch_of_one_is_dpo(kernel):
    for seed in range(5):
        pair = batch(seed, 1)
        np.testing.assert_allclose(kernel(*pair, all_valid(1), beta=BETA), dpo(*pair, beta=BETA), rtol=1e-4, atol=1e-6)


@each
@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(seed=st.integers(0, 2**16), valid=st.lists(st.booleans(), min_size=8, max_size=8))
def test_values_are_those_of_the_sorted_samples(kernel, seed, valid):
    """Place by place; the value of a place stands at the example whose first sample takes it. Padding takes none."""
    logps, valid = batch(seed), np.array(valid)
    dirty = [jnp.where(valid, x, jnp.nan) for x in logps]
    got = np.asarray(kernel(*dirty, jnp.asarray(valid), beta=BETA, label_smoothing=0.1))
    u, v = (x[valid] for x in samples(kernel, logps))
    z = BETA * (np.sort(u) - np.sort(v))
    expected = 0.9 * np.log1p(np.exp(-z)) + 0.1 * np.log1p(np.exp(z))
    np.testing.assert_allclose(got[valid][np.argsort(u)], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(got[~valid], 0)


@each
@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(seed=st.integers(0, 2**16), smoothing=st.sampled_from([0.0, 0.2]))
def test_mean_is_at_most_that_of_the_pairs_as_they_stand(kernel, seed, smoothing):
    """Among all couplings of two samples the sorted one has the least convex cost."""
    logps, hyper = batch(seed), {"beta": BETA, "label_smoothing": smoothing}
    sorted_mean = jnp.mean(kernel(*logps, all_valid(), **hyper))
    assert sorted_mean <= jnp.mean(cdpo(*logps, **hyper)) + 1e-5


def test_unpaired_does_not_mind_which_rejected_completion_stands_in_which_row():
    c, r, rc, rr = batch()
    order = np.random.default_rng(1).permutation(8)
    expected = aot_unpaired(c, r, rc, rr, all_valid())
    np.testing.assert_allclose(aot_unpaired(c, r[order], rc, rr[order], all_valid()), expected, rtol=1e-6)
    moved = aot_unpaired(c[order], r, rc[order], rr, all_valid())
    np.testing.assert_allclose(moved, expected[order], rtol=1e-6)


def test_paired_does_not_mind_which_reference_margin_stands_in_which_row():
    c, r, rc, rr = batch()
    order = np.random.default_rng(1).permutation(8)
    got = aot_paired(c, r, rc[order], rr[order], all_valid())
    np.testing.assert_allclose(got, aot_paired(c, r, rc, rr, all_valid()), rtol=1e-6)
    assert np.abs(np.asarray(dpo(c, r, rc[order], rr[order]) - dpo(c, r, rc, rr))).max() > 1e-2


@each
def test_policy_at_the_reference(kernel):
    """Paired: both samples are the same, log 2. Unpaired: all log-ratios are 0, log 2 as well."""
    c, r, _, _ = batch()
    np.testing.assert_allclose(kernel(c, r, c, r, all_valid()), np.full(8, np.log(2)), rtol=1e-6)


@each
def test_smoothing_adds_a_line(kernel):
    logps = batch()
    u, v = samples(kernel, logps)
    gap = np.empty(8)
    gap[np.argsort(u)] = np.sort(u) - np.sort(v)
    difference = kernel(*logps, all_valid(), beta=BETA, label_smoothing=0.2) - kernel(*logps, all_valid(), beta=BETA)
    np.testing.assert_allclose(difference, 0.2 * BETA * gap, rtol=1e-3, atol=1e-5)


@each
def test_gradient_reaches_the_partner_in_the_sorted_order(kernel):
    """Closed form: at each place -beta * s(-z), to the row of the one sample and, unpaired, to that of the other."""
    logps = batch(3)
    u, v = samples(kernel, logps)
    first, second = np.argsort(u), np.argsort(v)
    pull = BETA / (1 + np.exp(BETA * (np.sort(u) - np.sort(v))))
    chosen, rejected = jax.grad(lambda c, r: jnp.sum(kernel(c, r, *logps[2:], all_valid(), beta=BETA)), argnums=(0, 1))(
        *logps[:2]
    )
    np.testing.assert_allclose(np.asarray(chosen)[first], -pull, rtol=1e-4)
    at = first if kernel is aot_paired else second
    assert (first != second).any()
    np.testing.assert_allclose(np.asarray(rejected)[at], pull, rtol=1e-4)


@each
def test_split_over_devices_value_and_gradient_are_those_of_the_whole_batch(kernel):
    """Padding on one device included, as the last batch of an epoch has it."""
    logps, size = batch(5, 16), 16
    valid = jnp.asarray(np.arange(size) < 13)
    cotangents = jnp.asarray(np.random.default_rng(2).normal(size=size), jnp.float32)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    split = PartitionSpec("data")

    def whole(*policy):
        return kernel(*policy, *logps[2:], valid, beta=BETA)

    def shards(*policy):
        run = jax.shard_map(
            lambda *a: kernel(*a, beta=BETA, axis_name="data"), mesh=mesh, in_specs=(split,) * 5, out_specs=split
        )
        return run(*policy, *logps[2:], valid)

    def inside(*arrays):
        """The gradient taken by each device, of its own rows' values alone: what crosses over has to come back."""
        *policy, weights = arrays
        return jax.grad(lambda p: jnp.sum(weights * kernel(*p, *rest(arrays), beta=BETA, axis_name="data")))(
            tuple(policy[:2])
        )

    def rest(arrays):
        return arrays[2:5]

    np.testing.assert_allclose(jax.jit(shards)(*logps[:2]), whole(*logps[:2]), rtol=1e-6)
    expected = jax.grad(lambda p: jnp.sum(cotangents * whole(*p)))(logps[:2])
    outside = jax.jit(jax.grad(lambda p: jnp.sum(cotangents * shards(*p))))(logps[:2])
    taken_inside = jax.jit(jax.shard_map(inside, mesh=mesh, in_specs=(split,) * 6, out_specs=(split, split)))(
        *logps, valid, cotangents
    )
    for got in (outside, taken_inside):
        for mine, want in zip(got, expected, strict=True):
            np.testing.assert_allclose(mine, want, rtol=1e-5, atol=1e-7)


@each
def test_each_device_by_itself_would_be_another_loss(kernel):
    logps = batch(5, 16)
    whole = kernel(*logps, all_valid(16), beta=BETA)
    parts = [kernel(*(x[rows] for x in logps), all_valid(8), beta=BETA) for rows in (slice(0, 8), slice(8, 16))]
    assert np.abs(np.asarray(jnp.concatenate(parts) - whole)).max() > 1e-2


@each
def test_equal_values_keep_the_order_of_the_batch(kernel):
    """u = (0, 0, 0): the places go to the rows in turn, whatever padding stands between."""
    c, r, rc, rr = (jnp.array([0.0, 9.0, 0.0, 0.0]),) * 4
    rejected = jnp.array([3.0, 9.0, 1.0, 2.0])
    valid = jnp.array([True, False, True, True])
    if kernel is aot_paired:  # v = -rejected
        got, v = aot_paired(c, r, rc, rejected, valid, beta=1.0), np.array([-3.0, -2.0, -1.0])
    else:
        got, v = aot_unpaired(c, rejected, rc, rr * 0, valid, beta=1.0), np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(np.asarray(got)[[0, 2, 3]], np.log1p(np.exp(v)), rtol=1e-5)


@each
@pytest.mark.parametrize("argument", range(4))
def test_a_nan_in_a_row_that_counts_is_not_lost_among_the_padding(kernel, argument):
    logps = list(batch())
    logps[argument] = logps[argument].at[2].set(jnp.nan)
    valid = all_valid().at[jnp.array([1, 6])].set(False)
    assert np.isnan(jnp.sum(jnp.where(valid, kernel(*logps, valid), 0.0)))


@each
def test_a_batch_is_one_axis(kernel):
    with pytest.raises(AssertionError, match="whole batch on one axis"):
        kernel(*(x.reshape(2, 4) for x in batch()), all_valid().reshape(2, 4))
