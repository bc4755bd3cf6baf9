"""Losses that see both log-ratios against the identities of the catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pair_examples import A_L, A_W, PAIR, SAME, H, at, gradients, slopes

from alignment.losses import apo_down, apo_zero, bco_pair, cal_dpo, dpo, dpop, nca_pair, sft_dpo

BETA = 0.3
GRID = tuple(g.ravel() for g in jnp.meshgrid(jnp.linspace(-9, 9, 19), jnp.linspace(-9, 9, 19)))

# ----------------------------------------------------------------------------------------------------------- dpop


def test_dpop_without_penalty_is_dpo():
    np.testing.assert_allclose(dpop(*PAIR, beta=BETA, lambda_=0.0), dpo(*PAIR, beta=BETA), rtol=1e-6)


def test_dpop_above_the_reference_is_dpo():
    a_w = jnp.abs(A_W)
    np.testing.assert_array_equal(at(dpop, a_w, A_L, beta=BETA), at(dpo, a_w, A_L, beta=BETA))


def test_dpop_pulls_the_chosen_side_one_plus_penalty_times_as_hard_below_the_reference():
    penalty = 3.0
    a_w = jnp.array([-2.0, -0.5, 0.5, 2.0])
    chosen, rejected = slopes(dpop, a_w, 0.3, beta=BETA, lambda_=penalty)
    z = BETA * (a_w - 0.3 - penalty * jnp.maximum(0, -a_w))
    push = BETA * jax.nn.sigmoid(-z)
    np.testing.assert_allclose(chosen, -push * jnp.where(a_w < 0, 1 + penalty, 1), rtol=1e-5)
    np.testing.assert_allclose(rejected, push, rtol=1e-5)


# -------------------------------------------------------------------------------------------------------- sft_dpo


def test_sft_dpo_without_likelihood_is_dpo():
    np.testing.assert_array_equal(sft_dpo(*PAIR, beta=BETA, lambda_=0.0), dpo(*PAIR, beta=BETA))


def test_sft_dpo_adds_the_weighted_sum_over_the_chosen_completion():
    expected = dpo(*PAIR, beta=BETA) - 0.2 * PAIR[0]
    np.testing.assert_allclose(sft_dpo(*PAIR, beta=BETA, lambda_=0.2), expected, rtol=1e-6)


def test_sft_dpo_pulls_the_chosen_side_harder_by_exactly_the_weight():
    chosen, rejected = gradients(lambda *a: sft_dpo(*a, beta=BETA, lambda_=0.2), *PAIR, argnums=(0, 1))
    np.testing.assert_allclose(-chosen - rejected, 0.2, rtol=1e-5)


# -------------------------------------------------------------------------------------------------------- cal_dpo


def test_cal_dpo_without_calibration_is_dpo_with_beta_one():
    np.testing.assert_allclose(cal_dpo(*PAIR, lambda_=0.0), dpo(*PAIR, beta=1.0), rtol=1e-6)


def test_cal_dpo_calibration_is_the_hard_form_of_sppo():
    """SPPO with win rates 1 and 0 regresses each log-ratio onto plus and minus 1 / (2 eta), here with eta = beta."""
    beta, weight = 0.25, 0.7
    sppo_hard = (A_W - 0.5 / beta) ** 2 + (A_L + 0.5 / beta) ** 2
    got = cal_dpo(*PAIR, beta=beta, lambda_=weight) - cal_dpo(*PAIR, beta=beta, lambda_=0.0)
    np.testing.assert_allclose(got, weight * sppo_hard, rtol=1e-4)


def test_cal_dpo_is_linear_in_the_calibration():
    values = [cal_dpo(*PAIR, beta=0.25, lambda_=c) for c in (0.5, 1.0)]
    np.testing.assert_allclose(values[1] - values[0], values[0] - cal_dpo(*PAIR, lambda_=0.0), rtol=1e-4)


def test_cal_dpo_has_no_beta_inside_the_sigmoid():
    np.testing.assert_array_equal(cal_dpo(*PAIR, beta=0.1, lambda_=0.0), cal_dpo(*PAIR, beta=0.9, lambda_=0.0))


def test_cal_dpo_keeps_the_chosen_log_ratio_positive_where_dpo_lets_it_fall():
    """Two completions with a parameter in common, which moves the rejected one four times as much."""

    def train(loss, steps=400):
        def total(parameters):
            shared, apart = parameters
            return at(loss, shared + apart, 4 * shared - apart)

        def step(_, p):
            return p - 0.02 * jax.grad(total)(p)

        shared, apart = jax.lax.fori_loop(0, steps, step, jnp.zeros(2))
        return shared + apart

    assert train(lambda *a: dpo(*a, beta=1.0)) < 0 < train(lambda *a: cal_dpo(*a, beta=0.5))


# ------------------------------------------------------------------------------------------------------------ apo


@pytest.mark.parametrize("loss", [apo_zero, apo_down])
def test_apo_at_the_reference_is_one(loss):
    np.testing.assert_allclose(loss(*SAME, beta=BETA), 1.0, rtol=1e-6)


@pytest.mark.parametrize("loss", [apo_zero, apo_down])
def test_apo_lies_between_zero_and_two(loss):
    values = at(loss, *GRID, beta=BETA)
    assert (values > 0).all() and (values < 2).all()


def test_apo_zero_is_kto_on_the_two_sides_around_zero():
    """KTO's value function of each completion, with lambda 1 and z0 = 0."""
    desirable, undesirable = 1 - jax.nn.sigmoid(BETA * A_W), 1 - jax.nn.sigmoid(-BETA * A_L)
    np.testing.assert_allclose(apo_zero(*PAIR, beta=BETA), desirable + undesirable, rtol=1e-5)


def test_apo_zero_gradients_have_their_closed_form():
    chosen, rejected = slopes(apo_zero, *GRID, beta=BETA)
    s_w, s_l = jax.nn.sigmoid(BETA * GRID[0]), jax.nn.sigmoid(BETA * GRID[1])
    np.testing.assert_allclose(chosen, -BETA * s_w * (1 - s_w), rtol=1e-4)
    np.testing.assert_allclose(rejected, BETA * s_l * (1 - s_l), rtol=1e-4)


def test_apo_down_second_term_is_one_minus_the_likelihood_of_dpo():
    first = jax.nn.sigmoid(BETA * A_W)
    expected = first + 1 - jnp.exp(-dpo(*PAIR, beta=BETA))
    np.testing.assert_allclose(apo_down(*PAIR, beta=BETA), expected, rtol=1e-5)


def test_apo_down_lowers_both_sides_and_the_rejected_one_more():
    chosen, rejected = slopes(apo_down, 0.0, -1.0, beta=BETA)
    assert chosen > 0 and rejected > chosen


# ------------------------------------------------------------------------------------------------------- nca, bco


def test_nca_pair_at_the_reference_is_twice_log_two():
    np.testing.assert_allclose(nca_pair(*SAME), 2 * np.log(2), rtol=1e-6)


def test_nca_pair_chosen_side_is_best_at_log_two():
    """The optimum m = log(K p) of the population: K = 2, p = 1 for the chosen side."""
    slope, _ = slopes(nca_pair, np.log(2) / BETA + np.array([-0.1, 0.0, 0.1]), beta=BETA)
    np.testing.assert_allclose(slope[1], 0, atol=1e-6)
    assert slope[0] < 0 < slope[2]


def test_nca_pair_rejected_side_falls_without_end():
    _, slope = slopes(nca_pair, 0.0, jnp.linspace(-20, 20, 41), beta=BETA)
    assert (slope > 0).all()


@pytest.mark.parametrize("loss", [nca_pair, bco_pair, apo_zero])
def test_a_constant_added_to_both_log_ratios_is_seen(loss):
    difference = at(loss, A_W + 1, A_L + 1, beta=BETA) - at(loss, A_W, A_L, beta=BETA)
    assert (np.abs(difference) > 1e-4).all()


def test_bco_pair_is_the_logistic_loss_of_both_labels():
    expected = -jax.nn.log_sigmoid(BETA * A_W) - jax.nn.log_sigmoid(-BETA * A_L)
    np.testing.assert_allclose(bco_pair(*PAIR, beta=BETA), expected, rtol=1e-5)


@pytest.mark.parametrize("delta", [-3.0, 0.0, 1.5])
def test_bco_pair_bounds_dpo_from_above_whatever_the_shift(delta):
    shift = delta / BETA
    assert (at(bco_pair, GRID[0] - shift, GRID[1] - shift, beta=BETA) >= at(dpo, *GRID, beta=BETA) - 1e-6).all()


def test_bco_pair_shifted_to_the_middle_is_twice_the_logistic_loss_of_half_the_margin():
    middle = (A_W + A_L) / 2
    got = at(bco_pair, A_W - middle, A_L - middle, beta=BETA)
    np.testing.assert_allclose(got, 2 * jax.nn.softplus(-BETA * H / 2), rtol=1e-4)
