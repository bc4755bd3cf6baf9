"""Drifts, LPG and evolution against their identities in the catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from alignment.policy_gradients import (
    discovered_drift,
    es_gradient,
    es_step,
    lpg,
    lpg_inputs,
    lpg_network,
    lpo,
    ppo_drift,
    ta_lpg_inputs,
    ta_lpo,
)

N, T, H, M = 6, 8, 16, 3
RNG = np.random.default_rng(0)


def normal(*shape, scale=1.0):
    return jnp.asarray(scale * RNG.normal(size=shape), jnp.float32)


OLD, MOVE, ADVANTAGES = normal(N, T) - 3, normal(N, T), normal(N, T)
MASK, PROGRESS = jnp.ones((N, T), bool), jnp.asarray(RNG.random(N), jnp.float32)
HIDDEN, WIDE, OUTPUT = normal(8, H), normal(16, H), normal(H)
DRIFTS = {
    "discovered": discovered_drift,
    "ppo": ppo_drift,
    "lpo": lambda *a: lpo(*a, HIDDEN, OUTPUT),
    "ta_lpo": lambda *a: ta_lpo(*a, PROGRESS, WIDE, OUTPUT),
}
each_drift = pytest.mark.parametrize("name", DRIFTS)


def drift_of(name, policy):
    """f = loss + r A."""
    return DRIFTS[name](policy, OLD, ADVANTAGES, MASK) + jnp.exp(policy - OLD) * ADVANTAGES


@each_drift
def test_drift_is_never_negative_and_is_not_always_zero(name):
    values = drift_of(name, OLD + MOVE)
    assert np.all(values >= -1e-5) and np.any(values > 0.05)


@each_drift
def test_drift_has_value_and_slope_zero_at_the_old_policy(name):
    np.testing.assert_allclose(drift_of(name, OLD), 0, atol=1e-6)
    got = jax.grad(lambda p: jnp.sum(DRIFTS[name](p, OLD, ADVANTAGES, MASK)))(OLD)
    np.testing.assert_allclose(got, -ADVANTAGES, rtol=1e-5)  # REINFORCE


def test_ppo_drift_is_the_clipped_surrogate_exactly():
    ratios = jnp.exp(MOVE)
    clipped = jnp.minimum(ratios * ADVANTAGES, jnp.clip(ratios, 0.8, 1.2) * ADVANTAGES)
    got = ppo_drift(OLD + MOVE, OLD, ADVANTAGES, MASK)
    np.testing.assert_allclose(got, -clipped, rtol=1e-4, atol=1e-5)


def test_progress_zero_makes_the_second_block_of_features_vanish():
    zero = ta_lpo(OLD + MOVE, OLD, ADVANTAGES, MASK, jnp.zeros(N), WIDE, OUTPUT)
    np.testing.assert_array_equal(zero, lpo(OLD + MOVE, OLD, ADVANTAGES, MASK, WIDE[:8], OUTPUT))
    late = ta_lpo(OLD + MOVE, OLD, ADVANTAGES, MASK, jnp.ones(N), WIDE, OUTPUT)
    assert np.abs(late - zero).max() > 0.1
    both = lpo(OLD + MOVE, OLD, ADVANTAGES, MASK, WIDE[:8] + WIDE[8:], OUTPUT)
    np.testing.assert_allclose(late, both, rtol=1e-4, atol=1e-4)


def test_learned_drift_reads_the_eight_features_of_the_paper():
    l, a = np.asarray(MOVE, np.float64), np.asarray(ADVANTAGES, np.float64)
    r = np.exp(l)
    features = np.stack([l, l**2, 1 - r, (1 - r) ** 2, a * l, a * l**2, a * (1 - r), a * (1 - r) ** 2], -1)
    drift = np.maximum(np.tanh(features @ np.asarray(HIDDEN)) @ np.asarray(OUTPUT) - 1e-4, 0)
    got = lpo(OLD + MOVE, OLD, ADVANTAGES, MASK, HIDDEN, OUTPUT)
    np.testing.assert_allclose(got, drift - r * a, rtol=1e-3, atol=1e-3)


def test_distilled_drift_for_small_moves_is_importance_weighting_and_for_large_ones_flat():
    advantages = jnp.ones((1, 4))
    policy = jnp.log(jnp.array([[1.1, 3.0, 30.0, 60.0]]))
    values = discovered_drift(policy, jnp.zeros((1, 4)), advantages, MASK[:1, :4])[0]
    np.testing.assert_allclose(values[0], -1.1, atol=1e-3)
    np.testing.assert_allclose(values[2:], -(1 + 2.0), atol=1e-3)  # the gain ends at 1 + a


# ------------------------------------------------------------------------------------------------------------ LPG


def network(features):
    return [normal(*s, scale=0.5) for s in ((features, 3 * H), (H, 3 * H), (3 * H,), (H,), (H, M))]


def test_constant_time_features_are_a_bias():
    inputs, dones = normal(N, T, 5), jnp.asarray(RNG.random((N, T)) < 0.2)
    weights = network(7)
    now = ta_lpg_inputs(inputs, jnp.full(N, 30), jnp.full(N, 120))
    got = lpg_network(now, dones, *weights)
    bias = weights[2] + jnp.array([0.25, jnp.log(120.0)]) @ weights[0][5:]
    for x, y in zip(got, lpg_network(inputs, dones, weights[0][:5], weights[1], bias, *weights[3:]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_the_network_reads_backwards_and_not_past_the_end_of_an_episode():
    inputs, weights = normal(N, T, 5), network(5)
    dones = jnp.zeros((N, T), bool).at[:, 3].set(True)
    whole, _ = lpg_network(inputs, dones, *weights)
    later, _ = lpg_network(inputs.at[:, 5].add(1.0), dones, *weights)
    np.testing.assert_array_equal(later[:, :4], whole[:, :4])
    np.testing.assert_array_equal(later[:, 6:], whole[:, 6:])
    assert np.abs(later[:, 4:6] - whole[:, 4:6]).min() > 1e-5


def test_network_against_a_loop_over_time():
    inputs, weights = np.asarray(normal(T, 5)), [np.asarray(w) for w in network(5)]
    dones = RNG.random(T) < 0.3
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    state, expected = np.zeros(H), np.zeros(T)
    for t in reversed(range(T)):
        state = np.zeros(H) if dones[t] else state
        x, h = inputs[t] @ weights[0] + weights[2], state @ weights[1]
        reset, update = sigmoid(x[:H] + h[:H]), sigmoid(x[H : 2 * H] + h[H : 2 * H])
        state = (1 - update) * np.tanh(x[2 * H :] + reset * h[2 * H :]) + update * state
        expected[t] = state @ weights[3]
    got, _ = lpg_network(*(jnp.asarray(x) for x in (inputs, dones, *weights)))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_the_prediction_after_the_last_step_of_an_episode_is_not_read():
    y, later, dones = (jax.nn.softmax(normal(N, T, M)) for _ in range(2)), normal(N, T, M), jnp.ones((N, T), bool)
    rewards, logps, weights = ADVANTAGES, OLD, (normal(M, H), normal(H))
    now, after = y
    np.testing.assert_array_equal(
        lpg_inputs(rewards, dones, logps, now, after, *weights), lpg_inputs(rewards, dones, logps, now, later, *weights)
    )


def test_with_the_advantage_as_coefficient_and_no_prediction_it_is_reinforce():
    logits, targets = normal(N, T, M), normal(N, T, M)
    got = jax.grad(lambda p, y: jnp.sum(lpg(p, y, ADVANTAGES, targets, MASK, alpha=0.0)), argnums=(0, 1))(OLD, logits)
    np.testing.assert_allclose(got[0], -ADVANTAGES, rtol=1e-6)
    np.testing.assert_array_equal(got[1], 0)


def test_kl_is_zero_at_its_target_and_differentiated_through_the_prediction_alone():
    logits, targets = normal(N, T, M), normal(N, T, M)

    def kl(own, target):
        return jnp.sum(lpg(OLD, own, jnp.zeros((N, T)), target, MASK, alpha=1.0))

    np.testing.assert_allclose(kl(logits, logits + 2.0), 0, atol=1e-5)
    own, target = jax.grad(kl, argnums=(0, 1))(logits, targets)
    p, q = jax.nn.softmax(logits), jax.nn.softmax(targets)
    ratio = jnp.log(p / q)
    np.testing.assert_allclose(own, p * (ratio - jnp.sum(p * ratio, -1, keepdims=True)), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(target, 0)


# ------------------------------------------------------------------------------------------------------ evolution


def test_evolution_direction_ignores_monotone_maps_of_the_return_and_is_zero_without_differences():
    noises, plus, minus = normal(32, 4), normal(32), normal(32)
    got = es_gradient(noises, plus, minus)
    np.testing.assert_allclose(es_gradient(noises, jnp.exp(3 * plus), jnp.exp(3 * minus)), got, rtol=1e-6)
    np.testing.assert_array_equal(es_gradient(noises, jnp.ones(32), jnp.ones(32)), 0)
    np.testing.assert_allclose(es_gradient(-noises, minus, plus), got, rtol=1e-5)


def test_evolution_climbs_a_quadratic():
    best = jnp.array([1.0, -2.0, 0.5])

    def step(parameters, key):
        noises = jax.random.normal(key, (16, 3))
        plus, minus = (-jnp.sum((parameters + s * noises - best) ** 2, -1) for s in (0.1, -0.1))
        return es_step(parameters, noises, plus, minus, learning_rate=0.02), None

    got, _ = jax.lax.scan(step, jnp.zeros(3), jax.random.split(jax.random.key(0), 300))
    np.testing.assert_allclose(got, best, atol=0.15)


def test_evolution_finds_a_drift_on_a_bandit_that_beats_the_one_it_started_from():
    """The whole loop at its smallest: agents of four epochs per batch on three arms, weights of `lpo` evolved."""
    rewards = jnp.array([1.0, 0.6, 0.0])
    start, unravel = ravel_pytree({"hidden": normal(8, 4), "output": normal(4)})

    def final_return(weights, key):
        weights = unravel(weights)

        def epoch(logits, batch):
            arms, old = batch

            def loss(z):
                r = rewards[arms]
                args = (jax.nn.log_softmax(z)[arms][None], old[arms][None], (r - r.mean())[None])
                return jnp.mean(lpo(*args, jnp.ones((1, 8), bool), weights["hidden"], weights["output"]))

            return logits - 0.5 * jax.grad(loss)(logits), None

        def update(logits, key):
            old = jax.nn.log_softmax(logits)
            arms = jax.random.categorical(key, logits, shape=(8,))
            repeated = jax.tree.map(lambda x: jnp.broadcast_to(x, (4, *x.shape)), (arms, old))
            return jax.lax.scan(epoch, logits, repeated)[0], None

        logits, _ = jax.lax.scan(update, jnp.zeros(3), jax.random.split(key, 5))
        return jax.nn.softmax(logits) @ rewards

    many = jax.jit(jax.vmap(jax.vmap(final_return, (None, 0)), (0, None)))

    def generation(weights, key):
        noise_key, task_key = jax.random.split(key)
        noises, keys = jax.random.normal(noise_key, (16, weights.size)), jax.random.split(task_key, 16)
        plus, minus = (many(weights + s * noises, keys).mean(-1) for s in (0.3, -0.3))
        return es_step(weights, noises, plus, minus, sigma=0.3, learning_rate=0.3), None

    found, _ = jax.lax.scan(generation, start, jax.random.split(jax.random.key(1), 30))
    before, after = many(jnp.stack([start, found]), jax.random.split(jax.random.key(2), 256)).mean(-1)
    assert after > before + 0.02
