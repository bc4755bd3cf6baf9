"""f-DPO and EXO against the identities of the catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pair_examples import A_L, A_W, PAIR, SAME, H, at, gradients, slopes

from alignment.losses import cdpo, dpo, exo_pair, f_dpo, f_dpo_jensen_shannon

BETA = 0.3


def likelihood(margins):
    return -np.asarray(jax.nn.log_sigmoid(jnp.asarray(margins)))


# ---------------------------------------------------------------------------------------------------------- f_dpo


def test_f_dpo_with_the_reverse_kl_is_dpo():
    np.testing.assert_allclose(f_dpo(*PAIR, beta=BETA, alpha=0.0), dpo(*PAIR, beta=BETA), rtol=1e-6)


def test_f_dpo_tends_to_dpo_with_alpha():
    distances = [np.abs(f_dpo(*PAIR, beta=BETA, alpha=a) - dpo(*PAIR, beta=BETA)).max() for a in (1e-1, 1e-2, 1e-4)]
    assert distances[0] > distances[1] > distances[2] and distances[2] < 1e-3
    # No digits are lost on the way: the score is within alpha * a^2 / 2 of the log-ratio.
    np.testing.assert_allclose(f_dpo(*PAIR, beta=BETA, alpha=1e-7), dpo(*PAIR, beta=BETA), rtol=1e-5)


def test_f_dpo_with_alpha_one_is_the_forward_kl():
    expected = likelihood(BETA * (jnp.exp(-A_L) - jnp.exp(-A_W)))
    np.testing.assert_allclose(f_dpo(*PAIR, beta=BETA, alpha=1.0), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.7])
def test_f_dpo_is_logistic_in_the_derivative_of_the_divergence(alpha):
    score_w, score_l = ((1 - jnp.exp(a) ** -alpha) / alpha for a in (A_W, A_L))
    np.testing.assert_allclose(
        f_dpo(*PAIR, beta=BETA, alpha=alpha), likelihood(BETA * (score_w - score_l)), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("loss", [*(lambda *p, a=a: f_dpo(*p, alpha=a) for a in (0.0, 0.5, 1.0)), f_dpo_jensen_shannon])
def test_every_divergence_at_the_reference_is_log_two(loss):
    np.testing.assert_allclose(loss(*SAME), np.log(2), rtol=1e-6)


def test_alpha_may_be_traced_through_its_limit():
    values = jax.vmap(lambda alpha: f_dpo(*PAIR, beta=BETA, alpha=alpha))(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(values[0], dpo(*PAIR, beta=BETA), rtol=1e-6)
    slope = jax.grad(lambda p, alpha: jnp.sum(f_dpo(p, *PAIR[1:], beta=BETA, alpha=alpha)))(PAIR[0], jnp.float32(0))
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_f_dpo_still_pulls_a_completion_back_that_has_become_hopeless(alpha):
    """Clamped, the chosen side would have no gradient there; the pull never weakens as the completion falls."""
    chosen, _ = slopes(f_dpo, jnp.array([-1.0, -20.0, -90.0, -300.0, -1e4]), alpha=alpha)
    assert np.isfinite(chosen).all()
    assert (chosen < -1e-3).all() and (np.diff(-chosen) >= 0).all()


def test_jensen_shannon_score_is_the_log_sigmoid_of_the_log_ratio():
    expected = likelihood(BETA * (jax.nn.log_sigmoid(A_W) - jax.nn.log_sigmoid(A_L)))
    np.testing.assert_allclose(f_dpo_jensen_shannon(*PAIR, beta=BETA), expected, rtol=1e-5)
    by_definition = [jnp.log(2 * jnp.exp(a) / (1 + jnp.exp(a))) for a in (A_W, A_L)]
    np.testing.assert_allclose(
        f_dpo_jensen_shannon(*PAIR, beta=BETA), likelihood(BETA * (by_definition[0] - by_definition[1])), rtol=1e-4
    )


def test_jensen_shannon_is_dpo_for_unlikely_completions_and_flat_for_likely_ones():
    np.testing.assert_allclose(
        at(f_dpo_jensen_shannon, -20.0, -22.0, beta=BETA), at(dpo, -20.0, -22.0, beta=BETA), rtol=1e-6
    )
    chosen, _ = slopes(f_dpo_jensen_shannon, 25.0, 20.0, beta=BETA)
    assert abs(chosen) < 1e-9


# ------------------------------------------------------------------------------------------------------- exo_pair


@pytest.mark.parametrize("eps", [1e-3, 0.1, 0.4])
def test_exo_pair_is_zero_exactly_at_the_logit_of_the_label(eps):
    best = np.log((1 - eps) / eps) / BETA
    hyper = {"beta": BETA, "label_smoothing": eps}
    np.testing.assert_allclose(at(exo_pair, best, **hyper), 0, atol=1e-6)
    values = at(exo_pair, best + jnp.array([-3.0, -0.5, 0.5, 3.0]), **hyper)
    assert (values > 0).all()


@pytest.mark.parametrize("eps", [0.05, 0.2])
def test_exo_pair_has_the_minimiser_of_cdpo(eps):
    best = np.log((1 - eps) / eps) / BETA
    for loss in (exo_pair, cdpo):
        below, there, above = slopes(loss, best + jnp.array([-0.5, 0.0, 0.5]), beta=BETA, label_smoothing=eps)[0]
        assert below < 0 < above
        np.testing.assert_allclose(there, 0, atol=1e-6)


def test_exo_pair_is_the_reverse_kl_of_two_responses():
    """The list form with K = 2 and r / beta_r = log p: sum of q log(q / p), q the softmax of the scaled log-ratios."""
    eps = 0.1
    log_q = jax.nn.log_softmax(BETA * jnp.stack([A_W, A_L], -1))
    log_p = jax.nn.log_softmax(jnp.log(jnp.array([1 - eps, eps])))
    expected = jnp.sum(jnp.exp(log_q) * (log_q - log_p), -1)
    np.testing.assert_allclose(exo_pair(*PAIR, beta=BETA, label_smoothing=eps), expected, rtol=1e-4, atol=1e-6)


def test_exo_pair_gradient_has_its_closed_form():
    eps, q = 0.1, jax.nn.sigmoid(BETA * H)
    (chosen,) = gradients(lambda *a: exo_pair(*a, beta=BETA, label_smoothing=eps), *PAIR, argnums=(0,))
    expected = BETA * q * (1 - q) * (BETA * H - np.log((1 - eps) / eps))
    np.testing.assert_allclose(chosen, expected, rtol=1e-3, atol=1e-6)
