"""The estimator of best-of-n equals brute force over all subsets."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment import evaluation as ev

RNG = np.random.default_rng(0)
PROXY, GOLD = RNG.normal(size=(2, 3, 6))


def brute_force(proxy, gold, n):
    """Mean over all subsets of the gold score of the best by proxy, which ties share."""
    picks = []
    for subset in itertools.combinations(range(len(proxy)), n):
        best = max(proxy[i] for i in subset)
        picks.append(np.mean([gold[i] for i in subset if proxy[i] == best]))
    return np.mean(picks)


@pytest.mark.parametrize("n", range(1, 7))
def test_it_equals_brute_force_with_ties_too(n):
    tied = np.round(PROXY)  # several equal scores a prompt
    for proxy in (PROXY, tied):
        got = ev.best_of_n_curve(proxy, GOLD, counts=[n])
        assert got.gold[0] == pytest.approx(np.mean([brute_force(p, g, n) for p, g in zip(proxy, GOLD, strict=True)]))
        assert got.proxy[0] == pytest.approx(np.mean([brute_force(p, p, n) for p in proxy]))
    assert len(np.unique(tied[0])) < 6


def test_ends_of_the_curve():
    got = ev.best_of_n_curve(PROXY, GOLD)
    np.testing.assert_array_equal(got.n, [1, 2, 4, 6])
    assert got.gold[0] == pytest.approx(GOLD.mean()) and got.kl[0] == 0
    assert got.gold[-1] == pytest.approx(np.mean([g[np.argmax(p)] for p, g in zip(PROXY, GOLD, strict=True)]))
    np.testing.assert_allclose(got.kl, np.log([1, 2, 4, 6]) - np.array([0, 1 / 2, 3 / 4, 5 / 6]), rtol=1e-6)
    assert (np.diff(got.proxy) >= 0).all()
    first = GOLD.mean(axis=1)
    assert got.gold_standard_error[0] == pytest.approx(first.std(ddof=1) / np.sqrt(3))


def test_gold_that_is_the_proxy_has_the_same_curve():
    got = ev.best_of_n_curve(PROXY, PROXY)
    np.testing.assert_allclose(got.gold, got.proxy)


@settings(max_examples=20)
@given(st.integers(1, 3000), st.data())
def test_weights_are_a_distribution_for_any_pool(pool, data):
    n = data.draw(st.integers(1, pool))
    weights = ev.best_of_n_weights(pool, n)
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all() and not weights[: n - 1].any()
    assert weights[-1] == pytest.approx(n / pool)


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: ev.best_of_n_curve(PROXY, GOLD[:, :5]), r"must be \[P, N\], got \(3, 6\) and \(3, 5\)"),
        (lambda: ev.best_of_n_curve(PROXY, GOLD * np.nan), "must be finite"),
        (lambda: ev.best_of_n_curve(PROXY, GOLD, counts=[7]), r"count must lie in \[1, 6\]"),
        (lambda: ev.best_of_n_weights(3, 0), "count must be an integer"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
