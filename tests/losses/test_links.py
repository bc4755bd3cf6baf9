"""The links: closed forms, limits, and no overflow where a naive formula has long lost its digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import links

MARGINS = jnp.linspace(-30, 30, 121)


def test_logistic_is_minus_log_sigmoid():
    expected = -np.log(1 / (1 + np.exp(-np.asarray(MARGINS, np.float64))))
    np.testing.assert_allclose(links.logistic(MARGINS), expected, rtol=1e-5, atol=1e-12)


def test_logistic_and_focal_are_finite_where_log_of_sigmoid_is_not():
    huge = jnp.array([-1e30, -1e4, -104.0, 0.0, 104.0, 1e4, 1e30])
    assert not np.isfinite(jnp.log(jax.nn.sigmoid(huge))).all()
    for link in (links.logistic, lambda z: links.logistic(z, 0.3), lambda z: links.focal(z, 0.5)):
        value, slope = jax.vmap(jax.value_and_grad(link))(huge)
        assert np.isfinite(value).all() and np.isfinite(slope).all()


def test_half_smoothing_makes_the_logistic_link_symmetric():
    np.testing.assert_allclose(links.logistic(MARGINS, 0.5), links.logistic(-MARGINS, 0.5), rtol=1e-6)


def test_smoothing_adds_a_line():
    np.testing.assert_allclose(
        links.logistic(MARGINS, 0.2), links.logistic(MARGINS) + 0.2 * MARGINS, rtol=1e-5, atol=1e-5
    )


def test_focal_without_gamma_is_logistic():
    np.testing.assert_allclose(links.focal(MARGINS, 0.0), links.logistic(MARGINS), rtol=1e-6)


def test_squared_is_zero_only_at_its_target():
    np.testing.assert_array_equal(links.squared(MARGINS, 1.5) == 0, MARGINS == 1.5)


@pytest.mark.parametrize("smoothing", [-0.01, 0.51, float("nan")])
def test_smoothing_out_of_range_states_the_range(smoothing):
    with pytest.raises(ValueError, match=r"label_smoothing must lie in \[0, 0.5\]"):
        links.logistic(MARGINS, smoothing)


def test_negative_gamma_states_the_range():
    with pytest.raises(ValueError, match=r"gamma must lie in \[0, inf\)"):
        links.focal(MARGINS, -1.0)
