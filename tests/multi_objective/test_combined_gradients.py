"""Combined gradients: closed forms, optimality, conflicts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment import multi_objective as mo


def gram_of(vectors):
    return jnp.asarray(vectors @ vectors.T, jnp.float32)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([3, 4]), st.sampled_from([2, 5]))
def test_mgda_is_the_shortest_vector_of_the_hull_and_lowers_every_loss(seed, count, size):
    """Also where there are more gradients than dimensions, and the hull may hold 0."""
    vectors = np.random.default_rng(seed).normal(size=(count, size))
    weights = np.asarray(mo.mgda_weights(gram_of(vectors)), np.float64)
    assert (weights >= 0).all() and abs(weights.sum() - 1) < 1e-5
    direction = weights @ vectors
    # The condition that is both necessary and sufficient for the minimum.
    assert (vectors @ direction >= direction @ direction - 2e-4).all()


@pytest.mark.parametrize("count", [2, 3])
def test_of_parallel_gradients_the_shortest_has_all_the_weight(count):
    lengths = np.array([3.0, 1.0, 2.0])[:count]
    weights = mo.mgda_weights(gram_of(lengths[:, None] * np.array([[0.6, 0.8]])))
    np.testing.assert_allclose(weights, np.eye(count)[1], atol=1e-5)


def test_mgda_of_two_is_clipped_and_halves_equal_gradients():
    np.testing.assert_allclose(mo.mgda_weights(gram_of(np.array([[1.0, 0], [1, 0]]))), [0.5, 0.5])
    np.testing.assert_allclose(mo.mgda_weights(gram_of(np.array([[1.0, 0], [3, 1]]))), [1.0, 0.0])
    np.testing.assert_array_equal(mo.mgda_weights(jnp.zeros((2, 2))), [0.5, 0.5])
    np.testing.assert_array_equal(mo.mgda_weights(jnp.ones((1, 1))), [1.0])


def test_mgda_does_not_depend_on_the_unit_of_the_losses():
    gram = gram_of(np.random.default_rng(0).normal(size=(3, 4)))
    np.testing.assert_allclose(mo.mgda_weights(1e-12 * gram), mo.mgda_weights(gram), atol=1e-5)


def test_mgda_stops_on_the_segment_between_two_optima():
    """Of |x - a|^2 and |x - b|^2 every point of the segment from a to b is Pareto optimal."""
    a, b = np.array([0.0, 0.0]), np.array([1.0, 0.0])

    @jax.jit
    def step(x):
        gradients = jnp.stack([2 * (x - a), 2 * (x - b)])
        return x - 0.1 * mo.mgda_weights(gradients @ gradients.T) @ gradients

    for start in ([0.3, 1.0], [-1.0, 0.5], [2.0, -1.0]):
        x = jnp.array(start)
        for _ in range(120):
            x = step(x)
        np.testing.assert_allclose(x[1], 0, atol=1e-3)
        assert -1e-3 <= x[0] <= 1 + 1e-3


def test_too_many_objectives_for_the_exact_solver_are_an_error():
    with pytest.raises(ValueError, match="gram must be of 1 to 8 objectives, got 9"):
        mo.mgda_weights(jnp.eye(9))


def order(count):
    return jnp.tile(jnp.arange(count, dtype=jnp.int32), (count, 1))


def projected(vectors, orders):
    """PCGrad on the vectors themselves."""
    total = np.zeros(vectors.shape[1])
    for i, others in enumerate(orders):
        v = vectors[i].copy()
        for j in others:
            if j != i and v @ vectors[j] < 0:
                v -= v @ vectors[j] / (vectors[j] @ vectors[j]) * vectors[j]
        total += v
    return total


@pytest.mark.parametrize("seed", range(4))
def test_surgery_on_coefficients_is_surgery_on_the_vectors(seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(4, 3))
    orders = np.stack([rng.permutation(4) for _ in range(4)]).astype(np.int32)
    coefficients = np.asarray(mo.pcgrad_weights(gram_of(vectors), jnp.asarray(orders)))
    np.testing.assert_allclose(coefficients @ vectors, projected(vectors, orders), atol=1e-4)


def test_without_conflicts_surgery_adds():
    vectors = np.abs(np.random.default_rng(0).normal(size=(3, 4)))
    np.testing.assert_allclose(mo.pcgrad_weights(gram_of(vectors), order(3)), np.ones(3), rtol=1e-6)


def test_the_order_matters_from_three_objectives_on():
    rng = np.random.default_rng(0)
    for count, differs in ((2, False), (3, True)):
        seen = []
        for _ in range(20):
            gram = gram_of(rng.normal(size=(count, 2)))
            results = [
                mo.pcgrad_weights(gram, jnp.tile(jnp.array(o, jnp.int32), (count, 1)))
                for o in itertools.permutations(range(count))
            ]
            seen.append(max(float(jnp.abs(r - results[0]).max()) for r in results) > 1e-3)
        assert any(seen) == differs


def test_two_that_conflict_are_orthogonal_to_the_other_after_projection():
    g = np.array([[1.0, 0.2], [-0.7, 0.9]])
    v = g[0] - g[0] @ g[1] / (g[1] @ g[1]) * g[1]
    assert abs(v @ g[1]) < 1e-12
    np.testing.assert_allclose(
        np.asarray(mo.pcgrad_weights(gram_of(g), order(2))) @ g, projected(g, [[0, 1], [0, 1]]), rtol=1e-5
    )


@pytest.mark.parametrize(
    "gram", [np.ones((3, 3)), np.eye(3), np.zeros((3, 3))], ids=["equal", "orthogonal of one length", "zero"]
)
def test_equal_influences_leave_the_weights(gram):
    weights = jnp.array([0.2, 0.3, 0.5])
    np.testing.assert_allclose(mo.gradient_weight_update(weights, jnp.asarray(gram, jnp.float32)), weights, rtol=1e-5)


def test_a_weight_of_zero_stays_and_the_rest_stays_on_the_simplex():
    gram = gram_of(np.random.default_rng(0).normal(size=(3, 4)))
    new = mo.gradient_weight_update(jnp.array([0.0, 0.4, 0.6]), gram, eta=1.0, mu=1e-4)
    assert new[0] == 0
    np.testing.assert_allclose(new.sum(), 1, rtol=1e-6)
    np.testing.assert_array_equal(mo.gradient_weight_update(jnp.ones(1), jnp.ones((1, 1))), [1.0])


def test_normalised_products_are_those_of_unit_gradients():
    vectors = np.random.default_rng(0).normal(size=(3, 4))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(mo.l2_normalized_gram(gram_of(vectors)), gram_of(unit), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(mo.l2_normalized_gram(jnp.zeros((2, 2))), 0)
    np.testing.assert_array_equal(
        mo.loss_normalized_gram(jnp.ones((2, 2)), jnp.array([0.0, 2.0])), [[1, 0.5], [0.5, 0.25]]
    )
