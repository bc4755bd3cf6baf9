"""SPO's tracker against a loop over visits, its limits, and its advantages and sampling weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from alignment import policy_gradients as pg
from alignment.policy_gradients.success_trackers import SpoState

HYPER = {"num_prompts": 4, "d_half": 0.06, "rho_min": 0.875, "rho_max": 0.96}


def visits(rewards, drifts, prompt_ids, valid=None):
    return {
        "rewards": jnp.asarray(rewards, jnp.float32),
        "drifts": jnp.asarray(drifts, jnp.float32),
        "prompt_ids": jnp.asarray(prompt_ids),
        "valid": jnp.ones(len(prompt_ids), bool) if valid is None else jnp.asarray(valid),
    }


def one_by_one(state, aux, d_half=0.06, rho_min=0.875, rho_max=0.96, **_):
    successes, failures = (np.array(x, float) for x in state)
    for r, d, i, v in zip(*(np.asarray(aux[k]) for k in ("rewards", "drifts", "prompt_ids", "valid")), strict=True):
        if v and 0 <= i < len(successes):
            rho = np.clip(2.0 ** (-d / d_half), rho_min, rho_max)
            successes[i], failures[i] = rho * successes[i] + r, rho * failures[i] + 1 - r
    return successes, failures


def random_visits(seed, size=16):
    rng = np.random.default_rng(seed)
    valid = rng.random(size) < 0.8
    return visits(rng.integers(0, 2, size), 0.02 * rng.gamma(1.0, size=size), rng.integers(-1, 6, size), valid)


@pytest.mark.parametrize("seed", range(4))
def test_update_is_one_visit_after_the_other(seed):
    """Several visits of one prompt in a batch, rows that are not there, and ids that are nobody's."""
    state, aux = pg.spo.init(**HYPER), random_visits(seed)
    for got, expected in zip(pg.spo.update(state, aux, **HYPER), one_by_one(state, aux), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_update_split_over_devices_keeps_the_order_of_the_whole_batch():
    count = max(n for n in (1, 2, 4, 8) if n <= jax.device_count())
    mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])
    state, aux = pg.spo.init(**HYPER), random_visits(7)
    split = jax.shard_map(
        lambda s, a: pg.spo.update(s, a, **HYPER, axis_name="data"),
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("data")),
        out_specs=PartitionSpec(),
    )
    for got, expected in zip(jax.jit(split)(state, aux), pg.spo.update(state, aux, **HYPER), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("rho", [0.875, 0.9, 0.96])
def test_evidence_converges_to_one_over_one_minus_rho(rho):
    hyper = {**HYPER, "rho_min": rho, "rho_max": rho}
    state = pg.spo.init(**hyper)
    aux = visits(np.arange(16) % 2, np.full(16, 0.03), np.zeros(16, int))
    for _ in range(40):
        state = pg.spo.update(state, aux, **hyper)
    np.testing.assert_allclose(state.successes[0] + state.failures[0], 1 / (1 - rho), rtol=1e-4)


def test_half_is_forgotten_at_d_half_and_least_without_drift():
    drifts, valid = jnp.array([0.06, 0.0, 0.12]), jnp.ones(3, bool)
    got = pg.spo_forgetting(drifts, valid, d_half=0.06, rho_min=0.01, rho_max=1.0)
    np.testing.assert_allclose(got, [0.5, 1.0, 0.25], rtol=1e-6)
    np.testing.assert_allclose(pg.spo_forgetting(drifts, valid), [0.875, 0.96, 0.875], rtol=1e-6)


def test_without_forgetting_the_rate_is_the_posterior_mean_of_all_rewards():
    hyper = {**HYPER, "rho_max": 1.0}
    state = SpoState(jnp.full(4, 0.5), jnp.full(4, 0.5))
    rewards = np.random.default_rng(0).integers(0, 2, 24)
    for part in np.split(rewards, 3):
        state = pg.spo.update(state, visits(part, np.zeros(8), np.full(8, 2)), **hyper)
    rate = state.successes[2] / (state.successes[2] + state.failures[2])
    np.testing.assert_allclose(rate, (0.5 + rewards.sum()) / (1 + 24), rtol=1e-6)


def test_rewards_between_zero_and_one_move_the_rate_by_one_over_the_evidence():
    """v <- v + (r - v) / N, N <- rho N + 1, the paper's form for rewards of any size."""
    state, reward = SpoState(jnp.full(4, 3.0), jnp.full(4, 2.0)), 2.7
    after = pg.spo.update(state, visits([reward], [0.0], [1]), **HYPER)
    n = 0.96 * 5.0 + 1
    np.testing.assert_allclose(after.successes[1] + after.failures[1], n, rtol=1e-6)
    np.testing.assert_allclose(after.successes[1] / n, 0.6 + (reward - 0.6) / n, rtol=1e-6)


def test_prior_of_offline_samples_and_none():
    state = pg.spo_prior(jnp.array([6.0, 0.0]), jnp.array([8, 0]))
    np.testing.assert_allclose(state.successes, [8 * 6.5 / 9, 4.0], rtol=1e-6)
    np.testing.assert_allclose(state.failures, [8 * 2.5 / 9, 4.0], rtol=1e-6)
    for got, expected in zip(pg.spo.init(**HYPER), (4.0, 4.0), strict=True):
        np.testing.assert_array_equal(got, np.full(4, expected, np.float32))


def advantages(rewards, prompt_ids, state, valid=None, **hyper):
    aux = visits(rewards, np.zeros(len(rewards)), prompt_ids, valid)
    return np.asarray(pg.spo.loss(*aux.values(), state, **{**HYPER, **hyper})[0])


STATE = SpoState(jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.array([4.0, 3.0, 2.0, 1.0]))
RATES = np.array([0.2, 0.4, 0.6, 0.8])


def test_rewards_as_expected_give_no_advantage():
    ids = np.array([0, 1, 2, 3, 1])
    np.testing.assert_allclose(advantages(RATES[ids], ids, STATE, eps=1e-3), 0.0, atol=1e-3)


def test_advantages_are_rewards_less_the_remembered_rate_whitened_over_the_batch():
    ids, rewards = np.array([0, 1, 2, 3, 1]), np.array([1.0, 0, 1, 1, 0])
    gains = rewards - RATES[ids]
    expected = (gains - gains.mean()) / gains.std(ddof=1)
    np.testing.assert_allclose(advantages(rewards, ids, STATE), expected, rtol=1e-5)
    np.testing.assert_allclose(advantages(rewards + 3.0, ids, STATE), expected, rtol=1e-4)


def test_the_estimate_uses_the_state_of_before_the_step_and_leaves_it():
    ids, rewards = np.array([0, 0]), np.array([1.0, 0.0])
    np.testing.assert_allclose(advantages(rewards, ids, STATE), [np.sqrt(0.5), -np.sqrt(0.5)], rtol=1e-5)


@pytest.mark.parametrize("stranger", [-1, 4])
def test_a_prompt_that_is_not_in_the_state_is_not_given_anothers_rate(stranger):
    assert np.isnan(advantages([1.0, 0.0, 1.0], [0, stranger, 1], STATE)[1])
    assert np.isfinite(advantages([1.0, 0.0, 1.0], [0, stranger, 1], STATE, [True, False, True])).all()


def test_sampling_weights_are_largest_at_one_half_and_never_below_exploration():
    rates = np.linspace(0, 1, 101)
    weights = np.asarray(pg.spo_sampling_weights(jnp.asarray(8 * rates), jnp.asarray(8 * (1 - rates))))
    assert np.argmax(weights) == 50 and weights.min() >= np.float32(0.05)
    np.testing.assert_allclose(weights[[0, 50, 100]], [0.05, 0.55, 0.05], atol=1e-4)


def test_drift_is_the_mean_movement_of_the_tokens_and_its_signed_form_the_kl_estimate():
    rng = np.random.default_rng(0)
    now, then = (jnp.asarray(rng.normal(size=(3, 5)), jnp.float32) for _ in range(2))
    mask = jnp.asarray(rng.random((3, 5)) < 0.7).at[:, 0].set(True)
    m = np.asarray(mask)
    d = np.where(m, then - now, 0.0)
    np.testing.assert_allclose(pg.spo_drifts(now, then, mask), np.abs(d).sum(-1) / m.sum(-1), rtol=1e-5)
    np.testing.assert_allclose(pg.spo_signed_drifts(now, then, mask), d.sum(-1) / m.sum(-1), rtol=1e-5)
    np.testing.assert_array_equal(pg.spo_drifts(now, now, mask), 0)
