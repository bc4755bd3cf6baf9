"""Differential information: what preferences encode, and that DPO recovers it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import analysis, losses

CLASSES = 32


def policies(seed=0, scale=1.0, count=2, classes=CLASSES):
    logits = scale * np.random.default_rng(seed).normal(size=(count, classes))
    return [jnp.asarray(x, jnp.float32) for x in jax.nn.log_softmax(logits)]


def test_by_hand():
    p, q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.75, 0.25]))
    np.testing.assert_allclose(analysis.did_distribution(q, p), [0.75, 0.25], rtol=1e-6)
    # ref * ref / target = 0.25 / 0.75 and 0.25 / 0.25, normalised: 1/4 and 3/4
    np.testing.assert_allclose(analysis.did_rejected_distribution(p, q, beta=1.0), [0.25, 0.75], rtol=1e-6)
    np.testing.assert_allclose(analysis.pair_label_probability(q, p)[0, 1], 0.75, rtol=1e-6)
    np.testing.assert_allclose(analysis.entropy(jnp.array([0.5, 0.5])), np.log(2), rtol=1e-6)


def test_the_information_from_a_policy_to_itself_is_uniform():
    p, _ = policies()
    np.testing.assert_allclose(analysis.did_distribution(p, p), 1 / CLASSES, rtol=1e-5)


def test_there_and_back_are_reciprocal_up_to_normalisation():
    p, q = policies()
    product = analysis.did_distribution(q, p) * analysis.did_distribution(p, q)
    np.testing.assert_allclose(product / product[0], 1, rtol=1e-4)


@pytest.mark.parametrize("beta", [0.2, 0.5, 1.0, 2.0])
def test_the_rejected_sampler_encodes_the_information_with_exponent_beta(beta):
    reference, target = policies()
    rejected = jnp.log(analysis.did_rejected_distribution(reference, target, beta=beta))
    power = analysis.did_distribution(target, reference) ** beta
    np.testing.assert_allclose(analysis.did_distribution(reference, rejected), power / power.sum(), rtol=1e-3)
    information = jnp.log(analysis.did_distribution(target, reference))
    expected = jax.nn.sigmoid(beta * (information[:, None] - information[None, :]))
    np.testing.assert_allclose(analysis.pair_label_probability(reference, rejected), expected, rtol=1e-3)


def test_labels_follow_bayes_rule_on_the_two_samplers():
    w, l = policies(3)
    joint = np.exp(np.asarray(w)[:, None] + np.asarray(l)[None, :])  # chosen i, rejected j
    got = analysis.pair_label_probability(w, l)
    np.testing.assert_allclose(got, joint / (joint + joint.T), rtol=1e-4)
    np.testing.assert_allclose(got + got.T, 1, rtol=1e-5)


def optimum(loss, start, weights, steps=40):
    """Newton's method on the logits of a policy; a shift of all logits is no change, hence the ridge."""

    def total(logits):
        logps = jax.nn.log_softmax(logits)
        return jnp.sum(weights * loss(*jnp.broadcast_arrays(logps[:, None], logps[None, :])))

    def step(logits, _):
        hessian = jax.hessian(total)(logits) + 1e-5 * jnp.eye(len(logits))
        move = jnp.linalg.solve(hessian, jax.grad(total)(logits))
        return logits - move * jnp.minimum(1.0, 1.0 / jnp.abs(move).max()), None

    return jax.nn.log_softmax(jax.lax.scan(step, start, None, length=steps)[0])


def divergence(p, q):
    return float(jnp.sum(jnp.exp(p) * (p - q)))


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_population_dpo_on_preferences_that_encode_the_target_reaches_it(beta):
    reference, target = policies()
    rejected = analysis.did_rejected_distribution(reference, target, beta=beta)
    weights = jnp.exp(reference)[:, None] * rejected[None, :]
    sides = jnp.broadcast_arrays(reference[:, None], reference[None, :])
    assert divergence(target, reference) > 0.5
    reached = optimum(lambda w, l: losses.dpo(w, l, *sides, beta=beta), reference, weights)
    assert divergence(target, reached) < 2e-4
    # The same pairs without the reference, and with another beta, lead elsewhere.
    without = optimum(lambda w, l: jax.nn.softplus(-beta * (w - l)), reference, weights)
    other = optimum(lambda w, l: losses.dpo(w, l, *sides, beta=2 * beta), reference, weights)
    assert divergence(target, without) > 0.05 and divergence(target, other) > 0.05


def test_preferences_from_another_sampler_do_not_lead_to_the_target():
    reference, target = policies()
    sides = jnp.broadcast_arrays(reference[:, None], reference[None, :])
    weights = jnp.exp(target)[:, None] * jnp.exp(reference)[None, :]  # encodes the target with exponent 1, not 1/2
    reached = optimum(lambda w, l: losses.dpo(w, l, *sides, beta=0.5), reference, weights)
    assert divergence(target, reached) > 0.05
    matched = optimum(lambda w, l: losses.dpo(w, l, *sides, beta=1.0), reference, weights)
    assert divergence(target, matched) < 2e-4


def test_entropy_is_that_of_numpy_and_zero_for_certainty():
    p = np.random.default_rng(0).dirichlet(np.ones(5), size=(2, 3))
    np.testing.assert_allclose(analysis.entropy(jnp.asarray(p, jnp.float32)), -(p * np.log(p)).sum(-1), rtol=1e-5)
    assert analysis.entropy(jnp.array([1.0, 0.0, 0.0])) == 0


def test_sharpening_has_low_and_smoothing_high_differential_entropy():
    (reference,) = policies(count=1)
    sharp = reference.at[jnp.argmax(reference)].add(5.0)
    smooth = 0.5 * reference
    low, high = (analysis.entropy(analysis.did_distribution(x, reference)) for x in (sharp, smooth))
    assert low < 1.5 < 2.5 < high <= np.log(CLASSES)


def test_the_estimate_over_the_whole_space_is_exact():
    policy, reference = policies()
    exact = analysis.entropy(analysis.did_distribution(policy, reference))
    uniform = jnp.full(CLASSES, -np.log(CLASSES))
    np.testing.assert_allclose(analysis.did_entropy_estimate(policy, reference, uniform), exact, rtol=1e-5)


@pytest.mark.parametrize("source", ["policy", "reference"])
def test_the_estimate_from_samples_comes_close(source):
    policy, reference = policies(1, scale=0.7)
    sampling = {"policy": policy, "reference": reference}[source]
    drawn = jax.random.categorical(jax.random.key(0), sampling, shape=(20000,))
    got = analysis.did_entropy_estimate(policy[drawn], reference[drawn], sampling[drawn])
    np.testing.assert_allclose(got, analysis.entropy(analysis.did_distribution(policy, reference)), atol=0.05)
