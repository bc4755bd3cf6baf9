"""HAPO's rewards for brevity and the histories behind them."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from alignment import policy_gradients as pg

FORMS = (pg.hapo_length_rewards, pg.hapo_linear_length_rewards)
METHODS = (pg.hapo, pg.hapo_mean, pg.hapo_linear)
HYPER = {"num_prompts": 3}


def rewards(form, lengths, correct, history=100.0, **hyper):
    lengths = jnp.asarray(lengths)
    correct = jnp.full(lengths.shape, correct)
    return np.asarray(form(lengths, correct, jnp.full(lengths.shape, history), **hyper))


def test_a_correct_completion_of_the_length_of_the_history_has_reward_exactly_one():
    state = pg.hapo.init(**HYPER)._replace(histories=jnp.array([7.0, 0.0, 0.0]))
    arrays = jnp.array([7]), jnp.array([True]), jnp.array([0]), jnp.array([True])
    np.testing.assert_allclose(pg.hapo.loss(*arrays, state, **HYPER)[0], 1.0, atol=1e-6)
    np.testing.assert_array_equal(pg.hapo_linear.loss(*arrays, state, **HYPER)[0], 1.0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_any_correct_completion_beats_any_wrong_one(form, weight):
    lengths = np.arange(1, 1000)
    worst = 1 + rewards(form, lengths, True, weight=weight).min()
    np.testing.assert_allclose(worst, 1 - 0.7 * weight, rtol=1e-5)
    assert worst > 0 >= rewards(form, lengths, False, weight=weight).max()


@pytest.mark.parametrize("form", FORMS)
def test_wrong_and_short_is_never_punished(form):
    np.testing.assert_allclose(rewards(form, np.arange(1, 101), False), 0.0, atol=1e-6)
    assert (rewards(form, np.arange(115, 300), False) < 0).all()


def test_the_cosine_lies_between_one_and_minus_one_and_is_continuous_at_twice_the_history():
    lengths = np.arange(1, 400)
    f = rewards(pg.hapo_length_rewards, lengths, True, floor=-0.999999)
    assert f.max() <= 1 and f.min() >= -1
    np.testing.assert_allclose(rewards(pg.hapo_length_rewards, [199, 200, 201], False), -1.0, atol=1e-3)
    np.testing.assert_allclose(f, np.cos(np.pi / 2 * np.minimum(lengths / 100, 2)), atol=1e-5)


def test_the_linear_form_is_continuous_with_a_flat_band():
    lengths = np.arange(1, 400)
    correct = rewards(pg.hapo_linear_length_rewards, lengths, True)
    assert np.abs(np.diff(correct)).max() < 0.0101
    np.testing.assert_allclose(correct[(lengths >= 100) & (lengths <= 110)], 0.0, atol=1e-6)
    np.testing.assert_allclose(correct[lengths == 50], 0.5, rtol=1e-5)
    np.testing.assert_allclose(correct[lengths == 150], -0.4, rtol=1e-5)
    np.testing.assert_allclose(rewards(pg.hapo_linear_length_rewards, [150, 300], False), [-0.4, -1.0], rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_without_a_history_length_is_worth_nothing(form):
    np.testing.assert_array_equal(rewards(form, np.arange(1, 50), True, history=0.0), 0)


def step(seed, size=8):
    rng = np.random.default_rng(seed)
    return {
        "lengths": jnp.asarray(rng.integers(1, 50, size)),
        "correct": jnp.asarray(rng.random(size) < 0.5),
        "prompt_ids": jnp.asarray(rng.integers(-1, 5, size)),
        "valid": jnp.asarray(rng.random(size) < 0.8),
    }


def correct_lengths(steps, prompt):
    kept = [
        int(n)
        for s in steps
        for n, c, i, v in zip(*(np.asarray(x) for x in s.values()), strict=True)
        if c and v and i == prompt
    ]
    return kept


@hypothesis.settings(deadline=None, max_examples=10)
@hypothesis.given(seed=st.integers(0, 2**16))
def test_histories_are_the_shortest_and_the_mean_of_all_correct_lengths_so_far(seed):
    shortest, mean, steps = pg.hapo.init(**HYPER), pg.hapo_mean.init(**HYPER), []
    for n in range(3):
        steps.append(step(seed + n))
        before, shortest = shortest, pg.hapo.update(shortest, steps[-1], **HYPER)
        mean = pg.hapo_mean.update(mean, steps[-1], **HYPER)
        known = np.asarray(before.histories) > 0
        assert (np.asarray(shortest.histories) <= np.asarray(before.histories))[known].all()  # never grows
    for prompt in range(3):
        seen = correct_lengths(steps, prompt)
        np.testing.assert_allclose(shortest.histories[prompt], min(seen, default=0))
        np.testing.assert_allclose(mean.histories[prompt], np.mean(seen) if seen else 0.0, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS, ids=("hapo", "hapo_mean", "hapo_linear"))
def test_an_update_split_over_devices_is_that_of_the_whole_batch(method):
    count = max(n for n in (1, 2, 4, 8) if n <= jax.device_count())
    mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])
    state, aux = method.update(method.init(**HYPER), step(1), **HYPER), step(2, 16)
    split = jax.shard_map(
        lambda s, a: method.update(s, a, **HYPER, axis_name="data"),
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("data")),
        out_specs=PartitionSpec(),
    )
    for got, expected in zip(jax.jit(split)(state, aux), method.update(state, aux, **HYPER), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS, ids=("hapo", "hapo_mean", "hapo_linear"))
def test_a_prompt_that_is_not_in_the_state_is_not_given_anothers_history(method):
    state = method.init(**HYPER)._replace(histories=jnp.full(3, 5.0))
    ids, valid = jnp.array([-1, 3, 3]), jnp.array([True, True, False])
    got = method.loss(jnp.array([4, 4, 4]), jnp.ones(3, bool), ids, valid, state, **HYPER)[0]
    assert np.isnan(got[:2]).all() and got[2] == 0


def test_the_step_is_rewarded_by_what_was_remembered_before_it():
    state, aux = pg.hapo.init(**HYPER), step(3)
    aux["prompt_ids"] = jnp.clip(aux["prompt_ids"], 0, 2)
    values, kept = pg.hapo.loss(*aux.values(), state, **HYPER)
    np.testing.assert_array_equal(values, np.asarray(aux["correct"] & aux["valid"], float))
    assert set(kept) == set(aux)
