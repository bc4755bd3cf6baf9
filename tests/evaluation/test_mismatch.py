"""Objective mismatch: rank correlations against scipy-like oracles, regret, and weights by distance."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import evaluation as ev

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, 12))


def report(x, y, runs=None, **hyper):
    return ev.objective_mismatch(x, y, range(len(x)) if runs is None else runs, rounds=50, **hyper)


def test_a_proxy_that_is_the_gold_has_no_regret_and_full_correlation():
    got = report(X, X)
    assert got.selection_regret == 0 and (got.n, got.runs) == (12, 12)
    for name in ("pearson", "spearman", "kendall"):
        assert getattr(got, name) == getattr(got, name + "_low") == pytest.approx(1)


def test_monotone_transforms_leave_the_rank_correlations():
    got, bent = report(X, Y), report(np.exp(2 * X), Y)
    assert (got.spearman, got.kendall) == pytest.approx((bent.spearman, bent.kendall))
    assert got.pearson != pytest.approx(bent.pearson)
    turned = report(-X, Y)
    assert (turned.spearman, turned.kendall) == pytest.approx((-got.spearman, -got.kendall))


def test_kendall_counts_pairs_and_spearman_shares_ranks():
    x, y = np.array([1.0, 2, 2, 3, 5]), np.array([1.0, 1, 3, 2, 4])
    pairs = list(itertools.combinations(range(5), 2))
    signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in pairs]
    want = sum(a * b for a, b in signs) / np.sqrt(sum(a != 0 for a, _ in signs) * sum(b != 0 for _, b in signs))
    got = report(x, y)
    assert got.kendall == pytest.approx(want)
    assert got.spearman == pytest.approx(np.corrcoef([1, 2.5, 2.5, 4, 5], [1.5, 1.5, 4, 3, 5])[0, 1])
    assert got.pearson == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert got.pearson_low <= got.pearson <= got.pearson_high


def test_checkpoints_of_one_run_are_drawn_together():
    """Repeating every run's row five times narrows nothing."""
    once, often = report(X, Y), report(np.tile(X, 5), np.tile(Y, 5), runs=list(range(12)) * 5)
    assert (often.pearson_low, often.pearson_high) == pytest.approx((once.pearson_low, once.pearson_high))
    assert (often.n, often.runs) == (60, 12)


def test_regret_is_what_the_best_by_proxy_lacks():
    assert ev.selection_regret([1, 3, 2], [5, 1, 2]) == 4
    assert ev.selection_regret([1, 3, 3], [5, 1, 2]) == 3.5
    assert min(ev.selection_regret(*RNG.normal(size=(2, 6))) for _ in range(20)) >= 0


def test_the_turning_point_and_the_slope_after_it():
    kls, proxies = np.array([4.0, 0, 1, 2, 3]), np.array([4.0, 0, 1, 2, 3])
    golds = np.where(proxies <= 2, proxies, 2 - 0.5 * (proxies - 2))
    assert ev.turning_point(kls, proxies, golds) == (2, 2, pytest.approx(-0.5))
    end = ev.turning_point(kls, proxies, proxies)
    assert end.kl == 4 and np.isnan(end.slope_after)


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: report([1.0] * 4, [1, 2, 3, 4]), "proxies are 1 in every row: a constant column"),
        (lambda: report([1, 2, 3, 4], [2.0] * 4), "golds are 2 in every row"),
        (lambda: report([1, 2], [1, 2]), "at least 3 rows"),
        (lambda: report([1, 2, 3], [1, 2, np.nan]), "golds must be finite, got nan at 2"),
        (lambda: report([1, 2, 3], [1, 2]), "lengths differ"),
        (lambda: ev.distance_weights(jnp.ones(2), jnp.ones(2, bool), scale=0.0), "scale must lie in"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


DISTANCES = jnp.asarray(RNG.uniform(0, 5, 8), jnp.float32)
ALL = jnp.ones(8, bool)


def test_weights_have_mean_one_and_the_ratio_of_exponentials():
    weights = ev.distance_weights(DISTANCES, ALL, scale=2.0)
    assert weights.mean() == pytest.approx(1, rel=1e-5)
    want = np.exp(-(DISTANCES[0] - DISTANCES[1]) / 2.0)
    assert weights[0] / weights[1] == pytest.approx(float(want), rel=1e-4)


def test_equal_distances_and_a_wide_scale_leave_the_loss_as_it_is():
    np.testing.assert_allclose(ev.distance_weights(jnp.full(8, 7.0), ALL, scale=0.1), 1)
    np.testing.assert_allclose(ev.distance_weights(DISTANCES, ALL, scale=1e7), 1, atol=1e-5)


def test_a_shift_changes_nothing_however_far():
    want = ev.distance_weights(DISTANCES, ALL, scale=1.0)
    np.testing.assert_allclose(ev.distance_weights(DISTANCES + 512.0, ALL, scale=1.0), want, rtol=1e-3)


def test_padding_is_not_looked_at_and_devices_share_the_mean():
    valid = jnp.arange(8) < 5
    padded = ev.distance_weights(jnp.where(valid, DISTANCES, jnp.nan), valid, scale=1.0)
    np.testing.assert_allclose(padded[:5], ev.distance_weights(DISTANCES[:5], ALL[:5], scale=1.0), rtol=1e-6)
    assert not np.asarray(padded[5:]).any()
    assert not np.asarray(ev.distance_weights(DISTANCES, ~ALL, scale=1.0)).any()
    split = jax.vmap(lambda d, v: ev.distance_weights(d, v, scale=1.0, axis_name="i"), axis_name="i")
    np.testing.assert_allclose(
        split(DISTANCES.reshape(2, 4), valid.reshape(2, 4)).reshape(8),
        ev.distance_weights(DISTANCES, valid, scale=1.0), rtol=1e-5,
    )  # fmt: skip
    assert not np.asarray(jax.grad(lambda d: ev.distance_weights(d, ALL, scale=1.0)[0])(DISTANCES)).any()


def test_effective_sample_size():
    assert ev.effective_sample_size(jnp.ones(8)) == 8 and ev.effective_sample_size(jnp.eye(4)[1]) == 1
    sizes = [ev.effective_sample_size(ev.distance_weights(DISTANCES, ALL, scale=s)) for s in (0.1, 1.0, 10.0)]
    assert sizes[0] < sizes[1] < sizes[2] < 8
