"""Multipliers: what they weigh, where they come to rest, and a bandit that does not overshoot its proxy points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import multi_objective as mo
from alignment.multi_objective.constraints import MultiplierState, SafeState

VALID = np.ones(6, bool)
LENGTHS = np.full(6, 3, np.int32)


def test_the_weights_of_all_streams_always_sum_to_the_number_of_objectives():
    ones = np.ones(1, np.float32)
    for weights in ([0.0, 0.0], [0.5, 0.25], [1.0, 1.0], [-0.5, 0.9]):
        mixed = mo.mixed_advantages(ones, np.ones((1, 2), np.float32), np.float32(weights))
        np.testing.assert_allclose(mixed, 2.0, rtol=1e-6)


def test_full_multipliers_leave_nothing_of_the_kl():
    kl = np.float32([5.0])
    np.testing.assert_allclose(mo.mixed_advantages(kl, np.float32([[1, 2]]), np.ones(2, np.float32)), 3.0)


@pytest.mark.parametrize("update", [mo.mu_multiplier_update, mo.xi_multiplier_update])
def test_a_return_at_its_threshold_moves_nothing_and_below_it_raises_the_weight(update):
    start = np.float32([[0.3, -0.2], [0.0, 0.0]])
    rewards = np.tile(np.float32([1.0, 2.0]), (6, 1))
    same = update(start, rewards, LENGTHS, VALID, thresholds=(1.0, 2.0))
    np.testing.assert_allclose(same, start, atol=1e-7)
    moved = update(start, rewards, LENGTHS, VALID, thresholds=(1.5, 1.5)) - start
    assert moved[0, 0] > 0 > moved[0, 1]


def test_a_batch_without_a_row_moves_no_multiplier():
    start = np.float32([[0.3, -0.2], [0.1, 0.0]])
    rewards = np.ones((6, 2), np.float32)
    np.testing.assert_array_equal(
        mo.mu_multiplier_update(start, rewards, LENGTHS, ~VALID, thresholds=(9.0, 9.0)), start
    )


def test_momentum_carries_the_last_step_on():
    start = np.float32([[0.0], [1.0]])
    moved = mo.xi_multiplier_update(
        start, np.zeros((6, 1), np.float32), LENGTHS, VALID, thresholds=(0.0,), momentum=0.5, learning_rate=0.1
    )
    np.testing.assert_allclose(moved, [[-0.05], [0.5]], rtol=1e-6)


def test_the_first_multipliers_are_small_and_follow_the_seed():
    first, again, other = (mo.constrained_rlhf_mu.init(seed=s).multipliers for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (np.abs(first[0]) < 0.05).all() and (first[0] != other[0]).all() and (first[1] == 0).all()


def test_an_objective_that_all_completions_score_alike_says_nothing():
    rng = np.random.default_rng(0)
    logps = rng.normal(size=(2, 6, 4)).astype(np.float32)
    mask = np.ones((6, 4), bool)
    state = MultiplierState(jnp.float32([[9.0, 9.0], [0.0, 0.0]]))  # only the rewards count
    rewards = np.stack([rng.normal(size=6), np.full(6, 0.1)], axis=1).astype(np.float32)
    values, _ = mo.constrained_rlhf_mu.loss(rewards, *logps, mask, VALID, state)
    alone, _ = mo.constrained_rlhf_mu.loss(
        rewards[:, :1], *logps, mask, VALID, MultiplierState(state.multipliers[:, :1]), thresholds=(0.0,)
    )
    np.testing.assert_allclose(values, alone, atol=1e-2)


def _bandit(method, steps=1500):
    """Exact policy gradient on 60 arms with two component rewards; the end's mean rewards."""
    rng = np.random.default_rng(0)
    rewards = jnp.asarray(rng.normal(size=(60, 2)), jnp.float32)
    thresholds = (1.0, 0.6)

    def body(carry, _):
        logits, multipliers = carry
        probs = jax.nn.softmax(logits)
        returns = probs @ rewards
        kl = -(jnp.log(probs) + jnp.log(60.0))
        streams = jnp.concatenate([kl[:, None], rewards], axis=1)
        mean = probs @ streams
        centred = streams - mean
        scaled = centred / jnp.sqrt(jnp.maximum(probs @ jnp.square(centred), 1e-6))
        if method is None:
            advantages = scaled[:, 1:].sum(axis=1)
        else:
            squash = jax.nn.sigmoid if method == "mu" else jnp.tanh
            advantages = mo.mixed_advantages(scaled[:, 0], scaled[:, 1:], squash(multipliers[0]))
            update = mo.mu_multiplier_update if method == "mu" else mo.xi_multiplier_update
            multipliers = update(
                multipliers, returns[None], jnp.ones(1, jnp.int32), jnp.ones(1, bool), thresholds=thresholds,
                learning_rate=0.2,
            )  # fmt: skip
        logits = logits + 0.1 * probs * 60 * advantages / 10
        return (logits, multipliers), returns

    _, trace = jax.lax.scan(body, (jnp.zeros(60), jnp.zeros((2, 2))), None, length=steps)
    return np.asarray(trace)


@pytest.mark.parametrize("method", ["mu", "xi"])
def test_constrained_rewards_rest_at_their_proxy_points_where_unconstrained_ones_overshoot(method):
    unconstrained, constrained = _bandit(None), _bandit(method)
    assert (unconstrained[-1] > [1.2, 0.8]).all()
    np.testing.assert_allclose(constrained[-200:].mean(axis=0), [1.0, 0.6], atol=0.1)


# --------------------------------------------------------------------------------------------------------- safe RLHF


def _safe(log_multiplier, costs, **hyper):
    state = SafeState(jnp.float32(log_multiplier), jnp.float32(0.0), jnp.int32(0))
    rewards = np.stack([np.ones(len(costs)), costs], axis=1).astype(np.float32)
    values, aux = mo.safe_rlhf.loss(rewards, np.ones(len(costs), bool), state, **hyper)
    return np.asarray(values), mo.safe_rlhf.update(state, aux, **hyper)


def test_without_a_multiplier_the_reward_counts_alone_and_with_a_huge_one_the_cost():
    costs = np.array([3.0, -2.0])
    np.testing.assert_allclose(_safe(-40.0, costs)[0], 1.0, rtol=1e-5)
    np.testing.assert_allclose(_safe(40.0, costs)[0], -costs, rtol=1e-5)


def test_the_multiplier_rises_with_harm_falls_without_and_stays_within_its_bounds():
    for costs, d, sign in (([1.0, 2.0], 0.0, 1), ([-1.0, -2.0], 0.0, -1), ([-1.0, -1.0], 2.0, 1)):
        after = _safe(0.0, np.array(costs), d=d)[1]
        np.testing.assert_allclose(after.log_multiplier, 0.1 * (np.mean(costs) + d), rtol=1e-5)
        assert np.sign(after.log_multiplier) == sign
    assert np.exp(_safe(np.log(5.0), np.array([1e4, 1e4]))[1].log_multiplier) == pytest.approx(5.0)
    assert np.isfinite(_safe(0.0, np.array([-1e4, -1e4]))[1].log_multiplier)


def test_costs_enter_a_moving_mean_that_the_first_batch_sets():
    state = _safe(0.0, np.array([2.0, 4.0]))[1]
    assert state.mean_cost == 3.0 and state.batches == 1
    _, aux = mo.safe_rlhf.loss(np.zeros((2, 2), np.float32), np.ones(2, bool), state)
    np.testing.assert_allclose(mo.safe_rlhf.update(state, aux).mean_cost, 2.7, rtol=1e-6)
    _, none = mo.safe_rlhf.loss(np.zeros((2, 2), np.float32), np.zeros(2, bool), state)
    assert mo.safe_rlhf.update(state, none) == state


def test_a_constraint_that_cannot_be_met_holds_the_multiplier_at_its_largest():
    state = mo.safe_rlhf.init()
    rewards = np.ones((4, 2), np.float32)
    for _ in range(60):
        _, aux = mo.safe_rlhf.loss(rewards, np.ones(4, bool), state)
        state = mo.safe_rlhf.update(state, aux)
    assert np.exp(state.log_multiplier) == pytest.approx(5.0)
    with pytest.raises(AssertionError, match="must have 2 columns, reward and cost"):
        mo.safe_rlhf.loss(np.ones((4, 3), np.float32), np.ones(4, bool), state)
