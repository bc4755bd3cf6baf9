"""The links: closed forms, limits, and no overflow where a naive formula has long lost its digits."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import links

MARGINS = jnp.linspace(-30, 30, 121)
EXACT = np.asarray(MARGINS, np.float64)
each = pytest.mark.parametrize("name", links.__all__)
OUT_OF_RANGE = [
    ("logistic", "label_smoothing", -0.01, "[0, 0.5]"),
    ("logistic", "label_smoothing", 0.51, "[0, 0.5]"),
    ("logistic", "label_smoothing", float("nan"), "[0, 0.5]"),
    ("squared", "target", float("inf"), "(-inf, inf)"),
    ("focal", "gamma", -1.0, "[0, inf)"),
    ("hinge", "offset", -0.1, "[0, inf)"),
    ("robust", "flip_rate", -0.1, "[0, 0.5)"),
    ("robust", "flip_rate", 0.5, "[0, 0.5)"),
    ("discopop", "tau", 0.0, "(0, 1]"),
    ("discopop", "tau", 1.5, "(0, 1]"),
    ("reverse_kl", "label_smoothing", 0.0, "(0, 0.5)"),
    ("reverse_kl", "label_smoothing", 0.5, "(0, 0.5)"),
]


def sigmoid(z):
    return 1 / (1 + np.exp(-np.asarray(z, np.float64)))


def hyperparameters(name):
    return list(inspect.signature(getattr(links, name)).parameters.values())[1:]


# ------------------------------------------------------------------------------------------------------ all links


@each
def test_is_elementwise_and_finite_in_value_and_gradient_at_extremes(name):
    link = getattr(links, name)
    extremes = jnp.array([-4e4, -1e4, -104.0, -88.8, -30.0, 0.0, 1.0, 30.0, 88.8, 104.0, 1e4, 4e4])
    value, slope = jax.vmap(jax.value_and_grad(link))(extremes)
    assert np.isfinite(value).all() and np.isfinite(slope).all()
    assert np.isfinite(np.square(np.asarray(slope))).all()  # the norm of a gradient is made of these
    np.testing.assert_allclose(link(extremes.reshape(3, 4)).ravel(), value, rtol=1e-6)


@each
def test_every_hyperparameter_has_a_default_and_a_range(name):
    assert all(p.default is not p.empty for p in hyperparameters(name))
    assert {p.name for p in hyperparameters(name)} == {h for link, h, _, _ in OUT_OF_RANGE if link == name}


@each
def test_hyperparameters_may_be_vmapped_over(name):
    link = getattr(links, name)
    for parameter in hyperparameters(name):
        swept = jax.vmap(lambda v, n=parameter.name: link(MARGINS, **{n: v}))(jnp.array([0.1, 0.3]))
        for value, got in zip((0.1, 0.3), swept, strict=True):
            np.testing.assert_allclose(got, link(MARGINS, **{parameter.name: value}), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "hyperparameter", "value", "interval"), OUT_OF_RANGE)
def test_out_of_range_states_the_range(name, hyperparameter, value, interval):
    with pytest.raises(ValueError) as error:
        getattr(links, name)(MARGINS, **{hyperparameter: value})
    assert str(error.value).startswith(f"{hyperparameter} must lie in {interval}")


@each
def test_gradient_agrees_with_finite_differences(name):
    link = getattr(links, name)
    with jax.enable_x64(True):
        z, step = jnp.linspace(-33.3, 33.3, 60), 1e-6
        numeric = (link(z + step) - link(z - step)) / (2 * step)
        np.testing.assert_allclose(jax.vmap(jax.grad(link))(z), numeric, rtol=1e-6, atol=1e-8)


# ------------------------------------------------------------------------------------------------------- each link


def test_logistic_is_minus_log_sigmoid():
    np.testing.assert_allclose(links.logistic(MARGINS), -np.log(sigmoid(EXACT)), rtol=1e-5, atol=1e-12)


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


def test_robust_takes_a_line():
    expected = links.logistic(MARGINS) - 0.2 / 0.6 * MARGINS
    np.testing.assert_allclose(links.robust(MARGINS, 0.2), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(links.robust(MARGINS, 0.0), links.logistic(MARGINS))


def test_focal_without_gamma_is_logistic():
    np.testing.assert_allclose(links.focal(MARGINS, 0.0), links.logistic(MARGINS), rtol=1e-6)


def test_squared_is_zero_only_at_its_target():
    np.testing.assert_array_equal(links.squared(MARGINS, 1.5) == 0, MARGINS == 1.5)


def test_hinge_is_a_line_up_to_its_offset_and_zero_from_there():
    np.testing.assert_array_equal(links.hinge(MARGINS, 2.0), np.maximum(2.0 - np.asarray(MARGINS), 0))
    assert float(jax.grad(links.hinge)(jnp.float32(1.5))) == 0 and float(jax.grad(links.hinge)(jnp.float32(0.5))) == -1


def test_sigmoid_is_one_minus_the_sigmoid_without_losing_its_tail():
    np.testing.assert_allclose(links.sigmoid(MARGINS), sigmoid(-EXACT), rtol=1e-5)
    assert 0 < float(links.sigmoid(jnp.float32(30.0))) < 1e-12


def test_exponential_is_exp_where_that_is_tame_and_its_tangent_beyond():
    np.testing.assert_allclose(links.exponential(MARGINS), np.exp(-EXACT), rtol=1e-5)
    np.testing.assert_allclose(links.exponential(jnp.float32(-40.0)), np.exp(30.0) * 11, rtol=1e-5)
    slope = jax.vmap(jax.grad(links.exponential))(jnp.array([-29.999, -30.001, -1e4]))
    np.testing.assert_allclose(slope, -np.exp(30.0), rtol=2e-3)


def test_exponential_minus_one_keeps_its_digits_near_zero():
    small = jnp.array([1e-6, -1e-6, 1e-3])
    np.testing.assert_allclose(links.exponential_minus_one(small), np.expm1(-np.asarray(small, np.float64)), rtol=1e-6)


def test_reverse_kl_and_logistic_are_the_two_directions_between_the_same_two_labels():
    eps, q = 0.2, sigmoid(np.linspace(-5, 5, 21))
    p = np.array([1 - eps, eps])[:, None]
    both = np.stack([q, 1 - q])
    z = jnp.linspace(-5, 5, 21)
    reverse, forward = (both * np.log(both / p)).sum(0), (p * np.log(p / both)).sum(0)
    np.testing.assert_allclose(links.reverse_kl(z, eps), reverse, rtol=1e-4, atol=1e-6)
    entropy = -(p * np.log(p)).sum()
    np.testing.assert_allclose(links.logistic(z, eps) - entropy, forward, rtol=1e-4, atol=1e-6)


def test_discopop_is_the_blend_of_logistic_and_exponential():
    m = sigmoid(EXACT / 0.5)
    expected = (1 - m) * np.log1p(np.exp(-EXACT)) + m * np.exp(-EXACT)
    np.testing.assert_allclose(links.discopop(MARGINS, 0.5), expected, rtol=1e-4, atol=1e-12)
