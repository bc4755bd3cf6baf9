"""DPO with other margins against the identities of the catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pair_examples import A_L, A_W, EQUAL_LENGTHS, LENGTHS, PAIR, SAME, B, H, gradients, slopes

from alignment.losses import dpo, dpo_gamma, flex_dpo, length_normalized_dpo, length_regularized_dpo, links, margins

BETA = 0.3
ONE = (jnp.ones(B, jnp.int32),) * 2


def scaled(pair, chosen, rejected):
    """The pair with the log-probs of each side multiplied: every token repeated, say."""
    return tuple(x * k for x, k in zip(pair, (chosen, rejected, chosen, rejected), strict=True))


# ------------------------------------------------------------------------------------------------------ dpo_gamma


def test_dpo_gamma_one_is_dpo():
    np.testing.assert_allclose(dpo_gamma(*PAIR, beta=BETA, gamma=1.0), dpo(*PAIR, beta=BETA), rtol=1e-4)


def test_dpo_gamma_zero_needs_no_reference():
    expected = links.logistic(margins.reference_free(*PAIR[:2], beta=BETA))
    np.testing.assert_array_equal(dpo_gamma(*PAIR, beta=BETA, gamma=0.0), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.25, 1.0, 2.0])
def test_dpo_gamma_is_half_way_where_the_policy_gap_is_gamma_times_that_of_the_reference(gamma):
    """The difficulty of a pair, the gap the policy has to close, is scaled by gamma."""
    policy_chosen = PAIR[1] + gamma * (PAIR[2] - PAIR[3])
    np.testing.assert_allclose(dpo_gamma(policy_chosen, *PAIR[1:], beta=BETA, gamma=gamma), np.log(2), rtol=1e-5)


# ------------------------------------------------------------------------------------------------------- flex_dpo


def test_flex_dpo_with_equal_betas_is_dpo():
    np.testing.assert_allclose(flex_dpo(*PAIR, beta_chosen=BETA, beta_rejected=BETA), dpo(*PAIR, beta=BETA), rtol=1e-4)


def test_flex_dpo_without_the_rejected_side_is_a_likelihood_ratio_of_the_chosen_one():
    got = flex_dpo(*PAIR, beta_chosen=BETA, beta_rejected=0.0)
    np.testing.assert_allclose(got, -jax.nn.log_sigmoid(BETA * A_W), rtol=1e-5)
    (rejected,) = gradients(lambda *a: flex_dpo(*a, beta_chosen=BETA, beta_rejected=0.0), *PAIR, argnums=(1,))
    np.testing.assert_array_equal(rejected, 0.0)


def test_flex_dpo_sees_a_constant_added_to_both_sides_unless_its_betas_agree():
    c, r, rc, rr = PAIR
    for beta_rejected, same in ((BETA, True), (0.1, False)):
        hyper = {"beta_chosen": BETA, "beta_rejected": beta_rejected}
        difference = np.abs(flex_dpo(c + 4, r + 4, rc, rr, **hyper) - flex_dpo(*PAIR, **hyper))
        assert (difference < 1e-4).all() == same
        assert (difference > 1e-4).all() != same


def test_flex_dpo_gradients_have_their_closed_form_and_the_ratio_of_the_betas():
    chosen, rejected = gradients(lambda *a: flex_dpo(*a, beta_chosen=0.3, beta_rejected=0.1), *PAIR, argnums=(0, 1))
    weight = jax.nn.sigmoid(-(0.3 * A_W - 0.1 * A_L))
    np.testing.assert_allclose(chosen, -0.3 * weight, rtol=1e-4)
    np.testing.assert_allclose(rejected, 0.1 * weight, rtol=1e-4)
    np.testing.assert_allclose(-chosen / rejected, 3.0, rtol=1e-5)


# ------------------------------------------------------------------------------------------- length_normalized_dpo


def test_length_normalized_dpo_on_single_tokens_is_dpo():
    np.testing.assert_allclose(length_normalized_dpo(*PAIR, *ONE, beta=BETA), dpo(*PAIR, beta=BETA), rtol=1e-5)


@pytest.mark.parametrize("n", [2, 7])
def test_length_normalized_dpo_on_equal_lengths_is_dpo_with_beta_over_the_length(n):
    lengths = (jnp.full(B, n), jnp.full(B, n))
    np.testing.assert_allclose(length_normalized_dpo(*PAIR, *lengths, beta=BETA), dpo(*PAIR, beta=BETA / n), rtol=1e-5)


def test_length_normalized_dpo_does_not_see_tokens_repeated():
    expected = length_normalized_dpo(*PAIR, *LENGTHS)
    got = length_normalized_dpo(*scaled(PAIR, 3, 2), 3 * LENGTHS[0], 2 * LENGTHS[1])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_length_normalized_dpo_with_a_constant_reference_per_token_is_the_reference_free_form():
    reference = tuple(-2.0 * n for n in LENGTHS)
    expected = links.logistic(margins.length_normalized(*PAIR[:2], *LENGTHS, beta=2.0, target_margin=0.0))
    got = length_normalized_dpo(*PAIR[:2], *reference, *LENGTHS, beta=2.0)
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_length_normalized_dpo_survives_an_empty_completion():
    zero, none = jnp.zeros(1), jnp.zeros(1, jnp.int32)
    value, slope = jax.value_and_grad(lambda c: jnp.sum(length_normalized_dpo(c, zero, zero, zero, none, none)))(zero)
    np.testing.assert_allclose(value, np.log(2), rtol=1e-6)
    assert np.isfinite(slope).all()


def test_length_normalized_dpo_pushes_a_token_less_the_longer_its_completion():
    chosen, rejected = gradients(
        lambda c, r: length_normalized_dpo(c, r, *SAME[2:], *LENGTHS), *SAME[:2], argnums=(0, 1)
    )
    np.testing.assert_allclose(chosen, -2.5 / LENGTHS[0], rtol=1e-5)  # beta s(0) / |y|
    np.testing.assert_allclose(rejected, 2.5 / LENGTHS[1], rtol=1e-5)


# ------------------------------------------------------------------------------------------ length_regularized_dpo


@pytest.mark.parametrize("lengths,alpha", [(LENGTHS, 0.0), (EQUAL_LENGTHS, 0.5)])
def test_length_regularized_dpo_without_alpha_or_with_equal_lengths_is_dpo(lengths, alpha):
    got = length_regularized_dpo(*PAIR, *lengths, beta=BETA, alpha=alpha)
    np.testing.assert_allclose(got, dpo(*PAIR, beta=BETA), rtol=1e-5)


def test_length_regularized_dpo_is_logistic_in_a_reward_with_a_price_per_token():
    alpha = 0.05
    rewards = (BETA * A_W + alpha * LENGTHS[0], BETA * A_L + alpha * LENGTHS[1])
    got = length_regularized_dpo(*PAIR, *LENGTHS, beta=BETA, alpha=alpha)
    np.testing.assert_allclose(got, -jax.nn.log_sigmoid(rewards[0] - rewards[1]), rtol=1e-4)


def test_length_regularized_dpo_gives_a_longer_winner_less_gradient():
    def pull(chosen_length):
        lengths = (jnp.full(B, chosen_length), jnp.full(B, 10))
        return -gradients(lambda *a: length_regularized_dpo(*a, *lengths, alpha=0.1), *PAIR, argnums=(0,))[0]

    assert (pull(20) < pull(10)).all() and (pull(10) < pull(5)).all()


# ---------------------------------------------------------------------------------------------------------- length


def test_the_length_growth_that_dpo_rewards_is_gone_with_normalisation():
    """Equal quality per token, the chosen completion longer: only DPO's margin grows with that."""
    quality, lengths = 0.1, jnp.array([5, 10, 20, 40])
    short = jnp.full(4, 5)
    zero = jnp.zeros(4)
    a_w, a_l = quality * lengths, quality * short
    assert (np.diff(dpo(a_w, a_l, zero, zero)) < 0).all()
    np.testing.assert_allclose(length_normalized_dpo(a_w, a_l, zero, zero, lengths, short), np.log(2), rtol=1e-5)


def test_margins_of_one_number_agree_on_the_slope():
    """dL/da_w of each at h, for the hyperparameters at which all are DPO."""
    expected, _ = slopes(dpo, H, beta=BETA)
    for loss, hyper in ((dpo_gamma, {"beta": BETA}), (flex_dpo, {"beta_chosen": BETA, "beta_rejected": BETA})):
        np.testing.assert_allclose(slopes(loss, H, **hyper)[0], expected, rtol=1e-5)
