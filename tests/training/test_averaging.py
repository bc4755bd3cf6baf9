"""Averages of parameters along a run, and soups."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alignment.training import averaging, optimizer
from configs import common

START = {"w": jnp.array([1.0, -2.0]), "b": jnp.float32(0.5)}


def path(tx, steps, params=START):
    """Parameters after every step of gradients that are the parameters themselves, and the last state."""
    update = jax.jit(lambda params, state: tx.update(params, state, params))
    state, seen = tx.init(params), []
    for _ in range(steps):
        updates, state = update(params, state)
        params = optax.apply_updates(params, updates)
        seen.append(params)
    return seen, state


def test_the_mean_of_iterates_is_the_arithmetic_mean_of_those_taken_and_the_optimizer_goes_on_as_without_it():
    plain, _ = path(optax.sgd(0.1), 9)
    tx = averaging.averaged(optax.sgd(0.1), averaging.mean_of_iterates(start=3, interval=2))
    seen, state = path(tx, 9)
    np.testing.assert_array_equal(seen[-1]["w"], plain[-1]["w"])
    expected = np.mean([plain[i]["w"] for i in (2, 4, 6, 8)], axis=0)
    np.testing.assert_allclose(averaging.average_in(state, seen[-1])["w"], expected, rtol=1e-6)


def test_before_its_start_the_mean_is_the_last_iterate():
    seen, state = path(averaging.averaged(optax.sgd(0.1), averaging.mean_of_iterates(start=9)), 4)
    np.testing.assert_array_equal(averaging.average_in(state, seen[-1])["w"], seen[-1]["w"])


def test_the_exponential_average_is_the_weighted_mean_of_the_iterates():
    seen, state = path(averaging.averaged(optax.sgd(0.1), averaging.exponential_average(0.7)), 4)
    weights = 0.7 ** np.arange(4)[::-1]
    expected = sum(w * s["w"] for w, s in zip(weights, seen, strict=True)) / weights.sum()
    np.testing.assert_allclose(averaging.average_in(state, seen[-1])["w"], expected, rtol=1e-5)


@pytest.mark.parametrize("average", [averaging.exponential_average(0.9), averaging.mean_of_iterates(1, 1)])
def test_constant_parameters_stay_what_they_are(average):
    _, state = path(averaging.averaged(optax.set_to_zero(), average), 3)
    np.testing.assert_allclose(averaging.average_in(state, START)["w"], START["w"], rtol=1e-6)


def test_a_decay_of_zero_keeps_the_last_and_low_precision_is_averaged_in_float32():
    low = {"w": jnp.ones(2, jnp.bfloat16)}
    seen, state = path(averaging.averaged(optax.sgd(0.1), averaging.exponential_average(0.0)), 3, low)
    assert state.params["w"].dtype == jnp.float32
    mine = averaging.average_in(state, seen[-1])["w"]
    assert mine.dtype == jnp.bfloat16
    np.testing.assert_array_equal(mine, seen[-1]["w"])


def test_a_run_ends_with_the_average_that_its_config_asks_for():
    settings = common.base().optimizer.to_dict() | {"average": "mean", "average_start": 1, "average_interval": 1}
    tx, _ = optimizer.make(settings, 4)
    seen, state = path(tx, 4)
    final = optimizer.finish(settings, seen[-1], state)
    np.testing.assert_allclose(final["w"], np.mean([s["w"] for s in seen], axis=0), rtol=1e-5)
    assert optimizer.finish(settings | {"average": ""}, seen[-1], None) is seen[-1]


def test_the_soup_of_linear_models_has_the_mean_of_their_outputs():
    rng = np.random.default_rng(0)
    models, x = [{"w": jnp.asarray(rng.normal(size=(3, 2)))} for _ in range(4)], rng.normal(size=(5, 3))
    soup = averaging.uniform_soup(models)
    np.testing.assert_allclose(x @ soup["w"], np.mean([x @ m["w"] for m in models], axis=0), rtol=1e-5)


def test_the_greedy_soup_takes_what_does_not_make_it_worse_and_is_never_below_the_best_model():
    models = [{"w": jnp.float32(x)} for x in (3.0, -1.0, 1.5, 9.0)]
    calls = []

    def score(params):
        calls.append(float(params["w"]))
        return -abs(float(params["w"]) - 1.0)

    soup, chosen, value = averaging.greedy_soup(models, score)
    # best 1.5; with -1 and 3, equally good alone: 3 makes 2.25 (worse), -1 makes 0.25 (worse)
    assert chosen == (2,) and value == -0.5 and len(calls) == 7
    np.testing.assert_array_equal(soup["w"], 1.5)
    _, chosen, value = averaging.greedy_soup([{"w": jnp.float32(x)} for x in (2.0, 0.5)], score)
    assert chosen == (1, 0) and value == pytest.approx(-0.25)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: averaging.exponential_average(1.0), r"decay must lie in \[0, 1\)"),
        (lambda: averaging.mean_of_iterates(start=0), r"start must be an integer"),
        (lambda: averaging.uniform_soup([]), "at least one model"),
        (lambda: averaging.greedy_soup([], float), "at least one model"),
        (lambda: optimizer.make(common.base().optimizer.to_dict() | {"average": "ema"}, 3), "config.optimizer.average"),
    ],
)
def test_what_is_out_of_range_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()
