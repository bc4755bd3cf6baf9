"""Several rewards per completion: identities of the estimators and what their toy optima are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import multi_objective as mo
from alignment import policy_gradients as pg

N = 12
GROUPS = np.repeat(np.arange(3, dtype=np.int32), 4)
ALL = np.ones(N, bool)


def rewards(objectives=2, seed=0):
    return np.random.default_rng(seed).normal(size=(N, objectives)).astype(np.float32)


BOTH = (pg.mo_grpo_advantages, pg.mo_grpo_normalized_advantages)


@pytest.mark.parametrize("estimate", BOTH)
def test_one_objective_is_grpo(estimate):
    r = rewards(1)
    expected = pg.grpo_advantages(r[:, 0], GROUPS, ALL, eps=1e-4)
    np.testing.assert_allclose(estimate(r, GROUPS, ALL, weights=(1.0,)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("estimate", BOTH)
def test_advantages_of_a_group_sum_to_zero(estimate):
    sums = np.asarray(estimate(rewards(), GROUPS, ALL)).reshape(3, 4).sum(axis=1)
    np.testing.assert_allclose(sums, 0, atol=1e-5)


def test_the_sum_is_invariant_to_a_common_scale_and_the_normalised_form_to_that_of_each_objective():
    r = rewards()
    np.testing.assert_allclose(*(pg.mo_grpo_advantages(c * r, GROUPS, ALL, eps=0.0) for c in (1, 50)), rtol=1e-4)
    scales = np.float32([1, 50])
    normalised = [pg.mo_grpo_normalized_advantages(c * r, GROUPS, ALL, eps=0.0) for c in (1, scales)]
    np.testing.assert_allclose(*normalised, rtol=1e-4)
    assert np.abs(pg.mo_grpo_advantages(scales * r, GROUPS, ALL) - pg.mo_grpo_advantages(r, GROUPS, ALL)).max() > 0.1


def test_an_objective_that_is_constant_in_the_group_adds_nothing():
    r = rewards()
    r[:, 1] = 0.1
    expected = 0.5 * pg.mo_grpo_normalized_advantages(r[:, :1], GROUPS, ALL, weights=(1.0,))
    np.testing.assert_allclose(pg.mo_grpo_normalized_advantages(r, GROUPS, ALL), expected, rtol=1e-5)


def test_scores_of_each_objective_are_grpos():
    r = rewards(3)
    got = pg.objective_advantages(r, GROUPS, ALL)
    for k in range(3):
        np.testing.assert_allclose(got[:, k], pg.grpo_advantages(r[:, k], GROUPS, ALL, eps=1e-4), rtol=1e-4, atol=1e-5)


def test_the_best_of_a_group_alone_is_imitated_whatever_the_scale():
    r = rewards(1)[:, 0]
    weights = np.asarray(pg.best_of_group_advantages(r, GROUPS, ALL))
    np.testing.assert_array_equal(weights.reshape(3, 4).argmax(1), r.reshape(3, 4).argmax(1))
    np.testing.assert_array_equal(np.sort(weights), [0] * 9 + [4] * 3)
    np.testing.assert_array_equal(pg.best_of_group_advantages(7 * r, GROUPS, ALL), weights)
    alone = pg.best_of_group_advantages(r[:3], np.arange(3, dtype=np.int32), ALL[:3])
    np.testing.assert_array_equal(alone, 1)  # supervised fine-tuning on its own samples


def test_terms_of_all_objectives_add_up_to_ppo_on_the_sum():
    rng = np.random.default_rng(0)
    behaviour = rng.normal(size=(N, 5)).astype(np.float32)
    policy = behaviour + 0.05 * rng.normal(size=(N, 5)).astype(np.float32)
    mask, advantages = np.ones((N, 5), bool), rng.normal(size=(N, 2)).astype(np.float32)
    parts = [pg.ppo_of_objective(policy, behaviour, advantages, mask, objective=k) for k in (0, 1)]
    whole = pg.ppo(policy, behaviour, np.repeat(advantages.sum(1)[:, None], 5, axis=1), mask)
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------ C-MORL


def test_the_barrier_without_a_step_is_the_mean_log_slack_and_vanishes_with_t():
    logps, mask = np.zeros((N, 3), np.float32), np.ones((N, 3), bool)
    r = 1 + np.random.default_rng(0).random((N, 3)).astype(np.float32)
    means = r.mean(axis=0)
    expected = -np.log(0.1 * means[[0, 2]]).mean() / 20
    got = pg.c_morl_barrier(logps, logps, r, mask, ALL, objective=1)
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    assert np.abs(pg.c_morl_barrier(logps, logps, r, mask, ALL, objective=1, t=1e9)).max() < 1e-8
    assert (pg.c_morl_barrier(logps, logps, r[:, :1], mask, ALL) == 0).all()


def test_the_maximised_objective_is_not_constrained():
    logps, mask = np.zeros((N, 3), np.float32), np.ones((N, 3), bool)
    r = 1 + np.random.default_rng(0).random((N, 2)).astype(np.float32)
    changed = r * np.float32([1, 7])
    np.testing.assert_array_equal(*(pg.c_morl_barrier(logps, logps, x, mask, ALL, objective=1) for x in (r, changed)))


def test_a_violated_constraint_of_negative_returns_sits_at_the_floor_without_a_gradient():
    mask, r = np.ones((N, 3), bool), -np.ones((N, 2), np.float32)

    def loss(logps):
        return pg.c_morl_barrier(logps, jnp.zeros((N, 3)), r, mask, ALL).sum()

    assert (jax.grad(loss)(jnp.zeros((N, 3))) == 0).all()


def _stage_two(points, start, objective, b=0.9, steps=400):
    """Exact stage 2 on a bandit: ascent on one mean reward with the others' log slack as a barrier."""
    arms = jnp.asarray(points)
    start_returns = jax.nn.softmax(start) @ arms
    others = [k for k in range(arms.shape[1]) if k != objective]

    def value(logits):
        returns = jax.nn.softmax(logits) @ arms
        slack = jnp.stack([returns[k] - b * start_returns[k] for k in others])
        return returns[objective] + jnp.mean(jnp.log(jnp.maximum(slack, 1e-3))) / 20

    logits = jax.lax.fori_loop(0, steps, lambda _, x: x + 0.5 * jax.grad(value)(x), start)
    return np.asarray(jax.nn.softmax(logits) @ arms)


def test_stage_two_fills_the_front_and_keeps_what_it_must():
    """Crowding picks a policy of stage 1; extending it adds hypervolume, and the other objective keeps nine tenths."""
    angle = np.linspace(0, np.pi / 2, 12)
    arms = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    starts = [jnp.asarray(5 * arms @ w, jnp.float32) for w in np.float32([[1, 0], [0.5, 0.5], [0, 1]])]
    front = np.stack([np.asarray(jax.nn.softmax(s) @ arms) for s in starts])
    crowding = mo.crowding_distances(front, np.ones(3, bool))
    picked = int(np.argmax(np.asarray(crowding)))
    zero, buffer = np.zeros(2, np.float32), front
    for objective in (0, 1):
        new = _stage_two(arms, starts[picked], objective)
        assert new[1 - objective] >= 0.9 * front[picked][1 - objective] - 1e-3
        before = mo.hypervolume(buffer, np.ones(len(buffer), bool), zero)
        buffer = np.concatenate([buffer, new[None]]).astype(np.float32)
        assert mo.hypervolume(buffer, np.ones(len(buffer), bool), zero) >= before
    assert mo.hypervolume(buffer, np.ones(5, bool), zero) > mo.hypervolume(front, np.ones(3, bool), zero)
    kept = buffer[np.asarray(mo.non_dominated(buffer, np.ones(5, bool))) > 0]
    np.testing.assert_allclose(
        mo.hypervolume(kept, np.ones(len(kept), bool), zero), mo.hypervolume(buffer, np.ones(5, bool), zero), rtol=1e-6
    )


# ------------------------------------------------------------------------------------------------------------- MOGFN

PROBS = np.array([0.5, 0.3, 0.2], np.float32)


def _balance(rewards, log_z, beta=4.0, probs=PROBS):
    values = jnp.full((len(probs), 2), log_z)
    return pg.mogfn_trajectory_balance(
        jnp.log(probs), values, jnp.asarray(rewards), jnp.ones((len(probs), 2), bool), beta=beta
    )


def test_balance_is_zero_exactly_for_the_reward_proportional_policy_with_its_partition_function():
    rewards = np.float32([0.9, 0.4, 0.1])
    target = rewards**4 / np.sum(rewards**4)
    np.testing.assert_allclose(_balance(rewards, np.log(np.sum(rewards**4)), probs=target), 0, atol=1e-9)
    assert (_balance(rewards, 0.5, probs=target) > 0.1).all()
    assert _balance(rewards, np.log(np.sum(rewards**4))).max() > 0.1


def test_with_beta_zero_balance_asks_for_uniform_sampling():
    uniform = np.full(3, 1 / 3, np.float32)
    np.testing.assert_allclose(_balance([0.9, 0.4, 0.1], np.log(3), beta=0.0, probs=uniform), 0, atol=1e-9)


def test_with_a_reference_prior_balance_is_the_optimum_of_regularised_rlhf():
    reward, reference, b = np.float32([1.0, -0.5, 0.3]), np.float32([0.2, 0.5, 0.3]), 0.7
    optimum = reference * np.exp(reward / b)
    z = optimum.sum()
    scaled = np.exp(reward / b + np.log(reference))  # R^beta with beta 1
    np.testing.assert_allclose(_balance(scaled, np.log(z), beta=1.0, probs=optimum / z), 0, atol=1e-8)


def test_training_by_balance_reaches_the_target_of_each_told_preference():
    """A table policy over 6 sequences for 3 preferences, with its own log Z each; total variation to R^beta / Z."""
    rng = np.random.default_rng(0)
    objectives = rng.uniform(0.2, 1.0, size=(6, 2)).astype(np.float32)
    preferences = np.float32([[1, 0], [0.5, 0.5], [0, 1]])
    scalar = preferences @ objectives.T
    target = scalar**4 / (scalar**4).sum(axis=1, keepdims=True)

    def loss(parameters):
        logps = jax.nn.log_softmax(parameters[:, :6])
        values = jnp.broadcast_to(parameters[:, 6:, None], (3, 6, 2))
        return jnp.mean(
            pg.mogfn_trajectory_balance(logps, values, jnp.asarray(scalar), jnp.ones((3, 6, 2), bool), beta=4.0)
        )

    parameters = jax.lax.fori_loop(0, 6000, lambda _, x: x - 0.3 * jax.grad(loss)(x), jnp.zeros((3, 7)))
    probs = np.asarray(jax.nn.softmax(parameters[:, :6]))
    assert 0.5 * np.abs(probs - target).sum(axis=1).max() < 0.01
    np.testing.assert_allclose(parameters[:, 6], np.log((scalar**4).sum(axis=1)), atol=0.02)
