"""Metrics: values by hand, no gradient, nothing from behind the mask, and a NaN that does not pass for a number."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import metrics
from alignment.losses import dpo, position_kl

F = jnp.asarray
PAIR = (F([-1.0, -3.0, -2.0]), F([-2.0, -1.0, -2.0]), F([-1.5, -2.0, -2.0]), F([-1.0, -2.0, -2.0]))  # h = 1.5, -2, 0
TOKENS, MASK = F([[0.5, 2.0], [3.0, 4.0]]), F([[True, False], [True, True]])

# name: (arguments, hyperparameters, expected)
CASES = {
    "chosen_logp": (PAIR[:1], {}, [-1.0, -3.0, -2.0]),
    "rejected_logp": (PAIR[1:2], {}, [-2.0, -1.0, -2.0]),
    "chosen_reward": ((PAIR[0], PAIR[2]), {"beta": 0.5}, [0.25, -0.5, 0.0]),
    "rejected_reward": ((PAIR[1], PAIR[3]), {"beta": 0.5}, [-0.5, 0.5, 0.0]),
    "reward_margin": (PAIR, {"beta": 0.5}, [0.75, -1.0, 0.0]),
    "reward_accuracy": (PAIR, {}, [1.0, 0.0, 0.0]),
    "reward_model_accuracy": ((F([2.0, 1.0, 1.0]), F([1.0, 2.0, 1.0])), {}, [1.0, 0.0, 0.0]),
    "token_nll": ((-TOKENS, MASK), {}, [[0.5, 0.0], [3.0, 4.0]]),
    "token_entropy": ((TOKENS, MASK), {}, [[0.5, 0.0], [3.0, 4.0]]),
    "kl_to_reference": ((TOKENS, MASK), {}, [[0.5, 0.0], [3.0, 4.0]]),
    "sequence_forward_kls": ((TOKENS, MASK), {}, [0.5, 7.0]),
}
each = pytest.mark.parametrize("name", CASES)
each_with_mask = pytest.mark.parametrize("name", [n for n, (arrays, _, _) in CASES.items() if arrays[-1].dtype == bool])


def call(name, arrays=None):
    given, hyper, _ = CASES[name]
    return getattr(metrics, name)(*(given if arrays is None else arrays), **hyper)


def test_every_public_metric_has_a_case():
    assert sorted(metrics.__all__) == sorted(CASES)
    own = [n for n, f in inspect.getmembers(metrics, inspect.isfunction) if f.__module__ == metrics.__name__]
    assert {n for n in own if not n.startswith("_")} == set(metrics.__all__)


@each
def test_value_by_hand_in_float32(name):
    values = call(name)
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(values, CASES[name][2], rtol=1e-6)


@each
def test_half_precision_input_gives_float32(name):
    arrays = [a.astype(jnp.bfloat16) if a.dtype != bool else a for a in CASES[name][0]]
    assert call(name, arrays).dtype == jnp.float32


@each
def test_no_gradient_passes(name):
    arrays = CASES[name][0]
    floating = tuple(i for i, a in enumerate(arrays) if a.dtype != bool)
    for gradient in jax.grad(lambda *a: jnp.sum(call(name, a)), argnums=floating)(*arrays):
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


@each_with_mask
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_nothing_behind_the_mask_is_seen(name, poison):
    tokens, mask = CASES[name][0]
    np.testing.assert_array_equal(call(name, (jnp.where(mask, tokens, poison), mask)), call(name))


@each
def test_wrong_shape_is_rejected(name):
    arrays = CASES[name][0]
    if len(arrays) > 1:
        with pytest.raises(AssertionError):
            call(name, (arrays[0][:1], *arrays[1:]))


@pytest.mark.parametrize("name", ["reward_accuracy", "reward_model_accuracy"])
def test_an_accuracy_of_nan_is_nan_and_not_a_miss(name):
    arrays = list(CASES[name][0])
    arrays[0] = arrays[0].at[0].set(jnp.nan)
    np.testing.assert_array_equal(np.isnan(call(name, arrays)), [True, False, False])


def test_margin_is_the_argument_of_the_dpo_loss():
    margin = metrics.reward_margin(*PAIR, beta=0.5)
    np.testing.assert_allclose(dpo(*PAIR, beta=0.5), np.log1p(np.exp(-margin)), rtol=1e-6)


def test_sequential_kl_sums_what_position_kl_gives():
    rng = np.random.default_rng(0)
    policy, reference = (jnp.asarray(rng.normal(size=(2, 2, 5)), jnp.float32) for _ in range(2))
    kls = position_kl(policy, reference)
    expected = np.where(MASK, kls, 0).sum(-1)
    np.testing.assert_allclose(metrics.sequence_forward_kls(kls, MASK), expected, rtol=1e-6)


def test_beta_out_of_range_states_the_range():
    with pytest.raises(ValueError, match=r"beta must lie in \(0, inf\)"):
        metrics.reward_margin(*PAIR, beta=0.0)
