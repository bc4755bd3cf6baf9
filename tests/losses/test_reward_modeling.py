"""The Bradley-Terry reward loss against its identities in the catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import bt_reward_loss, bt_reward_margin_loss

RNG = np.random.default_rng(0)
CHOSEN, REJECTED, MARGINS = (jnp.asarray(RNG.normal(size=6), jnp.float32) for _ in range(3))


def total(loss, *args, **hyper):
    return jnp.sum(loss(*args, **hyper))


def test_equal_rewards_cost_log_two():
    np.testing.assert_allclose(bt_reward_loss(CHOSEN, CHOSEN), np.log(2), rtol=1e-6)


def test_a_common_constant_changes_nothing_without_centering_and_something_with_it():
    np.testing.assert_allclose(
        bt_reward_loss(CHOSEN + 3, REJECTED + 3), bt_reward_loss(CHOSEN, REJECTED), rtol=1e-5, atol=1e-6
    )
    centred = bt_reward_loss(CHOSEN + 3, REJECTED + 3, center_coef=0.1)
    assert (np.abs(centred - bt_reward_loss(CHOSEN, REJECTED, center_coef=0.1)) > 0.1).all()


def test_gradient_of_the_chosen_reward_is_minus_the_probability_of_the_wrong_order():
    gradient = jax.grad(lambda r: total(bt_reward_loss, r, REJECTED))(CHOSEN)
    np.testing.assert_allclose(gradient, -jax.nn.sigmoid(REJECTED - CHOSEN), rtol=1e-5)


def test_a_margin_equals_a_smaller_chosen_reward():
    hyper = {"temperature": 0.7, "label_smoothing": 0.1}
    np.testing.assert_allclose(
        bt_reward_margin_loss(CHOSEN, REJECTED, MARGINS, **hyper),
        bt_reward_loss(CHOSEN - MARGINS, REJECTED, **hyper),
        rtol=1e-5,
    )


def test_a_larger_margin_asks_for_a_larger_gap():
    small, large = (bt_reward_margin_loss(CHOSEN, REJECTED, jnp.full(6, m)) for m in (0.1, 1.0))
    assert (large > small).all()


def test_zero_margins_are_the_loss_without_margins():
    hyper = {"temperature": 0.5, "label_smoothing": 0.2, "center_coef": 0.3}
    np.testing.assert_array_equal(
        bt_reward_margin_loss(CHOSEN, REJECTED, jnp.zeros(6), **hyper), bt_reward_loss(CHOSEN, REJECTED, **hyper)
    )


def test_the_margin_plays_no_part_in_centering():
    plain, centred = (bt_reward_margin_loss(CHOSEN, REJECTED, MARGINS, center_coef=c) for c in (0.0, 0.5))
    np.testing.assert_allclose(centred - plain, 0.5 * (CHOSEN + REJECTED) ** 2, rtol=1e-4, atol=1e-6)


def test_half_smoothing_is_symmetric_in_the_two_sides():
    half = jnp.float32(0.5)  # an array: as a static value 1/2 is out of range, for it teaches nothing
    np.testing.assert_allclose(
        bt_reward_loss(CHOSEN, REJECTED, label_smoothing=half),
        bt_reward_loss(REJECTED, CHOSEN, label_smoothing=half),
        rtol=1e-6,
    )


@pytest.mark.parametrize("smoothing", [0.05, 0.2, 0.4])
def test_smoothing_puts_the_minimum_at_a_finite_gap(smoothing):
    best = jnp.full(1, np.log((1 - smoothing) / smoothing))

    def slope(gap):
        return jax.grad(lambda g: total(bt_reward_loss, g, jnp.zeros(1), label_smoothing=smoothing))(gap)

    np.testing.assert_allclose(slope(best), 0, atol=1e-6)
    assert slope(best - 0.5) < 0 < slope(best + 0.5)


def test_centering_is_best_where_the_rewards_of_a_pair_sum_to_zero():
    def slope(shift):
        return jax.grad(lambda s: total(bt_reward_loss, CHOSEN[:1] + s, REJECTED[:1] + s, center_coef=0.1))(shift)

    best = -(CHOSEN[0] + REJECTED[0]) / 2
    np.testing.assert_allclose(slope(best), 0, atol=1e-6)
    assert slope(best - 1) < 0 < slope(best + 1)


def test_temperature_divides_the_gap():
    np.testing.assert_allclose(
        bt_reward_loss(CHOSEN, REJECTED, temperature=0.1), bt_reward_loss(CHOSEN * 10, REJECTED * 10), rtol=1e-5
    )


def test_a_confident_mistake_keeps_its_gradient():
    """-log(sigmoid(d) + 1e-5), found in published code, goes flat at 11.5 and stops teaching."""
    gradient = jax.grad(lambda r: total(bt_reward_loss, r, jnp.zeros(1)))(jnp.array([-50.0]))
    np.testing.assert_allclose(gradient, -1.0)
