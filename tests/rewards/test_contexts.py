"""Preferences by context: the marginal, and the bound of what two kinds of mistake cost."""

import jax.numpy as jnp
import numpy as np

from alignment.rewards import contexts

RNG = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def test_a_certain_context_gives_its_own_preference():
    first, second = draw(4, 3), draw(4, 3)
    probs = jnp.broadcast_to(jnp.array([0.0, 1.0, 0.0]), (4, 3))
    expected = 1 / (1 + np.exp(second[:, 1] - first[:, 1]))
    np.testing.assert_allclose(contexts.marginal_preference(first, second, probs), expected, rtol=1e-5)


def test_preferences_of_both_orders_sum_to_one():
    first, second, probs = draw(4, 3), draw(4, 3), jnp.asarray(RNG.dirichlet(np.ones(3), 4), jnp.float32)
    there, back = contexts.marginal_preference(first, second, probs), contexts.marginal_preference(second, first, probs)
    np.testing.assert_allclose(there + back, 1.0, rtol=1e-5)


def test_a_mixture_of_sigmoids_is_no_sigmoid_of_a_mixture():
    first, probs = jnp.array([[4.0, -4.0]]), jnp.array([[0.75, 0.25]])
    got = contexts.marginal_preference(first, jnp.zeros((1, 2)), probs)
    assert abs(got[0] - 1 / (1 + np.exp(-2.0))) > 0.1


def test_the_bound_holds_and_is_zero_for_equal_inputs():
    p, q = (jnp.asarray(RNG.dirichlet(np.ones(5), 500), jnp.float32) for _ in range(2))
    true, ours = (jnp.asarray(RNG.random((500, 5)), jnp.float32) for _ in range(2))
    error, of_contexts, of_inference = contexts.context_error_bound(true, ours, p, q)
    assert (error <= of_contexts + of_inference + 1e-6).all()
    for part in contexts.context_error_bound(true, true, p, p):
        np.testing.assert_allclose(part, 0.0, atol=1e-6)
