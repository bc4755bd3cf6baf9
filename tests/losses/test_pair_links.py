"""Robust DPO, the losses of RSO and DiscoPOP against their identities in the catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pair_examples import A_L, A_W, PAIR, SAME, SWAPPED, B, H, at, gradients, slopes

from alignment.losses import cdpo, discopop, dpo, robust_dpo, rso_hinge, rso_hinge_norm, rso_sigmoid_norm

BETA = 0.3
MARGINS = jnp.linspace(-12, 12, 97)

# ----------------------------------------------------------------------------------------------------- robust_dpo


def test_robust_dpo_without_flips_is_dpo():
    np.testing.assert_array_equal(robust_dpo(*PAIR, beta=BETA, flip_rate=0.0), dpo(*PAIR, beta=BETA))


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.45])
def test_robust_dpo_takes_a_line_from_dpo(rate):
    expected = dpo(*PAIR, beta=BETA) - rate / (1 - 2 * rate) * BETA * H
    np.testing.assert_allclose(robust_dpo(*PAIR, beta=BETA, flip_rate=rate), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.45])
def test_robust_dpo_is_the_difference_of_both_orders_that_defines_it(rate):
    expected = ((1 - rate) * dpo(*PAIR, beta=BETA) - rate * dpo(*SWAPPED, beta=BETA)) / (1 - 2 * rate)
    np.testing.assert_allclose(robust_dpo(*PAIR, beta=BETA, flip_rate=rate), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.4])
def test_robust_dpo_averaged_over_flips_is_the_clean_dpo(rate):
    hyper = {"beta": BETA, "flip_rate": rate}
    average = (1 - rate) * at(robust_dpo, MARGINS, **hyper) + rate * at(robust_dpo, -MARGINS, **hyper)
    np.testing.assert_allclose(average, at(dpo, MARGINS, beta=BETA), rtol=1e-4, atol=1e-5)


def test_robust_dpo_falls_without_bound():
    rate, far = 0.2, jnp.array([1e2, 1e3, 1e4])
    slope, _ = slopes(robust_dpo, far, beta=BETA, flip_rate=rate)
    np.testing.assert_allclose(slope, -BETA * rate / (1 - 2 * rate), rtol=1e-5)
    assert (np.diff(at(robust_dpo, far, beta=BETA, flip_rate=rate)) < 0).all()


def test_robust_dpo_gradient_has_its_closed_form():
    rate = 0.2
    slope, _ = slopes(robust_dpo, MARGINS, beta=BETA, flip_rate=rate)
    expected = -BETA * (jax.nn.sigmoid(-BETA * MARGINS) + rate / (1 - 2 * rate))
    np.testing.assert_allclose(slope, expected, rtol=1e-5)


def test_robust_dpo_and_cdpo_correct_in_opposite_directions():
    rate = 0.2
    added = cdpo(*PAIR, beta=BETA, label_smoothing=rate) - dpo(*PAIR, beta=BETA)
    taken = robust_dpo(*PAIR, beta=BETA, flip_rate=rate) - dpo(*PAIR, beta=BETA)
    np.testing.assert_array_equal(np.sign(added), np.sign(H))
    np.testing.assert_array_equal(np.sign(taken), -np.sign(H))


# ------------------------------------------------------------------------------------------------------------ rso


def test_rso_sigmoid_norm_is_dpo():
    np.testing.assert_array_equal(rso_sigmoid_norm(*PAIR, gamma=0.2), dpo(*PAIR, beta=0.2))


def test_rso_hinge_norm_with_a_constant_reference_is_hinge_shifted():
    constant = jnp.full(B, -3.0)
    np.testing.assert_allclose(
        rso_hinge_norm(*PAIR[:2], constant, constant, gamma=0.2), rso_hinge(*PAIR[:2], gamma=0.2), rtol=1e-5, atol=1e-6
    )
    # A reference that prefers one side by 2 moves the policy's margin by 2.
    np.testing.assert_allclose(
        rso_hinge_norm(*PAIR[:2], constant + 2, constant, gamma=0.2),
        rso_hinge(PAIR[0] - 2, PAIR[1], gamma=0.2),
        rtol=1e-5,
        atol=1e-6,
    )


def test_rso_hinge_norm_is_zero_exactly_from_one_over_gamma_on():
    gamma = 0.25
    values = np.asarray(at(rso_hinge_norm, MARGINS, gamma=gamma))
    assert (values >= 0).all()
    np.testing.assert_array_equal(values == 0, gamma * np.asarray(MARGINS) >= 1)


def test_rso_hinge_norm_at_the_reference_is_one_with_slope_gamma():
    gamma = 0.2
    np.testing.assert_array_equal(rso_hinge_norm(*SAME, gamma=gamma), 1.0)
    chosen, rejected = gradients(lambda *a: rso_hinge_norm(*a, gamma=gamma), *SAME, argnums=(0, 1))
    np.testing.assert_allclose(chosen, -gamma, rtol=1e-6)
    np.testing.assert_allclose(rejected, gamma, rtol=1e-6)


# ------------------------------------------------------------------------------------------------------- discopop


def test_discopop_at_no_margin_is_the_mean_of_both_losses():
    np.testing.assert_allclose(at(discopop, 0.0), (np.log(2) + 1) / 2, rtol=1e-6)


def test_discopop_is_logistic_for_wrong_pairs_and_exponential_for_right_ones():
    wrong, right = jnp.linspace(-60, -2, 30), jnp.linspace(2, 60, 30)
    np.testing.assert_allclose(at(discopop, wrong, beta=1.0), jax.nn.softplus(-wrong), rtol=1e-5)
    np.testing.assert_allclose(at(discopop, right, beta=1.0), jnp.exp(-right), rtol=1e-5)


def test_discopop_is_not_convex_at_its_default_width():
    np.testing.assert_allclose(at(discopop, -0.119, beta=1.0, tau=0.05), 0.7859, atol=5e-5)
    np.testing.assert_allclose(at(discopop, 0.072, beta=1.0, tau=0.05), 0.8783, atol=5e-5)
    z = np.linspace(-0.5, 0.5, 1001)
    slope = np.asarray(slopes(discopop, z, beta=1.0, tau=0.05)[0])
    turns = z[1:][np.sign(slope[1:]) != np.sign(slope[:-1])]
    np.testing.assert_allclose(turns, [-0.119, 0.072], atol=1.5e-3)
    assert slope[0] < 0 < slope[z.searchsorted(0.0)] and slope[-1] < 0


def test_discopop_is_the_blend_that_defines_it_where_that_does_not_overflow():
    z = np.linspace(-20, 20, 81)
    for tau in (0.05, 0.5, 1.0):
        m = 1 / (1 + np.exp(-z / tau))
        expected = (1 - m) * np.log1p(np.exp(-z)) + m * np.exp(-z)
        np.testing.assert_allclose(at(discopop, z, beta=1.0, tau=tau), expected, rtol=1e-4, atol=1e-7)


def test_discopop_is_finite_where_the_plain_product_is_nan():
    z = jnp.array([-1e4, -200.0, -95.0])
    with np.errstate(all="ignore"):
        assert np.isnan(np.exp(-np.asarray(z)) * np.asarray(jax.nn.sigmoid(z / 0.05))).any()
    np.testing.assert_allclose(at(discopop, z, beta=1.0), -z, rtol=1e-6)
    np.testing.assert_allclose(slopes(discopop, z, beta=1.0)[0], -1.0, rtol=1e-6)


@pytest.mark.parametrize("loss", [robust_dpo, rso_sigmoid_norm, rso_hinge_norm, discopop])
def test_only_the_difference_of_the_log_ratios_counts(loss):
    np.testing.assert_allclose(at(loss, A_W, A_L), at(loss, A_W + 4, A_L + 4), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(at(loss, A_W, A_L), at(loss, H), rtol=1e-4, atol=1e-5)
