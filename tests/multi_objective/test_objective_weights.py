"""Dynamic weights: hypervolume-guided, PAMA's closed form, the worst group, and users by hard EM."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import multi_objective as mo

ALL = np.ones(8, bool)


def _guided(batches, **hyper):
    """The meta-rewards of the steps after each batch, and the last state."""
    method, metas = mo.hv_guided_rewards, []
    state = method.init(**hyper)
    for mean in batches:
        _, aux = method.loss(np.tile(np.float32(mean), (8, 1)), ALL, state, **hyper)
        state = method.update(state, aux, **hyper)
        metas.append(float(state.meta))
    return metas, state


def test_progress_of_the_front_pays_and_a_dominated_batch_does_not():
    metas, state = _guided([[1, 1], [0.5, 0.5], [2, 1], [2, 1]])
    np.testing.assert_allclose(metas, [0.5 + 1.5 * np.tanh(1), 0.5, 0.5 + 1.5 * np.tanh(1), 0.5], rtol=1e-5)
    assert state.count == 2
    assert mo.hv_guided_rewards.init().meta == 1


def test_the_meta_reward_stays_below_two_and_points_below_the_reference_add_nothing():
    metas, state = _guided([[-5, 3], [1e3, 1e3]])
    assert metas[0] == 0.5 and metas[1] <= 2 and state.count == 1


def test_advantages_divided_by_their_deviation_do_not_see_the_meta_reward():
    from alignment import policy_gradients as pg

    rewards = np.random.default_rng(0).normal(size=8).astype(np.float32)
    groups = np.repeat(np.arange(2, dtype=np.int32), 4)
    plain, scaled = (pg.grpo_advantages(c * rewards, groups, ALL) for c in (1.0, 1.9))
    np.testing.assert_allclose(plain, scaled, atol=1e-3)
    plain, scaled = (pg.rloo_advantages(c * rewards, groups, ALL) for c in (1.0, 1.9))
    np.testing.assert_allclose(1.9 * plain, scaled, rtol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_the_closed_form_is_the_smallest_square_over_the_simplex(seed):
    advantages = np.random.default_rng(seed).normal(size=(6, 3)).astype(np.float32) + seed % 3 - 1
    grid = np.array([(i, j, 20 - i - j) for i in range(21) for j in range(21 - i)]) / 20
    best = np.abs(advantages @ grid.T).min(axis=1)
    got = np.abs(mo.pama_signed_advantages(advantages, ALL[:6]))
    assert (got <= best + 1e-6).all() and (got >= best - 0.2).all()
    np.testing.assert_array_equal(got > 0, (advantages > 0).all(1) | (advantages < 0).all(1))


def test_noon_is_the_signed_form_of_advantages_cut_at_zero():
    advantages = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    np.testing.assert_array_equal(
        mo.pama_advantages(advantages, ALL), mo.pama_signed_advantages(np.maximum(advantages, 0), ALL)
    )
    one = mo.pama_advantages(advantages[:, :1], ALL)
    np.testing.assert_array_equal(one, np.maximum(advantages[:, 0], 0))
    np.testing.assert_array_equal(mo.pama_advantages(advantages[:, ::-1], ALL), mo.pama_advantages(advantages, ALL))
    np.testing.assert_allclose(mo.pama_advantages(3 * advantages, ALL), 3 * mo.pama_advantages(advantages, ALL))


def test_one_group_is_plain_rlhf_and_the_worst_group_is_served():
    rewards = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    np.testing.assert_array_equal(mo.maxmin_rewards(rewards[:, :1], ALL), rewards[:, 0])
    worst = int(rewards.mean(axis=0).argmin())
    np.testing.assert_array_equal(mo.maxmin_rewards(rewards, ALL), rewards[:, worst])


def _em(seed, rounds=8):
    """Ten users of two tastes over linear rewards of three features; likelihood by round, and who is with whom."""
    rng = np.random.default_rng(1)
    tastes = np.float32([[3, 0, 0], [0, 3, 0]])
    user = np.repeat(np.arange(10, dtype=np.int32), 30)
    gaps = rng.normal(size=(300, 3)).astype(np.float32)
    wins = rng.random(300) < 1 / (1 + np.exp(-(gaps * tastes[user % 2]).sum(axis=1)))
    gaps[~wins] *= -1
    theta = jnp.asarray(np.random.default_rng(seed).normal(size=(3, 2)), jnp.float32)
    valid, likelihoods = np.ones(300, bool), []

    @jax.jit
    def m_step(theta, weights):
        def loss(theta):
            return -jnp.sum(weights * jax.nn.log_sigmoid(gaps @ theta))

        return jax.lax.fori_loop(0, 200, lambda _, t: t - 0.005 * jax.grad(loss)(t), theta)

    for _ in range(rounds):
        weights = mo.maxmin_assignments(gaps @ theta, user, valid)
        theta = m_step(theta, weights)
        likelihoods.append(float(jnp.sum(weights * jax.nn.log_sigmoid(gaps @ theta))))
    return likelihoods, np.asarray(weights)[::30].argmax(axis=1)


def test_hard_em_finds_the_users_tastes_and_its_likelihood_never_falls():
    likelihoods, groups = _em(0)
    assert (np.diff(likelihoods) >= -1e-3).all()
    assert len(set(groups[::2])) == len(set(groups[1::2])) == 1 and groups[0] != groups[1]


def test_a_user_is_assigned_as_a_whole_and_models_may_change_places():
    margins = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    users = np.array([4, 4, 7, 7, 4, 9, 9, 9], np.int32)
    weights = np.asarray(mo.maxmin_assignments(margins, users, ALL))
    for user in (4, 7, 9):
        assert len(np.unique(weights[users == user], axis=0)) == 1
    np.testing.assert_array_equal(mo.maxmin_assignments(margins[:, ::-1], users, ALL), weights[:, ::-1])
