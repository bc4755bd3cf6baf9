"""Indicators of fronts against Monte Carlo, brute force and each other."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment import multi_objective as mo
from alignment.multi_objective import pareto

RNG = np.random.default_rng(0)


def there(points):
    return np.ones(len(points), bool)


def front_of(points):
    return points[np.asarray(mo.non_dominated(points, there(points))) > 0]


def inclusion_exclusion(points, reference):
    """Volume of a union of boxes by its intersections: another route than slicing."""
    heights, total = np.maximum(points - reference, 0), 0.0
    for size in range(1, len(points) + 1):
        for some in itertools.combinations(range(len(points)), size):
            total += (-1) ** (size + 1) * np.prod(heights[list(some)].min(axis=0))
    return total


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 4), st.integers(0, 10_000))
def test_hypervolume_is_the_volume_by_inclusion_and_exclusion(objectives, seed):
    points = np.random.default_rng(seed).normal(size=(6, objectives))
    with jax.enable_x64(True):
        got = mo.hypervolume(points, there(points), -0.5 * np.ones(objectives))
    np.testing.assert_allclose(got, inclusion_exclusion(points, -0.5), rtol=1e-9, atol=1e-12)


def test_hypervolume_of_many_points_agrees_with_monte_carlo():
    points = np.random.default_rng(1).random((40, 3)).astype(np.float32)
    samples = np.random.default_rng(2).random((100_000, 3))
    inside = np.zeros(len(samples), bool)
    for point in points:
        inside |= (samples <= point).all(axis=1)
    got = mo.hypervolume(points, there(points), np.zeros(3, np.float32))
    np.testing.assert_allclose(got, inside.mean(), atol=5 * np.sqrt(0.25 / len(samples)))


def test_hypervolume_scales_with_the_power_of_the_dimension_and_ignores_what_is_below_the_reference():
    points = np.float32([[1.0, 2.0, 0.5], [0.5, 3.0, 1.0], [2.0, 2.0, -1.0]])
    reference = np.zeros(3, np.float32)
    volume = mo.hypervolume(points, there(points), reference)
    np.testing.assert_allclose(mo.hypervolume(2 * points, there(points), reference), 8 * volume, rtol=1e-6)
    np.testing.assert_allclose(mo.hypervolume(points[:2], there(points)[:2], reference), volume, rtol=1e-6)
    assert mo.hypervolume(points, ~there(points), reference) == 0


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 3), st.integers(0, 10_000))
def test_a_gain_is_the_difference_of_two_hypervolumes(objectives, seed):
    rng = np.random.default_rng(seed)
    points, new, reference = rng.random((7, objectives)), rng.random(objectives), np.full(objectives, 0.1)
    with jax.enable_x64(True):
        before = mo.hypervolume(points, there(points), reference)
        both = np.concatenate([points, new[None]])
        after = mo.hypervolume(both, there(both), reference)
        gain = mo.hypervolume_gain(points, there(points), new, reference)
    np.testing.assert_allclose(gain, after - before, atol=1e-12)
    assert after >= before - 1e-12  # float64 sums of many slices


def test_a_tiny_gain_keeps_its_digits():
    points = np.float32([[1000.0, 1000.0]])
    gain = mo.hypervolume_gain(points, there(points), np.float32([1e-3, 1000.01]), np.zeros(2, np.float32))
    np.testing.assert_allclose(gain, 1e-3 * (np.float32(1000.01) - 1000.0), rtol=1e-2)


def test_dominated_points_change_neither_hypervolume_nor_utility():
    points = RNG.random((12, 2)).astype(np.float32)
    best, preferences = front_of(points), RNG.dirichlet(np.ones(2), size=20).astype(np.float32)
    zero = np.zeros(2, np.float32)
    assert len(best) < len(points)
    np.testing.assert_allclose(
        mo.hypervolume(best, there(best), zero), mo.hypervolume(points, there(points), zero), rtol=1e-6
    )
    np.testing.assert_allclose(
        mo.expected_utility(best, there(best), preferences), mo.expected_utility(points, there(points), preferences),
        rtol=1e-6,
    )  # fmt: skip


def test_a_sort_peels_one_front_after_another():
    points = RNG.random((15, 3)).astype(np.float32)
    ranks = np.asarray(mo.non_dominated_ranks(points, there(points)))
    left, rank = np.arange(15), 1
    while len(left):
        best = np.asarray(mo.non_dominated(points[left], there(left))) > 0
        assert (ranks[left[best]] == rank).all()
        left, rank = left[~best], rank + 1


def test_equal_points_all_stay_on_the_front():
    points = np.float32([[1, 1], [1, 1], [0, 0]])
    np.testing.assert_array_equal(mo.non_dominated(points, there(points)), [1, 1, 0])


def test_a_set_reaches_itself_fully_and_at_no_distance():
    points = RNG.random((6, 2)).astype(np.float32)
    preferences = RNG.dirichlet(np.ones(2), size=9).astype(np.float32)
    valid = there(points)
    assert mo.coverage(points, valid, points) == 1
    assert mo.inverted_generational_distance(points, valid, points) == 0
    assert mo.maximum_utility_loss(points, valid, points, preferences) == 0


def test_r2_is_zero_with_the_ideal_point_in_the_set():
    points = np.float32([[1, 0], [2, 3], [0, 1]])
    preferences = RNG.dirichlet(np.ones(2), size=9).astype(np.float32)
    assert mo.r2_indicator(points, there(points), preferences, np.float32([2, 3])) == 0


def test_sparsity_is_fooled_by_a_heap():
    front = np.float32([[0, 4], [1, 3], [2, 2], [3, 1], [4, 0]])
    heap = np.float32([[2, 2], [2.01, 1.99]])
    assert mo.sparsity(heap, there(heap)) < mo.sparsity(front, there(front))
    assert mo.hypervolume(heap, there(heap), np.zeros(2, np.float32)) < mo.hypervolume(
        front, there(front), np.zeros(2, np.float32)
    )
    assert mo.sparsity(front[:1], there(front[:1])) == 0


def test_a_constant_objective_makes_no_ends():
    points = np.float32([[0, 5], [1, 5], [3, 5]])
    np.testing.assert_allclose(mo.crowding_distances(points, there(points)), [1e9, 1.0, 1e9])
    same = np.float32([[2, 5]] * 3)
    np.testing.assert_array_equal(mo.crowding_distances(same, there(same)), np.zeros(3))


def test_extreme_preferences_are_served_by_extreme_policies():
    points = np.float32([[3, 0], [2, 2], [0, 3]])
    preferences = np.float32([[1, 0], [0.5, 0.5], [0, 1]])
    np.testing.assert_array_equal(mo.assigned_policies(points, there(points), preferences), [0, 1, 2])


def test_points_evenly_in_all_clusters_have_the_largest_entropy():
    centres = np.float32([[0, 0], [9, 0], [0, 9]])
    points = np.repeat(centres, 2, axis=0) + np.float32(0.1)
    np.testing.assert_allclose(mo.cluster_entropy(points, there(points), centres), np.log(3), rtol=1e-6)
    assert mo.cluster_entropy(points[:2], there(points[:2]), centres) == 0


def test_nothing_is_behind_valid_in_a_growing_archive():
    """An archive of fixed size with room left gives what its points alone give."""
    points = RNG.random((5, 3)).astype(np.float32)
    archive = np.concatenate([points, np.full((4, 3), 7, np.float32)])
    valid = np.arange(9) < 5
    preferences = RNG.dirichlet(np.ones(3), size=5).astype(np.float32)
    for function, rest in (
        (mo.hypervolume, (np.zeros(3, np.float32),)),
        (mo.sparsity, ()),
        (mo.expected_utility, (preferences,)),
        (mo.r2_indicator, (preferences, np.ones(3, np.float32))),
        (mo.top_k_reward, (preferences[0],)),
    ):
        np.testing.assert_allclose(function(archive, valid, *rest), function(points, there(points), *rest), rtol=1e-6)


def test_sets_without_a_point_have_the_documented_values():
    points, valid = np.zeros((3, 2), np.float32), np.zeros(3, bool)
    preferences = np.float32([[0.5, 0.5]])
    assert mo.expected_utility(points, valid, preferences) == -np.inf
    assert mo.r2_indicator(points, valid, preferences, np.ones(2, np.float32)) == np.inf
    assert mo.inverted_generational_distance(points, valid, np.ones((1, 2), np.float32)) == np.inf
    assert mo.coverage(points, valid, np.ones((1, 2), np.float32)) == 0
    assert mo.top_k_reward(points, valid, np.float32([1, 0])) == 0


def test_a_reference_point_of_another_dimension_is_an_error_that_says_so():
    points = np.zeros((3, 2), np.float32)
    with pytest.raises(AssertionError, match=r"reference must have shape \(2,\)"):
        pareto.hypervolume(points, there(points), np.zeros(3, np.float32))
