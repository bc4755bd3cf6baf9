"""Steerability: the error falls into a part along the request and one across it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import evaluation as ev

RNG = np.random.default_rng(0)
SOURCE, TARGET, OUTPUT = jnp.asarray(RNG.random((3, 40, 4)), jnp.float32)


def test_pythagoras_where_nothing_is_clipped():
    error = ev.steering_error(TARGET, OUTPUT)
    along = ev.miscalibration(SOURCE, TARGET, OUTPUT) * jnp.linalg.norm(TARGET - SOURCE, axis=-1)
    across = ev.orthogonality(SOURCE, TARGET, OUTPUT) * jnp.linalg.norm(OUTPUT - SOURCE, axis=-1)
    np.testing.assert_allclose(error**2, along**2 + across**2, rtol=2e-3)


def test_orthogonality_is_the_sine_of_the_angle():
    moved, asked = OUTPUT - SOURCE, TARGET - SOURCE
    cosine = jnp.sum(moved * asked, -1) / jnp.linalg.norm(moved, axis=-1) / jnp.linalg.norm(asked, axis=-1)
    np.testing.assert_allclose(ev.orthogonality(SOURCE, TARGET, OUTPUT), jnp.sqrt(1 - cosine**2), rtol=2e-3)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.7])
def test_along_the_request_only_miscalibration(factor):
    """0: as it was; 1: on target; above: overshoot."""
    output = SOURCE + factor * (TARGET - SOURCE)
    np.testing.assert_allclose(ev.miscalibration(SOURCE, TARGET, output), abs(1 - factor), atol=1e-5)
    np.testing.assert_allclose(ev.orthogonality(SOURCE, TARGET, output), 0, atol=2e-3)
    np.testing.assert_allclose(
        ev.steering_error(TARGET, output), abs(1 - factor) * jnp.linalg.norm(TARGET - SOURCE, axis=-1), atol=1e-6
    )


def test_rotations_of_the_attribute_space_change_nothing():
    turn = np.linalg.qr(RNG.normal(size=(4, 4)))[0].astype(np.float32)
    turned = [jnp.asarray(np.asarray(x) @ turn) for x in (SOURCE, TARGET, OUTPUT)]
    for one, other in zip(ev.steerability(SOURCE, TARGET, OUTPUT), ev.steerability(*turned), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_coupling_shows_as_a_side_effect_and_not_as_miscalibration():
    source, target = jnp.full((1, 2), 0.2), jnp.array([[0.8, 0.2]])
    got = [ev.steerability(source, target, jnp.array([[0.8, 0.2 + drag]])) for drag in (0.0, 0.2, 0.4)]
    assert [g.miscalibration for g in got] == pytest.approx([0, 0, 0], abs=1e-6)
    assert got[0].orthogonality < got[1].orthogonality < got[2].orthogonality


def test_null_requests_and_attributes_not_asked_for():
    target = np.array(TARGET)
    target[0] = SOURCE[0]
    target[1, 1:] = np.nan  # asks for the first attribute alone
    got = ev.steerability(SOURCE, target, OUTPUT)
    assert (got.n, got.null_requests) == (39, 1)
    filled = np.where(np.isnan(target), SOURCE, target)
    assert got == ev.steerability(SOURCE, filled, OUTPUT)
    with pytest.raises(ValueError, match="nothing was asked for"):
        ev.steerability(SOURCE, SOURCE, OUTPUT)


def test_the_reward_has_a_finite_gradient_on_target():
    gradient = jax.grad(lambda x: jnp.sum(ev.steering_error(TARGET, x)))
    assert not np.asarray(gradient(TARGET)).any()
    np.testing.assert_allclose(jnp.linalg.norm(gradient(OUTPUT), axis=-1), 1, rtol=1e-5)
    with pytest.raises(AssertionError, match="target_attributes"):
        ev.steering_error(TARGET, OUTPUT[:1])
