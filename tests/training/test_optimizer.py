"""The schedule's values and what is decayed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.models import heads
from alignment.training import optimizer
from configs import common


def settings(**changes):
    return common.base().optimizer.to_dict() | changes


@pytest.mark.parametrize(
    ("kind", "at_half", "at_end"),
    [("constant", 1.0, 1.0), ("linear", 0.55, 0.1), ("cosine", 0.55, 0.1)],
)
def test_values_of_the_schedule(kind, at_half, at_end):
    rate = optimizer.schedule(settings(learning_rate=2e-3, warmup_steps=10, schedule=kind, final_fraction=0.1), 110)
    # Step 0 is the first, so that its rate of zero is the only one without effect.
    for step, wanted in [(0, 0.0), (5, 0.5), (10, 1.0), (60, at_half), (110, at_end)]:
        np.testing.assert_allclose(rate(step), 2e-3 * wanted, rtol=1e-5, atol=1e-12, err_msg=f"step {step}")


def test_without_warm_up_the_peak_comes_first():
    np.testing.assert_allclose(optimizer.schedule(settings(warmup_steps=0), 10)(0), 1e-3, rtol=1e-6)


def test_cosine_is_above_linear_in_the_first_half():
    cosine, linear = (optimizer.schedule(settings(warmup_steps=0, schedule=k), 100) for k in ("cosine", "linear"))
    assert cosine(25) > linear(25) and cosine(75) < linear(75)


def test_norms_and_biases_are_not_decayed():
    names = ["embedding", "q", "down", "reward_head", "final_norm", "attention_norm", "q_norm", "q_bias"]
    params = {name: jnp.ones(2) for name in names}
    tx, _ = optimizer.make(settings(weight_decay=0.1, warmup_steps=0, schedule="constant", learning_rate=0.5), 10)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    for name in names:
        wanted = 0.0 if "norm" in name or "bias" in name else -0.05
        np.testing.assert_allclose(updates[name], wanted, rtol=1e-5, err_msg=name)


def test_a_multiplier_is_of_the_rate_of_one_name_wherever_it_stands():
    params = {"a": jnp.ones(2), "layers": {"b": jnp.ones(2)}}
    plain, multiplied = (
        optimizer.make(settings(weight_decay=0.1, warmup_steps=0, multipliers=multipliers), 10)[0]
        for multipliers in ({}, {"b": 30.0})
    )
    gradients = jax.tree.map(lambda x: 0.3 * x, params)
    wanted, got = (tx.update(gradients, tx.init(params), params)[0] for tx in (plain, multiplied))
    np.testing.assert_array_equal(got["a"], wanted["a"])
    np.testing.assert_allclose(got["layers"]["b"], 30 * wanted["layers"]["b"], rtol=1e-6)


def test_a_multiplier_names_a_parameter_and_is_not_negative():
    with pytest.raises(ValueError, match=r"config.optimizer.multipliers: no parameter is called 'c'; there are: a"):
        optimizer.make(settings(multipliers={"c": 2.0}), 10)[0].init({"a": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"config.optimizer.multipliers.a must lie in \[0, inf\), got -1"):
        optimizer.make(settings(multipliers={"a": -1.0}), 10)


def test_gradients_are_clipped_by_their_global_norm():
    """With eps far above the gradient Adam is linear in it, and what clipping did can be read off the first moment."""
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    for clip, wanted in [(1.0, [0.6, 0.8]), (0.0, [3.0, 4.0]), (10.0, [3.0, 4.0])]:
        tx, _ = optimizer.make(settings(clip_norm=clip, b1=0.0), 10)
        _, state = tx.update({"a": jnp.full(1, 3.0), "b": jnp.full(1, 4.0)}, tx.init(params), params)
        moments = next(x.mu for x in jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(x, "mu"))
        np.testing.assert_allclose([moments["a"][0], moments["b"][0]], wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schedule": "cosinus"}, "config.optimizer.schedule"),
        ({"learning_rate": -1.0}, "config.optimizer.learning_rate"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        optimizer.make(settings(**changes), 10)


def test_a_value_model_moves_at_its_own_rate_and_is_clipped_by_its_own_norm():
    params = {"a": jnp.zeros(1), heads.VALUE_MODEL: {"a": jnp.zeros(1), "reward_head": jnp.zeros(1)}}
    plain = {"warmup_steps": 0, "schedule": "constant", "clip_norm": 1.0}
    policy, value = (optimizer.make(settings(**plain, learning_rate=rate), 10)[0] for rate in (0.5, 0.25))
    tx = optimizer.with_value_model(policy, value)
    gradients = jax.tree.map(jnp.ones_like, params)
    updates, state = tx.update(gradients, tx.init(params), params)
    np.testing.assert_allclose(updates["a"], -0.5, rtol=1e-4)
    np.testing.assert_allclose(updates[heads.VALUE_MODEL]["reward_head"], -0.25, rtol=1e-4)
    huge = {"a": jnp.full(1, 1e6), heads.VALUE_MODEL: gradients[heads.VALUE_MODEL]}
    _, with_huge = tx.update(huge, tx.init(params), params)
    moments = [
        [x.mu for x in jax.tree.leaves(s, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(x, "mu")]
        for s in (state, with_huge)
    ]
    np.testing.assert_array_equal(moments[0][1][heads.VALUE_MODEL]["a"], moments[1][1][heads.VALUE_MODEL]["a"])
