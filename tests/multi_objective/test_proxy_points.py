"""The search for thresholds: quadratics, counted calls, a shrink, and what is refused."""

import numpy as np
import pytest

from alignment.multi_objective import proxy_points

START = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def peak(point):
    return -((point[0] - 1.5) ** 2) - 2 * (point[1] + 0.5) ** 2


def test_it_finds_the_peak_of_a_quadratic_and_asks_only_through_the_function():
    asked = []
    found = proxy_points.nelder_mead(lambda p: asked.append(p) or peak(p), START, tol=1e-8)
    np.testing.assert_allclose(found.thresholds, [1.5, -0.5], atol=1e-2)
    assert found.converged and found.calls == len(asked)
    assert found.metric == max(map(peak, asked))


def test_a_shrink_keeps_the_best_point():
    """Nothing but the first point is any good: every move fails, and all others come nearer to it."""
    asked = []

    def metric(point):
        asked.append(point)
        return float(np.allclose(point, START[0])) - np.abs(point).sum() * 1e-3 * (len(asked) > 3)

    found = proxy_points.nelder_mead(metric, START, max_calls=12, tol=1e-9)
    np.testing.assert_array_equal(found.thresholds, START[0])
    assert not found.converged
    assert any(np.allclose(p, 0.5 * START[1]) for p in asked)


def test_the_search_ends_with_its_budget():
    assert proxy_points.nelder_mead(peak, START, tol=1e-30, max_calls=20).calls <= 22


def test_nearly_the_same_thresholds_are_asked_once():
    asked = []
    answer = proxy_points.cached(lambda p: asked.append(p) or float(p.sum()))
    assert answer(np.array([1.0, 2.0])) == answer(np.array([1.004, 1.996])) == 3.0
    assert len(asked) == 1
    answer(np.array([1.0, 2.1]))
    assert len(asked) == 2


def test_reached_is_a_share_of_each_threshold():
    assert proxy_points.reached([1.04, -1.91], [1.0, -2.0])
    assert not proxy_points.reached([1.06, -2.0], [1.0, -2.0])
    assert proxy_points.reached([0.04], [0.0]) and not proxy_points.reached([0.06], [0.0])


def test_the_joint_proxy_point_is_where_the_fit_peaks_among_what_was_seen():
    rng = np.random.default_rng(0)
    returns = rng.uniform(0, 2, size=(200, 2))
    metric = -((returns[:, 0] - 1.0) ** 2) - (returns[:, 1] - 0.6) ** 2 + 0.1 * rng.normal(size=200)
    found = proxy_points.joint_proxy_point(returns, metric)
    np.testing.assert_allclose(found, [1.0, 0.6], atol=0.2)
    assert (found == returns).all(axis=1).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: proxy_points.nelder_mead(peak, START[:2]), r"simplex must have shape \(N \+ 1, N\)"),
        (lambda: proxy_points.nelder_mead(peak, np.array([[0.0, 0], [1, 1], [2, 2]])), "simplex must have a volume"),
        (lambda: proxy_points.nelder_mead(lambda p: np.nan, START), "the metric must be finite, got nan"),
        (lambda: proxy_points.nelder_mead(peak, START, gamma=1.0), r"gamma must lie in \(1, inf\)"),
        (lambda: proxy_points.joint_proxy_point(np.zeros((5, 2)), np.zeros(5)), "needs 6 points or more, got 5"),
    ],
)
def test_what_cannot_be_searched_is_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
