"""DPO and its neighbours against their identities in the catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import (
    cdpo,
    dpo,
    focal_po,
    implicit_reward,
    ipo,
    ipo_length_normalized,
    lcpo_loss,
    lipo_lambda,
    tdpo1,
    tdpo2,
)

B, T = 6, 4
BETA = 0.3
RNG = np.random.default_rng(0)
PAIR = tuple(jnp.asarray(-10 + 3 * RNG.normal(size=B), jnp.float32) for _ in range(4))
SAME = (PAIR[0], PAIR[1], PAIR[0], PAIR[1])
SWAPPED = (PAIR[1], PAIR[0], PAIR[3], PAIR[2])
H = (PAIR[0] - PAIR[2]) - (PAIR[1] - PAIR[3])
KLS = tuple(jnp.asarray(RNG.gamma(1.0, size=(B, T)), jnp.float32) for _ in range(2))
MASKS = tuple(jnp.asarray(RNG.random((B, T)) < 0.7).at[:, 0].set(True) for _ in range(2))

# Every loss that is a function of the margin h alone.
OF_MARGIN = {
    "dpo": lambda *a: dpo(*a, beta=BETA),
    "cdpo": lambda *a: cdpo(*a, beta=BETA, label_smoothing=0.2),
    "ipo": lambda *a: ipo(*a, tau=0.2),
    "focal_po": lambda *a: focal_po(*a, beta=BETA, gamma=0.3),
    "tdpo1": lambda *a: tdpo1(*a, *KLS, *MASKS, beta=BETA),
    "tdpo2": lambda *a: tdpo2(*a, *KLS, *MASKS, beta=BETA),
}
each = pytest.mark.parametrize("name", OF_MARGIN)


def slope(kernel, h, **hyper):
    """dL/dh at each margin: the whole margin sits in the chosen log-prob."""
    zero = jnp.zeros(())
    h = jnp.atleast_1d(jnp.asarray(h, jnp.float32))
    return jax.vmap(jax.grad(lambda m: kernel(m, zero, zero, zero, **hyper)))(h)


def at(kernel, h, **hyper):
    h = jnp.atleast_1d(jnp.asarray(h, jnp.float32))
    return kernel(h, *(jnp.zeros_like(h),) * 3, **hyper)


def gradients(loss, *args, argnums):
    return jax.grad(lambda *a: jnp.sum(loss(*a)), argnums=argnums)(*args)


# ------------------------------------------------------------------------------------------------ all pair losses


@each
def test_a_constant_added_to_both_policy_or_both_reference_log_probs_changes_nothing(name):
    loss = OF_MARGIN[name]
    c, r, rc, rr = PAIR
    expected = loss(*PAIR)
    np.testing.assert_allclose(loss(c + 4, r + 4, rc, rr), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(loss(c, r, rc - 4, rr - 4), expected, rtol=1e-4, atol=1e-5)


@each
def test_gradients_of_the_two_sides_cancel(name):
    chosen, rejected = gradients(OF_MARGIN[name], *PAIR, argnums=(0, 1))
    assert np.abs(chosen).min() > 0
    np.testing.assert_allclose(chosen, -rejected, rtol=1e-6)


# ------------------------------------------------------------------------------------------------------------ dpo


def test_dpo_at_the_reference_is_log_two_with_gradient_half_beta():
    np.testing.assert_allclose(dpo(*SAME, beta=BETA), np.log(2), rtol=1e-6)
    chosen, rejected = gradients(lambda *a: dpo(*a, beta=BETA), *SAME, argnums=(0, 1))
    np.testing.assert_allclose(chosen, -BETA / 2, rtol=1e-6)
    np.testing.assert_allclose(rejected, BETA / 2, rtol=1e-6)


def test_dpo_likelihoods_of_the_two_orders_sum_to_one():
    np.testing.assert_allclose(jnp.exp(-dpo(*PAIR)) + jnp.exp(-dpo(*SWAPPED)), 1, rtol=1e-6)


def test_dpo_of_the_two_orders_differs_by_the_margin():
    np.testing.assert_allclose(dpo(*PAIR, beta=BETA), dpo(*SWAPPED, beta=BETA) - BETA * H, rtol=1e-4, atol=1e-5)


def test_dpo_gradient_has_its_closed_form():
    (chosen,) = gradients(lambda *a: dpo(*a, beta=BETA), *PAIR, argnums=(0,))
    np.testing.assert_allclose(chosen, -BETA * jax.nn.sigmoid(-BETA * H), rtol=1e-5)


@pytest.mark.parametrize("p", [0.6, 0.75, 0.9])
def test_dpo_under_soft_labels_is_best_at_the_logit_of_the_win_rate(p):
    best = np.log(p / (1 - p)) / BETA

    def expected_slope(h):
        return p * slope(dpo, h, beta=BETA) - (1 - p) * slope(dpo, -h, beta=BETA)

    np.testing.assert_allclose(expected_slope(best), 0, atol=1e-6)
    assert expected_slope(best - 1) < 0 < expected_slope(best + 1)


def test_dpo_on_all_pairs_of_a_tabular_policy_finds_the_tilted_reference():
    """Weighted by the Bradley-Terry probabilities of a reward R, it ends at ref * exp(R / beta) / Z."""
    reward, beta = jnp.array([0.0, 1.0, -0.5, 0.3]), 0.5
    reference = jax.nn.log_softmax(jnp.array([0.5, -0.2, 0.1, 0.0]))
    i, j = np.array([(i, j) for i in range(4) for j in range(4) if i != j]).T
    weights = jax.nn.sigmoid(reward[i] - reward[j])

    def objective(logits):
        policy = jax.nn.log_softmax(logits)
        return jnp.sum(weights * dpo(policy[i], policy[j], reference[i], reference[j], beta=beta))

    logits = jax.jit(lambda x: jax.lax.fori_loop(0, 2000, lambda _, x: x - 0.5 * jax.grad(objective)(x), x))(reference)
    np.testing.assert_allclose(jax.nn.softmax(logits), jax.nn.softmax(reference + reward / beta), atol=1e-4)


def test_dpo_is_the_limit_of_all_its_relatives():
    expected = dpo(*PAIR, beta=BETA)
    relatives = {
        "cdpo": cdpo(*PAIR, beta=BETA, label_smoothing=0.0),
        "focal_po": focal_po(*PAIR, beta=BETA, gamma=0.0),
        "tdpo2": tdpo2(*PAIR, *KLS, *MASKS, beta=BETA, alpha=0.0),
        "lcpo_loss": lcpo_loss(dpo(*PAIR, beta=BETA), dpo(*SWAPPED, beta=BETA), jnp.ones(B)),
        "lipo_lambda": lipo_lambda(
            jnp.stack(PAIR[:2], -1),
            jnp.stack(PAIR[2:], -1),
            jnp.tile(jnp.array([1.0, 0.0]), (B, 1)),
            jnp.ones((B, 2, 1), bool),
            beta=BETA,
        )
        / (1 / np.log(2) - 1 / np.log(3)),
    }
    for name, values in relatives.items():
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6, err_msg=name)


def test_implicit_rewards_differ_by_beta_times_the_margin():
    chosen, rejected = (implicit_reward(PAIR[k], PAIR[k + 2], beta=BETA) for k in (0, 1))
    np.testing.assert_allclose(chosen - rejected, BETA * H, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------ ipo


@pytest.mark.parametrize("tau", [0.01, 0.1, 1.0])
def test_ipo_is_zero_exactly_at_its_target_and_turns_round_there(tau):
    target = 1 / (2 * tau)
    np.testing.assert_allclose(at(ipo, target, tau=tau), 0, atol=1e-9)
    assert (at(ipo, [target - 0.1, target + 0.1], tau=tau) > 0).all()
    assert slope(ipo, target - 0.1, tau=tau) < 0 < slope(ipo, target + 0.1, tau=tau)


def test_ipo_gradient_has_its_closed_form():
    h = jnp.linspace(-5, 5, 11)
    np.testing.assert_allclose(slope(ipo, h, tau=0.2), 2 * (h - 2.5), rtol=1e-6, atol=1e-6)


def test_ipo_at_the_reference_is_a_quarter_over_tau_squared():
    np.testing.assert_allclose(ipo(*SAME, tau=0.2), 1 / (4 * 0.2**2), rtol=1e-6)


def test_ipo_variants_agree_on_completions_of_one_token():
    one = jnp.ones(B, jnp.int32)
    np.testing.assert_array_equal(ipo_length_normalized(*PAIR, one, one), ipo(*PAIR))


def test_ipo_length_normalized_is_ipo_of_the_mean_log_ratios():
    chosen_lengths, rejected_lengths = jnp.arange(1, B + 1), jnp.arange(B, 0, -1)
    c, r, rc, rr = PAIR
    expected = ipo(c / chosen_lengths, r / rejected_lengths, rc / chosen_lengths, rr / rejected_lengths)
    got = ipo_length_normalized(*PAIR, chosen_lengths, rejected_lengths)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_ipo_length_normalized_survives_an_empty_completion():
    zero = jnp.zeros(1)
    none = jnp.zeros(1, jnp.int32)
    value, slopes = jax.value_and_grad(lambda c: jnp.sum(ipo_length_normalized(c, zero, zero, zero, none, none)))(zero)
    assert np.isfinite(value) and np.isfinite(slopes).all()


@pytest.mark.parametrize("p", [0.5, 0.7, 1.0])
def test_ipo_over_two_actions_settles_at_a_margin_linear_in_the_win_rate(p):
    tau = 0.2
    best = (p - 0.5) / tau
    assert best == pytest.approx((2 * p - 1) / (2 * tau))
    expected = p * slope(ipo, best, tau=tau) - (1 - p) * slope(ipo, -best, tau=tau)
    np.testing.assert_allclose(expected, 0, atol=1e-5)


@pytest.mark.parametrize("reference_gap,ranked_right", [(-2.6, False), (-2.4, True), (1.0, True)])
def test_ipo_at_zero_loss_ranks_wrongly_only_if_the_reference_is_off_by_more_than_the_target(
    reference_gap, ranked_right
):
    tau = 0.2  # target 2.5
    zero, gap = jnp.zeros(1), jnp.array([reference_gap])
    policy_gap = gap + 2.5
    np.testing.assert_allclose(ipo(policy_gap, zero, gap, zero, tau=tau), 0, atol=1e-9)
    assert bool(policy_gap > 0) is ranked_right


# ----------------------------------------------------------------------------------------------------------- cdpo


@pytest.mark.parametrize("eps", [0.05, 0.2, 0.4])
def test_cdpo_adds_a_line_to_dpo(eps):
    np.testing.assert_allclose(
        cdpo(*PAIR, beta=BETA, label_smoothing=eps), dpo(*PAIR, beta=BETA) + eps * BETA * H, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("eps", [0.05, 0.2, 0.4])
def test_cdpo_has_its_one_minimum_at_the_logit_of_the_label_with_the_entropy_of_the_label_as_value(eps):
    best = np.log((1 - eps) / eps) / BETA
    hyper = {"beta": BETA, "label_smoothing": eps}
    np.testing.assert_allclose(slope(cdpo, best, **hyper), 0, atol=1e-6)
    np.testing.assert_allclose(at(cdpo, best, **hyper), -eps * np.log(eps) - (1 - eps) * np.log(1 - eps), rtol=1e-5)
    slopes = slope(cdpo, jnp.linspace(-40, 40, 81), **hyper)
    assert (np.diff(slopes) >= 0).all() and slopes[0] < 0 < slopes[-1]


def test_cdpo_with_a_coin_flip_for_a_label_is_best_at_no_margin():
    half = jnp.float32(0.5)  # an array: as a static value 1/2 is out of range
    np.testing.assert_allclose(slope(cdpo, 0.0, label_smoothing=half), 0, atol=1e-7)


def test_cdpo_gradient_has_its_closed_form():
    h, eps = jnp.linspace(-5, 5, 11), 0.2
    expected = BETA * (jax.nn.sigmoid(BETA * h) - (1 - eps))
    np.testing.assert_allclose(slope(cdpo, h, beta=BETA, label_smoothing=eps), expected, rtol=1e-5, atol=1e-6)


def test_cdpo_is_the_forward_kl_to_the_soft_label_plus_its_entropy():
    eps, p = 0.2, np.asarray(jax.nn.sigmoid(BETA * H), np.float64)
    kl = (1 - eps) * np.log((1 - eps) / p) + eps * np.log(eps / (1 - p))
    entropy = -eps * np.log(eps) - (1 - eps) * np.log(1 - eps)
    np.testing.assert_allclose(cdpo(*PAIR, beta=BETA, label_smoothing=eps), kl + entropy, rtol=1e-4)


# ------------------------------------------------------------------------------------------------------- focal_po


@pytest.mark.parametrize("gamma", [0.05, 0.5, 2.0])
def test_focal_po_at_no_margin(gamma):
    np.testing.assert_allclose(at(focal_po, 0.0, gamma=gamma), 2**-gamma * np.log(2), rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.05, 0.2, 0.5, 1.0])
def test_focal_po_weight_relative_to_dpo(gamma):
    """p^gamma (1 + gamma log p): at most 1, tending to 1 as p does, rising in p above exp(-2 / gamma)."""
    h = jnp.linspace(-8, 8, 161)
    p = np.asarray(jax.nn.sigmoid(h), np.float64)
    weight = slope(focal_po, h, beta=1.0, gamma=gamma) / slope(dpo, h, beta=1.0)
    np.testing.assert_allclose(weight, p**gamma * (1 + gamma * np.log(p)), rtol=1e-4, atol=1e-6)
    assert weight.max() <= 1 + 1e-5 and weight[-1] > 0.99
    assert (np.diff(np.asarray(weight)[p > np.exp(-2 / gamma)]) > -1e-6).all()


@pytest.mark.parametrize("gamma,margin", [(0.05, -20.0), (0.2, -5.0), (1.0, -0.54), (2.0, 0.43)])
def test_focal_po_turns_round_where_log_p_is_minus_one_over_gamma(gamma, margin):
    p = np.exp(-1 / gamma)
    exact = np.log(p) - np.log1p(-p)
    assert exact == pytest.approx(margin, abs=0.01)
    below, above = slope(focal_po, [exact - 0.05, exact + 0.05], beta=1.0, gamma=gamma)
    assert above < 0 < below


@pytest.mark.parametrize("gamma,peak", [(0.05, -2.2), (0.2, -0.8), (0.5, 0.2), (1.0, 0.9)])
def test_focal_po_weight_peaks_where_the_paper_draws_it_and_that_of_dpo_never_falls(gamma, peak):
    h = jnp.linspace(-10, 10, 2001)
    assert h[np.argmax(-slope(focal_po, h, beta=1.0, gamma=gamma))] == pytest.approx(peak, abs=0.06)
    assert (np.diff(-slope(dpo, h, beta=1.0)) <= 1e-7).all()  # larger the worse the pair is ranked
