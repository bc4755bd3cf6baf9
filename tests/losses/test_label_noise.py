"""LCPO against its identities in the catalogue: posterior, loss, reliabilities, and the method as a whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from alignment.losses import (
    cdpo,
    cpo,
    dpo,
    ipo,
    lcpo,
    lcpo_cpo,
    lcpo_eta_update,
    lcpo_ipo,
    lcpo_loss,
    lcpo_posterior,
    lcpo_preference_probability,
    lcpo_simpo,
    links,
    simpo,
)
from alignment.losses.label_noise import LcpoState

B, BETA = 8, 0.3
RNG = np.random.default_rng(0)
PAIR = tuple(jnp.asarray(-10 + 3 * RNG.normal(size=B), jnp.float32) for _ in range(4))
SWAPPED = (PAIR[1], PAIR[0], PAIR[3], PAIR[2])
H = (PAIR[0] - PAIR[2]) - (PAIR[1] - PAIR[3])
OBSERVED, OTHER = dpo(*PAIR, beta=BETA), dpo(*SWAPPED, beta=BETA)
P = jax.nn.sigmoid(BETA * H)
IDS = jnp.asarray(RNG.integers(0, 3, B))


def run(eta, ids=IDS, pair=PAIR):
    eta = jnp.asarray(eta, jnp.float32)
    return lcpo.loss(*pair, ids, LcpoState(eta), beta=BETA, num_annotators=eta.shape[0])


def logit(x):
    return np.log(x) - np.log1p(-x)


# ----------------------------------------------------------------------------------- probability of the clean order


def test_probability_on_dpo_is_the_sigmoid_of_the_margin():
    np.testing.assert_allclose(lcpo_preference_probability(OBSERVED, OTHER), P, rtol=1e-5)


def test_probability_on_ipo_is_the_sigmoid_of_two_margins_over_tau():
    tau = 2.0
    got = lcpo_preference_probability(ipo(*PAIR, tau=tau), ipo(*SWAPPED, tau=tau))
    np.testing.assert_allclose(got, jax.nn.sigmoid(2 * H / tau), rtol=1e-3, atol=1e-6)


def test_probability_on_simpo_compares_the_two_log_sigmoids():
    d, target = jnp.linspace(-3, 3, 7), 0.5
    got = lcpo_preference_probability(links.logistic(d - target), links.logistic(-d - target))
    expected = jax.nn.sigmoid(jax.nn.log_sigmoid(d - target) - jax.nn.log_sigmoid(-d - target))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_probability_on_cpo_is_the_sigmoid_of_one_plus_beta_differences():
    c, r = PAIR[:2]
    got = lcpo_preference_probability(links.logistic(BETA * (c - r)) - c, links.logistic(BETA * (r - c)) - r)
    np.testing.assert_allclose(got, jax.nn.sigmoid((1 + BETA) * (c - r)), rtol=1e-3, atol=1e-6)


def test_probabilities_of_the_two_orders_sum_to_one():
    both = lcpo_preference_probability(OBSERVED, OTHER) + lcpo_preference_probability(OTHER, OBSERVED)
    np.testing.assert_allclose(both, 1, rtol=1e-6)


# -------------------------------------------------------------------------------------------------------- posterior


def test_posterior_is_bayes_rule():
    eta = jnp.asarray(RNG.uniform(0.1, 0.9, B), jnp.float32)
    expected = P * eta / (P * eta + (1 - P) * (1 - eta))
    np.testing.assert_allclose(lcpo_posterior(OBSERVED, OTHER, eta), expected, rtol=1e-4)


def test_posterior_under_a_perfect_annotator_is_one_and_under_a_liar_zero():
    far = jnp.array([-1e4, 0.0, 1e4])
    np.testing.assert_array_equal(lcpo_posterior(jnp.zeros(3), far, jnp.ones(3)), np.ones(3))
    np.testing.assert_array_equal(lcpo_posterior(jnp.zeros(3), far, jnp.zeros(3)), np.zeros(3))


def test_posterior_under_a_coin_flipping_annotator_is_the_model_itself():
    np.testing.assert_allclose(lcpo_posterior(OBSERVED, OTHER, jnp.full(B, 0.5)), P, rtol=1e-5)


def test_posterior_of_a_model_without_opinion_is_the_reliability():
    eta = jnp.linspace(0.1, 0.9, B)
    np.testing.assert_allclose(lcpo_posterior(OBSERVED, OBSERVED, eta), eta, rtol=1e-5)


def test_posterior_works_in_logits_where_the_probability_has_saturated():
    """p rounds to exactly 1 here, and p eta / (p eta + (1 - p)(1 - eta)) would be exactly 1; the logit still knows."""
    got = lcpo_posterior(jnp.zeros(1), jnp.array([20.0]), jnp.array([1e-8]))
    assert lcpo_preference_probability(jnp.zeros(1), jnp.array([20.0])) == 1
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-(20 + logit(1e-8)))), rtol=1e-4)


# ------------------------------------------------------------------------------------------------------------- loss


def test_loss_with_constant_posterior_is_cdpo():
    got = lcpo_loss(OBSERVED, OTHER, jnp.full(B, 0.8))
    np.testing.assert_allclose(got, cdpo(*PAIR, beta=BETA, label_smoothing=0.2), rtol=1e-4)


def test_loss_under_perfect_annotators_is_dpo():
    values, aux = run([1.0, 1.0, 1.0])
    np.testing.assert_array_equal(aux["posteriors"], np.ones(B))
    np.testing.assert_allclose(values, dpo(*PAIR, beta=BETA), rtol=1e-4, atol=1e-6)


def test_loss_under_coin_flipping_annotators_teaches_nothing():
    gradient = jax.grad(lambda c: jnp.sum(run([0.5] * 3, pair=(c, *PAIR[1:]))[0]))(PAIR[0])
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_loss_gradient_has_its_closed_form():
    gradient = jax.grad(lambda c: jnp.sum(run([0.6, 0.9, 0.7], pair=(c, *PAIR[1:]))[0]))(PAIR[0])
    w = run([0.6, 0.9, 0.7])[1]["posteriors"]
    np.testing.assert_allclose(gradient, -BETA * (w - P), rtol=1e-4, atol=1e-6)


def test_loss_gradient_is_that_of_the_marginal_likelihood():
    eta = jnp.array([0.6, 0.9, 0.7])

    def marginal(c):
        p = jax.nn.sigmoid(BETA * ((c - PAIR[2]) - (PAIR[1] - PAIR[3])))
        return -jnp.sum(jnp.log(p * eta[IDS] + (1 - p) * (1 - eta[IDS])))

    got = jax.grad(lambda c: jnp.sum(run(eta, pair=(c, *PAIR[1:]))[0]))(PAIR[0])
    np.testing.assert_allclose(got, jax.grad(marginal)(PAIR[0]), rtol=1e-3, atol=1e-5)


def test_a_confidently_contradicted_label_trains_the_other_way_round():
    """p = 0.05 and eta = 0.2: w is smaller than p, so the chosen log-prob is pushed down."""
    margin = jnp.array([logit(0.05)], jnp.float32)
    zero, one = jnp.zeros(1), jnp.zeros(1, jnp.int32)

    def slope(eta):
        state = LcpoState(jnp.array([eta]))
        return jax.grad(lambda c: jnp.sum(lcpo.loss(c, zero, zero, zero, one, state, beta=1.0)[0]))(margin)

    assert slope(0.9) < 0 < slope(0.2)


# ---------------------------------------------------------------------------------------------------- reliabilities


@pytest.mark.parametrize("start", [0.05, 0.5, 0.99])
def test_reliability_converges_to_the_true_label_accuracy_when_probabilities_are_calibrated(start):
    """Pairs in exact proportion: of 1,000 with P(a beats b) = q, an annotator right 4 times in 5 says "a" so often."""
    q, accuracy = np.array([0.1, 0.3, 0.8, 0.95]), 0.8
    says_a = np.rint(1000 * (q * accuracy + (1 - q) * (1 - accuracy))).astype(int)
    signs = np.concatenate([np.repeat([1, -1], [n, 1000 - n]) for n in says_a])
    logits = signs * np.repeat(logit(q), 1000)
    logits, ids = jnp.asarray(logits, jnp.float32), jnp.zeros(4000, jnp.int32)

    def step(_, eta):
        w = lcpo_posterior(jnp.zeros(4000), logits, jnp.broadcast_to(eta, (4000,)))
        return lcpo_eta_update(eta, w, ids, alpha=1.0)

    eta = jax.jit(lambda eta: jax.lax.fori_loop(0, 300, step, eta))(jnp.array([start]))
    np.testing.assert_allclose(eta, accuracy, atol=1e-3)


def test_update_is_a_moving_average_per_annotator_and_keeps_the_absent():
    eta, w = jnp.array([0.9, 0.9, 0.9, 0.9]), jnp.linspace(0.1, 0.8, B)
    ids = jnp.array([0, 0, 0, 1, 1, 3, 3, 3])
    moved = [0.9 * 0.9 + 0.1 * np.mean(part) for part in (w[:3], w[3:5], w[5:])]
    expected = [moved[0], moved[1], 0.9, moved[2]]
    np.testing.assert_allclose(lcpo_eta_update(eta, w, ids, alpha=0.1), expected, rtol=1e-5)


def test_update_stays_a_probability():
    eta = lcpo_eta_update(jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0]), jnp.array([0, 1]), alpha=1.0)
    np.testing.assert_array_equal(eta, [1.0, 0.0])


# ----------------------------------------------------------------------------------------------------------- method


def test_state_starts_at_eta_0_for_every_annotator():
    np.testing.assert_allclose(lcpo.init(num_annotators=4, eta_0=0.7).eta, np.full(4, 0.7), rtol=1e-6)
    np.testing.assert_allclose(lcpo.init().eta, [0.9], rtol=1e-6)


def test_first_step_is_label_smoothing_at_the_assumed_error_rate():
    """At the reference p = 1/2, so w = eta_0: cdpo's gradient with label_smoothing = 1 - eta_0."""
    same = (PAIR[0], PAIR[1], PAIR[0], PAIR[1])
    ids = jnp.zeros(B, jnp.int32)
    got = jax.grad(lambda c: jnp.sum(lcpo.loss(c, *same[1:], ids, lcpo.init(), beta=BETA)[0]))(same[0])
    expected = jax.grad(lambda c: jnp.sum(cdpo(c, *same[1:], beta=BETA, label_smoothing=0.1)))(same[0])
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_loss_uses_the_reliability_of_before_the_step_and_update_that_of_after():
    state = LcpoState(jnp.array([0.6, 0.9, 0.7]))
    hyper = {"beta": BETA, "num_annotators": 3, "alpha": 0.2}
    _, aux = lcpo.loss(*PAIR, IDS, state, **hyper)
    np.testing.assert_allclose(aux["posteriors"], lcpo_posterior(OBSERVED, OTHER, state.eta[IDS]), rtol=1e-6)
    after = lcpo.update(state, aux, **hyper)
    np.testing.assert_allclose(after.eta, lcpo_eta_update(state.eta, aux["posteriors"], IDS, alpha=0.2), rtol=1e-6)
    assert (np.abs(after.eta - state.eta) > 0).any()


def test_state_of_concatenated_micro_batches_is_that_of_the_batch():
    state, hyper = LcpoState(jnp.array([0.6, 0.9, 0.7])), {"beta": BETA, "num_annotators": 3}
    _, whole = lcpo.loss(*PAIR, IDS, state, **hyper)
    parts = [
        lcpo.loss(*(x[p] for x in PAIR), IDS[p], state, **hyper)[1] for p in (slice(0, 2), slice(2, 5), slice(5, 8))
    ]
    joined = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
    expected = lcpo.update(state, whole, **hyper).eta
    np.testing.assert_allclose(lcpo.update(state, joined, **hyper).eta, expected, rtol=1e-6)


def test_state_updated_over_devices_is_that_of_the_batch():
    state, hyper = LcpoState(jnp.array([0.6, 0.9, 0.7])), {"beta": BETA, "num_annotators": 3}
    _, aux = lcpo.loss(*PAIR, IDS, state, **hyper)
    count = max(n for n in (1, 2, 4, 8) if n <= jax.device_count())
    mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])
    update = jax.shard_map(
        lambda state, aux: lcpo.update(state, aux, **hyper, axis_name="data"),
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("data")),
        out_specs=PartitionSpec(),
    )
    np.testing.assert_allclose(update(state, aux).eta, lcpo.update(state, aux, **hyper).eta, rtol=1e-6)


@pytest.mark.parametrize("stranger", [-1, 3, 1000])
def test_an_unknown_annotator_makes_its_own_pair_nan_and_leaves_the_rest(stranger):
    """jax would clamp the index or count from the back, and silently use another annotator's reliability."""
    ids = IDS.at[2].set(stranger)
    state = LcpoState(jnp.array([0.6, 0.9, 0.7]))
    values, aux = lcpo.loss(*PAIR, ids, state, beta=BETA, num_annotators=3)
    np.testing.assert_array_equal(np.isnan(values), np.arange(B) == 2)
    others = np.arange(B) != 2
    expected = lcpo_eta_update(state.eta, aux["posteriors"][others], ids[others])
    np.testing.assert_allclose(lcpo.update(state, aux, num_annotators=3).eta, expected, rtol=1e-6)


def test_a_state_of_another_size_is_rejected():
    with pytest.raises(AssertionError, match=r"state.eta must have shape \(3,\), got \(1,\)"):
        lcpo.loss(*PAIR, IDS, lcpo.init(), num_annotators=3)


# ------------------------------------------------------------------------------------------------------ other bases

LENGTHS = (jnp.arange(1, B + 1), jnp.arange(B, 0, -1))


def _ipo_orders():
    return ipo(*PAIR, tau=2.0), ipo(*SWAPPED, tau=2.0)


def _simpo_orders():
    (c, r), (m, n) = PAIR[:2], LENGTHS
    return simpo(c, r, m, n, beta=2.0, gamma=0.5), simpo(r, c, n, m, beta=2.0, gamma=0.5)


def _cpo_orders():
    c, r = PAIR[:2]
    return cpo(c, r, beta=BETA), cpo(r, c, beta=BETA)


BASES = {
    "ipo": (lcpo_ipo, PAIR, {"tau": 2.0}, _ipo_orders),
    "simpo": (lcpo_simpo, (*PAIR[:2], *LENGTHS), {"beta": 2.0, "gamma": 0.5}, _simpo_orders),
    "cpo": (lcpo_cpo, PAIR[:2], {"beta": BETA}, _cpo_orders),
}
each_base = pytest.mark.parametrize("base", BASES)


@each_base
def test_method_on_another_base_is_the_four_functions_on_the_two_orders_of_its_loss(base):
    method, arrays, hyper, orders = BASES[base]
    state = LcpoState(jnp.array([0.6, 0.9, 0.7]))
    values, aux = method.loss(*arrays, IDS, state, num_annotators=3, **hyper)
    observed, swapped = orders()
    w = lcpo_posterior(observed, swapped, state.eta[IDS])
    np.testing.assert_allclose(aux["posteriors"], w, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(values, lcpo_loss(observed, swapped, w), rtol=1e-3, atol=1e-5)
    after = method.update(state, aux, num_annotators=3, alpha=0.2, **hyper)
    np.testing.assert_allclose(after.eta, lcpo_eta_update(state.eta, w, IDS, alpha=0.2), rtol=1e-4)


@each_base
def test_coin_flipping_annotators_teach_nothing_on_any_base(base):
    method, arrays, hyper, _ = BASES[base]
    state = LcpoState(jnp.full(3, 0.5))
    loss = lambda c: jnp.sum(method.loss(c, *arrays[1:], IDS, state, num_annotators=3, **hyper)[0])  # noqa: E731
    np.testing.assert_allclose(jax.grad(loss)(arrays[0]), 0, atol=1e-5)


@each_base
def test_a_method_refuses_hyperparameters_of_another_base(base):
    method, _, hyper, _ = BASES[base]
    assert method.init(num_annotators=2, **hyper).eta.shape == (2,)
    with pytest.raises(TypeError, match="unexpected keyword"):
        method.init(temperature=1.0)
    with pytest.raises(ValueError, match="eta_0 must lie in"):
        method.init(eta_0=1.5)


def test_cpo_saturates_the_posterior_where_summed_log_probs_are_far_apart():
    state = LcpoState(jnp.array([0.9]))
    ids = jnp.zeros(2, jnp.int32)
    _, aux = lcpo_cpo.loss(jnp.array([-10.0, -60.0]), jnp.array([-60.0, -10.0]), ids, state)
    np.testing.assert_allclose(aux["posteriors"], [1.0, 0.0], atol=1e-6)
