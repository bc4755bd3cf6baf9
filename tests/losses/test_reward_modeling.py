"""The Bradley-Terry reward loss against its identities in the catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import losses
from alignment.losses import (
    barrier_reward_loss,
    bt_reward_loss,
    bt_reward_margin_loss,
    bt_with_ties,
    bt_with_ties_davidson,
    focal_reward_loss,
    hinge_reward_loss,
    margin_mse_reward_loss,
    scaled_bt_reward_loss,
)

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


# --- other links -----------------------------------------------------------------------------------------------------

WIDE = (jnp.linspace(-4, 4, 33), jnp.zeros(33))


def test_focal_without_gamma_is_bradley_terry():
    np.testing.assert_allclose(focal_reward_loss(*WIDE, gamma=0.0), bt_reward_loss(*WIDE), rtol=1e-6)


def test_focal_is_bradley_terry_for_misordered_pairs_and_less_for_others():
    focal, plain = focal_reward_loss(*WIDE, gamma=2.0), bt_reward_loss(*WIDE)
    np.testing.assert_allclose(focal[:17], plain[:17], rtol=1e-6)
    assert (focal[17:] < plain[17:]).all()


def test_focal_and_its_gradient_vanish_faster_than_bradley_terry():
    def ratio(gap):
        at = (jnp.array([gap]), jnp.zeros(1))
        slopes = [jax.grad(lambda r, k=k: total(k, r, at[1]))(at[0])[0] for k in (focal_reward_loss, bt_reward_loss)]
        return focal_reward_loss(*at)[0] / bt_reward_loss(*at)[0], slopes[0] / slopes[1]

    near, far = ratio(4.0), ratio(9.0)
    assert all(0 < f < n / 100 for n, f in zip(near, far, strict=True))


def test_barrier_is_least_at_zero_and_pulls_back_what_has_escaped():
    def wall(reward):
        pair = (jnp.full(1, reward), jnp.full(1, reward))
        return (barrier_reward_loss(*pair, limit=3.0, barrier=1.0) - focal_reward_loss(*pair))[0]

    np.testing.assert_allclose(jax.grad(wall)(0.0), 0.0, atol=1e-6)
    values = [wall(r) for r in (0.0, 1.0, -2.0, 2.9, 2.999, -3.0, 3.5, 10.0)]
    assert values == sorted(values)
    np.testing.assert_allclose(wall(1.5), -np.log(3.0 + 1.5) - np.log(3.0 - 1.5), rtol=1e-5)
    assert jax.grad(wall)(3.5) > 100  # a clamp would have no slope here


def test_hinge_has_no_loss_and_no_gradient_beyond_the_margin():
    chosen = jnp.array([1.0, 1.4, 3.0])
    loss = hinge_reward_loss(chosen, jnp.zeros(3), target_gap=1.2)
    gradient = jax.grad(lambda r: total(hinge_reward_loss, r, jnp.zeros(3), target_gap=1.2))(chosen)
    np.testing.assert_allclose(loss, [0.2, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(gradient, [-1, 0, 0])


def test_margin_regression_is_least_at_the_margin_and_punishes_more():
    loss = margin_mse_reward_loss(jnp.array([0.5, 1.0, 1.5]), jnp.zeros(3), target_gap=1.0)
    np.testing.assert_allclose(loss, [0.25, 0.0, 0.25])


def test_strength_one_is_bradley_terry_and_strength_scales_it():
    np.testing.assert_allclose(scaled_bt_reward_loss(CHOSEN, REJECTED, jnp.ones(6)), bt_reward_loss(CHOSEN, REJECTED))
    np.testing.assert_allclose(
        scaled_bt_reward_loss(CHOSEN, REJECTED, jnp.full(6, 3.0)), 3 * bt_reward_loss(CHOSEN, REJECTED), rtol=1e-6
    )


# --- ties ------------------------------------------------------------------------------------------------------------

NO, YES = jnp.zeros(33, bool), jnp.ones(33, bool)
MODELS = pytest.mark.parametrize("loss,name", [(bt_with_ties, "eta"), (bt_with_ties_davidson, "nu")])


@MODELS
@pytest.mark.parametrize("value", [1e-3, 0.4, 3.0])
def test_the_three_outcomes_have_probabilities_that_sum_to_one(loss, name, value):
    a, b = WIDE
    won, lost, tied = (jnp.exp(-loss(*x, **{name: value})) for x in ((a, b, NO), (b, a, NO), (a, b, YES)))
    np.testing.assert_allclose(won + lost + tied, 1.0, rtol=1e-5)


@MODELS
def test_without_a_width_ties_are_impossible_and_the_rest_is_bradley_terry(loss, name):
    np.testing.assert_allclose(loss(*WIDE, NO, **{name: 0.0}), bt_reward_loss(*WIDE), rtol=1e-5, atol=1e-6)
    assert np.isinf(loss(*WIDE, YES, **{name: 0.0})).all()


@MODELS
def test_a_tie_does_not_know_its_sides_and_is_likeliest_at_equal_rewards(loss, name):
    a, b = WIDE
    np.testing.assert_allclose(loss(a, b, YES), loss(b, a, YES), rtol=1e-5)
    assert np.argmin(loss(a, b, YES)) == 16


def test_a_narrow_tie_keeps_its_digits():
    """1 - P(w) - P(l) would lose them: at eta = 1e-5 and d = 0 the probability is tanh(eta / 2)."""
    zero = jnp.zeros(1)
    np.testing.assert_allclose(
        bt_with_ties(zero, zero, jnp.ones(1, bool), eta=1e-5), -np.log(np.tanh(0.5e-5)), rtol=1e-5
    )


# --- an autoregressive reward model -----------------------------------------------------------------------------------


def test_genarm_is_dpo_with_a_reference_that_finds_both_equally_likely():
    chosen, rejected = jnp.asarray([-3.0, -9.0, -2.0]), jnp.asarray([-4.0, -5.0, -2.0])
    indifferent = jnp.full(3, -7.0)
    got = losses.genarm(chosen, rejected, beta=0.3)
    np.testing.assert_allclose(got, losses.dpo(chosen, rejected, indifferent, indifferent, beta=0.3), rtol=1e-6)
    np.testing.assert_allclose(got[2], np.log(2), rtol=1e-6)
    smoothed = losses.genarm(chosen, rejected, beta=0.3, label_smoothing=0.1)
    np.testing.assert_allclose(smoothed, 0.9 * got + 0.1 * losses.genarm(rejected, chosen, beta=0.3), rtol=1e-6)
