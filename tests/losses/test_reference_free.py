"""Losses without a reference against their identities in the catalogue."""

import inspect

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import (
    alpha_po,
    cdpo,
    cpo,
    dpo,
    orpo,
    orpo_odds_ratio,
    reductions,
    rrhf,
    sft,
    simpo,
    slic_hf,
    slic_hf_target,
    tpo,
    tpo_l,
)

B = 6
BETA = 0.3
RNG = np.random.default_rng(0)
CHOSEN, REJECTED, GOLD = (jnp.asarray(-RNG.gamma(2.0, 3.0, B), jnp.float32) for _ in range(3))
LENGTHS = tuple(jnp.asarray(RNG.integers(1, 9, B)) for _ in range(2))
ONES = (jnp.ones(B, jnp.int32),) * 2
ZERO = jnp.zeros(B)
MEANS = tuple(np.asarray(x, np.float64) / np.asarray(n) for x, n in zip((CHOSEN, REJECTED), LENGTHS, strict=True))


def gradients(loss, *args, argnums):
    return jax.grad(lambda *a: jnp.sum(loss(*a)), argnums=argnums)(*args)


def without_reference(loss, **hyper):
    return loss(CHOSEN, REJECTED, ZERO, ZERO, **hyper)


@pytest.mark.parametrize("kernel", [slic_hf, slic_hf_target, simpo, alpha_po, cpo, orpo, rrhf, tpo, tpo_l])
def test_no_reference_is_asked_for(kernel):
    assert not [name for name in inspect.signature(kernel).parameters if name.startswith("reference")]


# ------------------------------------------------------------------------------------------------------- slic_hf


@pytest.mark.parametrize("kernel", [slic_hf, lambda c, r, **h: slic_hf_target(c, r, GOLD, **h)])
def test_slic_hf_without_likelihood_is_the_hinge_of_rso_without_a_reference(kernel):
    """rso_hinge with gamma = 1: max(0, 1 - (log pi(y_w) - log pi(y_l)))."""
    expected = np.maximum(0, 1 - (np.asarray(CHOSEN) - np.asarray(REJECTED)))
    np.testing.assert_allclose(kernel(CHOSEN, REJECTED, delta=1.0, lambda_=0.0), expected, rtol=1e-6)


@pytest.mark.parametrize("delta", [0.0, 1.0])
def test_slic_hf_pulls_by_one_only_within_the_margin_and_by_lambda_always(delta):
    active = np.asarray(delta > CHOSEN - REJECTED)
    assert 0 < active.sum() < B
    chosen, rejected = gradients(lambda c, r: slic_hf(c, r, delta=delta, lambda_=0.2), CHOSEN, REJECTED, argnums=(0, 1))
    np.testing.assert_allclose(-chosen, active + 0.2, rtol=1e-6)
    np.testing.assert_allclose(rejected, active.astype(float), rtol=1e-6)


def test_slic_hf_does_not_pull_at_the_kink():
    chosen, rejected = gradients(
        lambda c, r: slic_hf(c, r, delta=1.0, lambda_=0.0), jnp.array([-1.0]), jnp.array([-2.0]), argnums=(0, 1)
    )
    assert chosen == 0 and rejected == 0


def test_slic_hf_takes_the_chosen_completion_for_its_target():
    np.testing.assert_array_equal(slic_hf(CHOSEN, REJECTED), slic_hf_target(CHOSEN, REJECTED, CHOSEN))


def test_slic_hf_target_pulls_the_target_with_lambda_whatever_the_pair():
    (target,) = gradients(lambda *a: slic_hf_target(*a, lambda_=0.2), CHOSEN, REJECTED, GOLD, argnums=(2,))
    np.testing.assert_allclose(target, np.full(B, -0.2), rtol=1e-6)


# --------------------------------------------------------------------------------------------------------- simpo


def test_simpo_on_one_token_without_margin_is_dpo_without_reference():
    got = simpo(CHOSEN, REJECTED, *ONES, beta=BETA, gamma=0.0)
    np.testing.assert_allclose(got, without_reference(dpo, beta=BETA), rtol=1e-6)


def test_simpo_gradient_has_its_closed_form():
    beta, gamma = 2.0, 0.7
    z = beta * (MEANS[0] - MEANS[1]) - gamma
    pull = beta / (1 + np.exp(z))
    chosen, rejected = gradients(
        lambda c, r: simpo(c, r, *LENGTHS, beta=beta, gamma=gamma), CHOSEN, REJECTED, argnums=(0, 1)
    )
    np.testing.assert_allclose(chosen, -pull / np.asarray(LENGTHS[0]), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(rejected, pull / np.asarray(LENGTHS[1]), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kernel", [simpo, alpha_po, orpo, orpo_odds_ratio])
def test_doubling_the_tokens_of_a_completion_changes_nothing(kernel):
    expected = kernel(CHOSEN, REJECTED, *LENGTHS)
    np.testing.assert_allclose(kernel(2 * CHOSEN, 2 * REJECTED, 2 * LENGTHS[0], 2 * LENGTHS[1]), expected, rtol=1e-5)
    np.testing.assert_allclose(kernel(CHOSEN, 2 * REJECTED, LENGTHS[0], 2 * LENGTHS[1]), expected, rtol=1e-5)


@pytest.mark.parametrize("kernel", [simpo, alpha_po, lambda c, r, n, m, **h: tpo_l(c, r, ZERO, n, m, **h)])
def test_the_margin_is_not_scaled_by_beta(kernel):
    for beta in (0.5, 2.0):
        got = kernel(CHOSEN, CHOSEN, LENGTHS[0], LENGTHS[0], beta=beta, gamma=0.7)
        np.testing.assert_allclose(got, np.full(B, np.log1p(np.exp(0.7))), rtol=1e-6)


@pytest.mark.parametrize("kernel", [simpo, alpha_po, orpo, orpo_odds_ratio, rrhf])
def test_an_empty_completion_is_survived(kernel):
    none = jnp.zeros(1, jnp.int32)
    for lengths in ((none, jnp.ones_like(none)), (none, none)):
        value, slope = jax.value_and_grad(lambda c, n=lengths: jnp.sum(kernel(c, c - 1, *n)))(jnp.zeros(1))
        assert np.isfinite(value) and np.isfinite(slope).all()


# ------------------------------------------------------------------------------------------------------ alpha_po


def test_alpha_po_at_alpha_zero_is_simpo_in_value_and_gradient_traced_or_not():
    hyper = {"beta": 2.0, "gamma": 0.3}
    value, slope = jax.value_and_grad(lambda c: jnp.sum(simpo(c, REJECTED, *LENGTHS, **hyper)))(CHOSEN)
    for alpha in (0.0, jnp.float32(0.0), 0):
        got, got_slope = jax.value_and_grad(
            lambda c, a=alpha: jnp.sum(alpha_po(c, REJECTED, *LENGTHS, alpha=a, **hyper))
        )(CHOSEN)
        np.testing.assert_allclose(got, value, rtol=1e-6)
        np.testing.assert_allclose(got_slope, slope, rtol=1e-6)


@pytest.mark.parametrize("alpha", [1e-3, 1e-5, -1e-5])
def test_alpha_po_tends_to_simpo(alpha):
    expected = simpo(CHOSEN, REJECTED, *LENGTHS, beta=2.0, gamma=0.3)
    got = alpha_po(CHOSEN, REJECTED, *LENGTHS, alpha=alpha, beta=2.0, gamma=0.3)
    np.testing.assert_allclose(got, expected, rtol=100 * abs(alpha) + 1e-4)


@pytest.mark.parametrize("alpha", [-0.5, 0.25, 1.0])
def test_alpha_po_reward_has_the_slope_beta_times_the_exponential(alpha):
    """In float32, so that nothing large may have been added and taken off again on the way."""
    lengths, beta = jnp.ones(1, jnp.int32), 2.5
    for mean in (-0.1, -1.0, -4.0):
        # Both completions move together but for the one under test; at z = 0 the link has slope -1/2.
        slope = jax.grad(
            lambda c, m=mean: jnp.sum(
                alpha_po(c[None], jnp.array([m]), lengths, lengths, alpha=alpha, beta=beta, gamma=0.0)
            )
        )(jnp.float32(mean))
        np.testing.assert_allclose(slope, -0.5 * beta * np.exp(-alpha * mean), rtol=1e-5)


def test_alpha_po_goes_on_training_where_the_exponential_would_overflow():
    lengths = jnp.ones(1, jnp.int32)
    for mean in (-1e3, -1e4):
        value, slope = jax.value_and_grad(
            lambda c: jnp.sum(alpha_po(c, jnp.array([-1.0]), lengths, lengths, alpha=1.0))
        )(jnp.array([mean]))
        assert np.isfinite(value) and np.isfinite(slope).all() and (slope < 0).all()


def test_alpha_po_is_smooth_where_its_tangent_begins():
    lengths = jnp.ones(1, jnp.int32)

    def loss(mean):  # exponent 40 at mean -40; a margin so large that the link is linear
        return jnp.sum(alpha_po(mean[None], jnp.zeros(1), lengths, lengths, alpha=1.0, beta=1.0, gamma=0.0))

    with jax.enable_x64(True):
        below, above = (jax.value_and_grad(loss)(jnp.asarray(-40.0 + x)) for x in (-1e-9, 1e-9))
        np.testing.assert_allclose(below, above, rtol=1e-7)
        np.testing.assert_allclose(below[1], -np.exp(40.0), rtol=1e-7)


# ----------------------------------------------------------------------------------------------------------- cpo


def test_cpo_without_likelihood_is_dpo_under_any_constant_reference():
    got = cpo(CHOSEN, REJECTED, beta=BETA, lambda_=0.0)
    np.testing.assert_allclose(got, without_reference(dpo, beta=BETA), rtol=1e-6)
    np.testing.assert_allclose(got, dpo(CHOSEN, REJECTED, ZERO - 7, ZERO - 7, beta=BETA), rtol=1e-4)


def test_cpo_without_likelihood_is_dpo_with_the_reference_weighted_by_zero():
    """dpo_gamma(gamma=0): -log s(beta * (log pi_w - log pi_l) - gamma * beta * (log ref_w - log ref_l))."""
    expected = np.log1p(np.exp(-BETA * (np.asarray(CHOSEN, np.float64) - np.asarray(REJECTED, np.float64))))
    np.testing.assert_allclose(cpo(CHOSEN, REJECTED, beta=BETA, lambda_=0.0), expected, rtol=1e-5)


def test_cpo_smooths_labels_as_cdpo_does():
    got = cpo(CHOSEN, REJECTED, beta=BETA, lambda_=0.0, label_smoothing=0.2)
    np.testing.assert_allclose(got, without_reference(cdpo, beta=BETA, label_smoothing=0.2), rtol=1e-6)


def test_cpo_adds_the_likelihood_of_the_whole_chosen_sequence():
    difference = cpo(CHOSEN, REJECTED, lambda_=0.7) - cpo(CHOSEN, REJECTED, lambda_=0.0)
    np.testing.assert_allclose(difference, -0.7 * CHOSEN, rtol=1e-4)


def test_a_likelihood_term_of_its_own_gives_the_token_mean_of_published_code():
    """CPO with lambda 0 plus `sft`: the NLL summed over all tokens of the batch, divided by their number."""
    mask = np.arange(8) < np.asarray(LENGTHS[0])[:, None]
    token_logps = jnp.where(mask, -jnp.asarray(RNG.gamma(1.0, size=(B, 8)), jnp.float32), 0.0)
    chosen = token_logps.sum(-1)
    pairs, count = reductions.example_mean(cpo(chosen, REJECTED, lambda_=0.0), jnp.ones(B, bool))
    nll, tokens = reductions.token_mean(sft(token_logps, jnp.asarray(mask)), jnp.asarray(mask))
    expected = np.mean(np.log1p(np.exp(-0.1 * (np.asarray(chosen) - np.asarray(REJECTED)))))
    expected += -np.asarray(token_logps).sum() / mask.sum()
    np.testing.assert_allclose(pairs / count + nll / tokens, expected, rtol=1e-5)


# ---------------------------------------------------------------------------------------------------------- orpo


def test_orpo_of_equal_mean_log_probs_is_the_nll_plus_lambda_log_two():
    got = orpo(CHOSEN, 2 * CHOSEN, LENGTHS[0], 2 * LENGTHS[0], lambda_=0.3)
    np.testing.assert_allclose(got, 0.3 * np.log(2) - MEANS[0], rtol=1e-5)


def test_orpo_is_its_parts():
    got = orpo(CHOSEN, REJECTED, *LENGTHS, lambda_=0.3)
    ratio = orpo_odds_ratio(CHOSEN, REJECTED, *LENGTHS)
    np.testing.assert_allclose(got, 0.3 * ratio - MEANS[0], rtol=1e-5)
    odds = [np.exp(m) / (1 - np.exp(m)) for m in MEANS]
    np.testing.assert_allclose(ratio, np.log1p(odds[1] / odds[0]), rtol=1e-4)


@pytest.mark.parametrize("log_prob", [-1e-5, -1e-3, -0.1, -0.7, -3.0, -30.0])
def test_orpo_log_odds_have_slope_one_over_one_minus_p(log_prob):
    """In float32; both completions at the same odds, where the link has slope -1/2."""
    one, x = jnp.ones(1, jnp.int32), jnp.array([log_prob], jnp.float32)
    slope = jax.grad(lambda c: jnp.sum(orpo_odds_ratio(c, x, one, one)))(x)
    np.testing.assert_allclose(slope, 0.5 / np.expm1(np.asarray(x, np.float64)), rtol=1e-4)


@pytest.mark.parametrize("certain", [0.0, -1e-9, -1e-7, -1e-6])
def test_orpo_still_trains_completions_that_are_certain(certain):
    one, x, y = jnp.ones(1, jnp.int32), jnp.array([certain], jnp.float32), jnp.array([-1.0])
    value, slope = jax.value_and_grad(lambda r: jnp.sum(orpo_odds_ratio(y, r, one, one)))(x)
    assert np.isfinite(value) and value > 10
    assert np.isfinite(slope).all() and (slope > 1e5).all()


# ---------------------------------------------------------------------------------------------------------- rrhf


def test_rrhf_costs_nothing_once_the_means_are_in_order():
    better, worse = jnp.maximum(*MEANS), jnp.minimum(*MEANS)
    ordered = rrhf(better * LENGTHS[0], worse * LENGTHS[1], *LENGTHS, lambda_=0.0)
    np.testing.assert_array_equal(ordered, np.zeros(B))
    wrong = rrhf(worse * LENGTHS[0], better * LENGTHS[1], *LENGTHS, lambda_=0.0)
    np.testing.assert_allclose(wrong, better - worse, rtol=1e-4)


def test_rrhf_orders_means_but_learns_the_likelihood_of_the_sum():
    chosen, rejected = gradients(lambda c, r: rrhf(c, r, *LENGTHS, lambda_=0.3), CHOSEN, REJECTED, argnums=(0, 1))
    active = MEANS[1] > MEANS[0]
    assert 0 < active.sum() < B
    np.testing.assert_allclose(chosen, -(active / np.asarray(LENGTHS[0]) + 0.3), rtol=1e-5)
    np.testing.assert_allclose(rejected, active / np.asarray(LENGTHS[1]), rtol=1e-5)


# ----------------------------------------------------------------------------------------------------------- tpo


@hypothesis.settings(deadline=None, max_examples=15)
@hypothesis.given(beta=st.floats(0.01, 2.0), alpha=st.floats(0.0, 2.0))
def test_tpo_with_the_chosen_completion_as_gold_is_cpo(beta, alpha):
    got = tpo(CHOSEN, REJECTED, CHOSEN, beta=beta, alpha=alpha)
    np.testing.assert_allclose(got, cpo(CHOSEN, REJECTED, beta=beta, lambda_=alpha), rtol=1e-6)


def test_tpo_without_likelihood_is_dpo_without_reference():
    got = tpo(CHOSEN, REJECTED, GOLD, beta=BETA, alpha=0.0)
    np.testing.assert_allclose(got, without_reference(dpo, beta=BETA), rtol=1e-6)


def test_tpo_l_without_likelihood_is_simpo():
    got = tpo_l(CHOSEN, REJECTED, GOLD, *LENGTHS, beta=2.0, gamma=0.3, alpha=0.0)
    np.testing.assert_allclose(got, simpo(CHOSEN, REJECTED, *LENGTHS, beta=2.0, gamma=0.3), rtol=1e-6)


@pytest.mark.parametrize(
    "kernel", [lambda g: tpo(CHOSEN, REJECTED, g, alpha=0.4), lambda g: tpo_l(CHOSEN, REJECTED, g, *LENGTHS, alpha=0.4)]
)
def test_tpo_pulls_the_gold_completion_with_alpha(kernel):
    (gold,) = gradients(kernel, GOLD, argnums=(0,))
    np.testing.assert_allclose(gold, np.full(B, -0.4), rtol=1e-6)
