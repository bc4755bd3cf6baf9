"""Explicit targets on a few outcomes, where expectations are sums: moments, normalisers, gradients of divergences."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import metrics
from alignment import policy_gradients as pg
from alignment.policy_gradients.divergence_gradients import BaselineState
from alignment.policy_gradients.target_distributions import IMPOSSIBLE, MomentState

K = 6
# name: f of D_f = sum over outcomes of p f(pi / p)
DIVERGENCES = {
    "forward_kl": lambda t: -jnp.log(t),
    "reverse_kl": lambda t: t * jnp.log(t),
    "total_variation": lambda t: jnp.abs(1 - t) / 2,
    "jensen_shannon": lambda t: t * jnp.log(2 * t / (t + 1)) + jnp.log(2 / (t + 1)),
    "chi_squared": lambda t: 1 / t - 2 + t,
    "reverse_chi_squared": lambda t: (t - 1) ** 2,
}
each_divergence = pytest.mark.parametrize("name", DIVERGENCES)
ONE = jnp.ones(K, bool)


def distributions(seed, count=3):
    rng = np.random.default_rng(seed)
    return [jax.nn.log_softmax(jnp.asarray(rng.normal(size=K), jnp.float32)) for _ in range(count)]


def f_dpg(name, policy, behaviour, target, log_z, mean=0.0):
    state = BaselineState(jnp.asarray(mean), jnp.ones(()))
    return getattr(pg, f"f_dpg_{name}").loss(policy, behaviour, target, jnp.full(K, log_z), ONE, state)


def expected_gradient(name, logits, behaviour, target, log_z, mean=0.0):
    """Of the loss, each outcome weighed by its probability under what samples."""

    def loss(z):
        values, _ = f_dpg(name, jax.nn.log_softmax(z), behaviour, target, log_z, mean)
        return (jnp.exp(behaviour) * values).sum()

    return jax.grad(loss)(logits)


@each_divergence
@pytest.mark.parametrize("mean", [0.0, 0.7])
def test_the_expected_gradient_is_that_of_the_divergence_whatever_samples_and_whatever_the_baseline(name, mean):
    policy, behaviour, target = distributions(0)
    log_z = 0.8
    got = expected_gradient(name, policy, behaviour, target + log_z, log_z, mean)
    p = jnp.exp(target)
    expected = jax.grad(lambda z: (p * DIVERGENCES[name](jax.nn.softmax(z) / p)).sum())(policy)
    np.testing.assert_allclose(got, expected, atol=2e-6)


@each_divergence
def test_the_pseudo_reward_is_minus_the_slope_of_f_and_equal_for_all_where_the_target_is_reached(name):
    policy, _, target = distributions(1)
    _, kept = f_dpg(name, policy, policy, target, 0.0)
    t = jnp.exp(policy - target)
    slope = jax.vmap(jax.grad(DIVERGENCES[name]))(t)
    np.testing.assert_allclose(kept["pseudo_rewards"], -slope, rtol=1e-4, atol=1e-5)
    assert DIVERGENCES[name](jnp.ones(())) == 0
    np.testing.assert_allclose(expected_gradient(name, target, target, target, 0.0), 0.0, atol=1e-6)


def test_the_forward_kl_without_baseline_is_dpg_to_the_digit():
    policy, behaviour, target = distributions(2)
    values, _ = f_dpg("forward_kl", policy, behaviour, target, 0.3)
    np.testing.assert_allclose(values, pg.dpg(policy, behaviour, target, jnp.full(K, 0.3)), rtol=1e-6)


def test_the_reverse_kl_towards_rlhfs_target_is_rlhf():
    policy, base, _ = distributions(3)
    rewards, beta = jnp.asarray(np.random.default_rng(0).normal(size=K), jnp.float32), 0.4
    target = pg.rlhf_target(base, rewards, beta=beta)
    got = expected_gradient("reverse_kl", policy, policy, target, float(jax.nn.logsumexp(target)))

    def objective(z):
        p = jax.nn.softmax(z)
        return (p * (rewards - beta * (jax.nn.log_softmax(z) - base))).sum()

    np.testing.assert_allclose(got, -jax.grad(objective)(policy) / beta, atol=2e-6)


def test_dpg_is_maximum_likelihood_on_samples_of_the_target_and_its_mean_is_the_cross_entropy():
    policy, _, target = distributions(4)
    np.testing.assert_allclose(pg.dpg(policy, target, target, jnp.zeros(K)), -policy, rtol=1e-6)
    mean = (jnp.exp(target) * pg.dpg(target, target, target, jnp.zeros(K))).sum()
    np.testing.assert_allclose(mean, -(jnp.exp(target) * target).sum(), rtol=1e-6)


@each_divergence
def test_what_the_target_rules_out_has_finite_values_and_no_weight_in_dpg(name):
    policy, behaviour, target = distributions(5)
    target = jnp.where(jnp.arange(K) < 2, IMPOSSIBLE, target)
    values, kept = f_dpg(name, policy, behaviour, target, -0.5)
    assert np.isfinite(values).all() and np.isfinite(kept["pseudo_rewards"]).all()
    lowest = np.asarray(kept["pseudo_rewards"]).min()
    assert (np.asarray(kept["pseudo_rewards"])[:2] == lowest).all()
    np.testing.assert_array_equal(pg.dpg(policy, behaviour, target, jnp.zeros(K))[:2], 0.0)


def test_the_baseline_is_the_mean_of_valid_pseudo_rewards_and_forgets_beyond_its_window():
    update = pg.f_dpg_jensen_shannon.update
    rows = {"pseudo_rewards": jnp.asarray([1.0, 3.0, 99.0]), "valid": jnp.asarray([True, True, False])}
    first = update(pg.f_dpg_jensen_shannon.init(window=4), rows, window=4)
    assert (float(first.mean), float(first.count)) == (2.0, 2.0)
    second = update(first, rows | {"pseudo_rewards": jnp.asarray([4.0, 4.0, 99.0])}, window=4)
    assert (float(second.mean), float(second.count)) == (3.0, 4.0)
    third = update(second, rows | {"pseudo_rewards": jnp.asarray([5.0, 5.0, 99.0])}, window=4)
    assert (float(third.mean), float(third.count)) == (4.0, 4.0)  # half of it is new
    nothing = update(third, rows | {"valid": jnp.zeros(3, bool)}, window=4)
    np.testing.assert_array_equal(jnp.stack(nothing), jnp.stack(third))


def test_each_divergence_says_its_own_in_its_docstring():
    texts = [inspect.getdoc(getattr(pg, f"f_dpg_{name}").loss) for name in DIVERGENCES]
    assert len(set(texts)) == len(texts) and not any("{" in text for text in texts)


# ------------------------------------------------------------------------------------------------------------ moments

FEATURES = jnp.asarray(np.random.default_rng(7).random((K, 2)), jnp.float32)


def fitted(base, features, moments, steps=3000, learning_rate=1.0):
    """The dual descended with one sample of each outcome from a uniform proposal: its expectations are exact."""
    proposal = jnp.full(K, -math.log(K))

    def step(coefficients, _):
        return pg.gdc_moment_update(
            coefficients, base, proposal, features, ONE, moments=moments, learning_rate=learning_rate
        ), None

    return jax.lax.scan(step, jnp.zeros(len(moments)), None, length=steps)[0]


def tilted(base, features, coefficients):
    return jax.nn.log_softmax(base + features @ coefficients)


def kl(p, q):
    return float((jnp.exp(p) * (p - q)).sum())


def test_the_target_has_the_moments_and_is_nearest_to_the_base_among_all_that_have():
    base, _, _ = distributions(8)
    reachable = jnp.exp(jax.nn.log_softmax(jnp.arange(K) * 0.3))
    moments = tuple(float(m) for m in reachable @ FEATURES)
    p = tilted(base, FEATURES, fitted(base, FEATURES, moments))
    np.testing.assert_allclose(jnp.exp(p) @ FEATURES, moments, atol=1e-4)
    q = jnp.log(reachable)  # another distribution with the same moments
    assert kl(q, base) > kl(p, base)
    np.testing.assert_allclose(kl(q, base), kl(q, p) + kl(p, base), atol=1e-3)  # Pythagoras


def test_the_bases_own_moments_ask_for_nothing():
    base, _, _ = distributions(9)
    moments = tuple(float(m) for m in jnp.exp(base) @ FEATURES)
    np.testing.assert_allclose(fitted(base, FEATURES, moments, steps=50), 0.0, atol=1e-5)


def test_a_binary_feature_that_is_always_wanted_tends_to_the_product_with_the_constraint():
    base, _, _ = distributions(10)
    holds = jnp.arange(K) < 3
    p = tilted(base, holds[:, None].astype(jnp.float32), jnp.asarray([40.0]))
    product = pg.gdc_pointwise_target(base, holds)
    np.testing.assert_allclose(jnp.exp(p), jax.nn.softmax(product), atol=1e-6)
    grows = [float(fitted(base, holds[:, None] * 1.0, (1.0,), steps=n)[0]) for n in (100, 1000)]
    assert grows[1] > grows[0] + 1  # it never arrives


def test_the_method_gives_the_target_before_its_update_and_remembers_the_estimate():
    base, proposal, _ = distributions(11)
    settings = {"moments": (0.3, 0.6), "learning_rate": 0.5}
    state = pg.gdc_moment_target.init(**settings)
    values, aux = pg.gdc_moment_target.loss(base, proposal, FEATURES, ONE, state, **settings)
    np.testing.assert_array_equal(values, base)
    state = pg.gdc_moment_target.update(state, aux, **settings)
    expected = pg.gdc_moment_update(jnp.zeros(2), base, proposal, FEATURES, ONE, **settings)
    np.testing.assert_allclose(state.coefficients, expected)
    np.testing.assert_allclose(state.coefficients, -0.5 * (state.estimates - jnp.asarray([0.3, 0.6])), rtol=1e-6)
    nobody = pg.gdc_moment_target.update(state, aux | {"valid": ~ONE}, **settings)
    np.testing.assert_array_equal(jnp.concatenate(nobody), jnp.concatenate(state))
    with pytest.raises(ValueError, match="moments must have one number for each of the 2 objectives, got 1"):
        pg.gdc_moment_update(jnp.zeros(2), base, proposal, FEATURES, ONE, moments=(0.5,))
    with pytest.raises(AssertionError, match=r"coefficients must have shape \(2,\)"):
        pg.gdc_moment_target.loss(base, proposal, FEATURES, ONE, MomentState(jnp.zeros(1), jnp.zeros(1)), **settings)


# -------------------------------------------------------------------------------------------------------- normalisers


def test_the_normaliser_is_exact_on_every_outcome_once_and_adds_up_over_batches():
    _, target, _ = distributions(12)
    uniform = jnp.full(K, -math.log(K))
    state = pg.log_partition.init()
    whole, _ = pg.log_partition.loss(target + 1.7, uniform, ONE, state)
    np.testing.assert_allclose(whole, 1.7, rtol=1e-5)
    half = jnp.arange(K) < 3
    for rows in (half, ~half):
        values, aux = pg.log_partition.loss(target + 1.7, uniform, rows, state)
        state = pg.log_partition.update(state, aux)
    np.testing.assert_allclose(values, 1.7, rtol=1e-5)
    assert float(state.counts[0]) == K


def test_nothing_possible_has_no_normaliser_and_what_comes_later_is_not_spoilt_by_it():
    state = pg.log_partition.init()
    nothing, aux = pg.log_partition.loss(jnp.full(K, IMPOSSIBLE), jnp.zeros(K), ONE, state)
    assert (np.asarray(nothing) < -1e29).all()
    np.testing.assert_array_equal(pg.dpg(jnp.zeros(K), jnp.zeros(K), jnp.full(K, IMPOSSIBLE), nothing), 0.0)
    later, _ = pg.log_partition.loss(jnp.zeros(K), jnp.zeros(K), ONE, pg.log_partition.update(state, aux))
    np.testing.assert_allclose(later, math.log(0.5), rtol=1e-6)  # half of the samples so far weigh 1


def test_each_prompt_has_its_own_normaliser():
    _, first, second = distributions(13)
    ids = jnp.asarray([0] * K + [2] * K)
    target = jnp.concatenate([first + 0.5, second - 1.5])
    uniform, valid = jnp.full(2 * K, -math.log(K)), jnp.ones(2 * K, bool)
    state = pg.prompt_log_partitions.init(num_prompts=3)
    values, aux = pg.prompt_log_partitions.loss(target, uniform, ids, valid, state, num_prompts=3)
    np.testing.assert_allclose(values, [0.5] * K + [-1.5] * K, rtol=1e-5)
    state = pg.prompt_log_partitions.update(state, aux, num_prompts=3)
    np.testing.assert_array_equal(state.counts, [K, 0, K])
    outside, _ = pg.prompt_log_partitions.loss(target, uniform, ids + 1, valid, state, num_prompts=3)
    assert np.isnan(outside[-1])


def test_the_gain_over_the_proposal_is_the_difference_of_both_kls():
    policy, proposal, target = distributions(16)
    drawn = jnp.exp(proposal)  # every outcome once, weighted by how often it is drawn
    gains = metrics.target_kl_gain(policy, proposal, target + 0.6, jnp.full(K, 0.6))
    expected = kl(target, proposal) - kl(target, policy)
    np.testing.assert_allclose((drawn * gains).sum(), expected, rtol=1e-4)


def test_both_distances_are_exact_on_every_outcome_once():
    policy, _, target = distributions(14)
    uniform, log_z = jnp.full(K, -math.log(K)), jnp.full(K, 0.6)
    columns = (policy, uniform, target + 0.6, log_z)
    np.testing.assert_allclose(metrics.target_kl(*columns).mean(), kl(target, policy), rtol=1e-4)
    expected = 0.5 * jnp.abs(jnp.exp(policy) - jnp.exp(target)).sum()
    np.testing.assert_allclose(metrics.target_total_variation(*columns).mean(), expected, rtol=1e-4)


def test_samples_of_the_target_are_all_worth_one_and_one_heavy_one_is_worth_itself():
    _, target, _ = distributions(15)
    np.testing.assert_allclose(pg.target_effective_sample_share(target + 3.0, target, ONE), 1.0, rtol=1e-5)
    heavy = jnp.where(jnp.arange(K) == 2, 60.0, 0.0)
    np.testing.assert_allclose(pg.target_effective_sample_share(heavy, jnp.zeros(K), ONE), 1 / K, rtol=1e-5)
