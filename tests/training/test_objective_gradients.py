"""The combined step on a tiny model: its direction, its memory, and what it refuses."""

import jax
import numpy as np
import optax
import pytest
import tiny_steps

import alignment.losses
from alignment import objective
from alignment.training import objective_gradients, state, step

SIDES = tiny_steps.SIDES
TWO = {"dpo": {"weight": 1.0, "beta": 0.5}, "sft": {"weight": 0.1, "side": "rejected"}}


def take(spec, name, steps=1, **settings):
    """Parameters before and after, logs and method state of `steps` combined steps of plain gradient descent."""
    terms = objective.bind(spec, alignment.losses, "objective", SIDES, tiny_steps.COLUMNS)
    terms = objective_gradients.with_memory(terms, 1)
    params, reference = tiny_steps.params_and_reference()
    before = state.create(params, optax.sgd(0.1), objective.initial_states(terms), jax.random.key(5))
    losses = step.make_losses(tiny_steps.MODEL, {"reference": tiny_steps.MODEL}, terms, (), SIDES)
    gradient = objective_gradients.make_gradient(losses, terms, name, **{"eta": 1.0, "mu": 1.0, **settings})
    function = jax.jit(step.make_update(gradient, terms, (), SIDES, optax.sgd(0.1)))
    after = before
    for _ in range(steps):
        after, logs = function(after, {"reference": reference}, tiny_steps.batch())
    return before, after, {k: float(v) for k, v in logs.items()}


def gradient_of(name, term):
    before, after, _ = tiny_steps.take({name: term}, tiny_steps.batch())
    return np.concatenate([x.ravel() for x in jax.tree.leaves(tiny_steps.difference(before, after))])


def moved(before, after):
    return np.concatenate([x.ravel() for x in jax.tree.leaves(tiny_steps.difference(before, after))]) / 0.1


def gradients():
    weights = [term["weight"] for term in TWO.values()]
    return [w * gradient_of(k, {**t, "weight": 1.0}) for w, (k, t) in zip(weights, TWO.items(), strict=True)]


def test_mgda_descends_the_shortest_combination_of_the_terms_gradients():
    before, after, logs = take(TWO, "mgda")
    g = gradients()
    first = np.clip((g[1] - g[0]) @ g[1] / ((g[0] - g[1]) @ (g[0] - g[1])), 0, 1)
    np.testing.assert_allclose(logs["loss/dpo_weight"], first, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(moved(before, after), first * g[0] + (1 - first) * g[1], atol=2e-4)
    direction = moved(before, after)
    assert min(x @ direction for x in g) >= direction @ direction * 0.99


def test_pcgrad_projects_what_conflicts():
    before, after, _ = take(TWO, "pcgrad")
    g = gradients()
    if g[0] @ g[1] < 0:
        expected = g[0] - g[0] @ g[1] / (g[1] @ g[1]) * g[1] + g[1] - g[0] @ g[1] / (g[0] @ g[0]) * g[0]
    else:
        expected = g[0] + g[1]
    np.testing.assert_allclose(moved(before, after), expected, atol=2e-4)


def test_gradient_weights_are_remembered_from_step_to_step():
    _, once, logs = take(TWO, "gradient_weights")
    _, twice, _ = take(TWO, "gradient_weights", steps=2)
    g = gradients()
    influence = np.array([x @ (g[0] + g[1]) for x in g])
    expected = np.exp(influence - influence.max())
    memory = once.method_state[objective_gradients.MEMORY]
    np.testing.assert_allclose(memory.weights, expected / expected.sum(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(logs["loss/dpo_weight"], memory.weights[0], rtol=1e-6)
    later = twice.method_state[objective_gradients.MEMORY]
    assert later.count == 2 and np.abs(later.weights - memory.weights).max() > 1e-6


def test_there_must_be_gradients_to_combine_and_one_batch_to_take_them_on():
    terms = objective.bind({"dpo": {}}, alignment.losses, "objective", SIDES, tiny_steps.COLUMNS)
    with pytest.raises(ValueError, match=r"config.training.gradient: combines the gradients of two terms or more"):
        objective_gradients.with_memory(terms, 1)
    terms = objective.bind(TWO, alignment.losses, "objective", SIDES, tiny_steps.COLUMNS)
    with pytest.raises(ValueError, match=r"config.training.accumulate: 2 micro-batches"):
        objective_gradients.with_memory(terms, 2)
