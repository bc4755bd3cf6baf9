"""The promises of kernels that apply to the analyses too; they give no value per example, so they have no `Row`s."""

import importlib
import inspect
import pkgutil
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import analysis

RNG = np.random.default_rng(0)
PAIRS = RNG.normal(-3, 1, size=(4, 6))
VECTORS = RNG.normal(size=(2, 6, 5))
LOGPS = np.log(RNG.dirichlet(np.ones(5), size=(2, 6)))
TOKENS, MASK = RNG.integers(5, size=(2, 6)), RNG.random((2, 6)) < 0.7
SAMPLES = (*LOGPS, RNG.random(LOGPS[0].shape))
PLAIN = {"linear_conjugate", "pearson_conjugate", "squared_hellinger_conjugate"}

# name: (arrays, hyperparameters out of range)
CASES = {
    "best_of_n_objective": (SAMPLES, []),
    "best_of_n_with_negatives_objective": (SAMPLES, [("beta", 0.0)]),
    "bridge_objective": ((*LOGPS, np.exp(LOGPS[0])), [("beta", 0.0)]),
    "did_distribution": (LOGPS, []),
    "did_entropy_estimate": ((*LOGPS, LOGPS[0]), []),
    "did_rejected_distribution": (LOGPS, [("beta", 0.0)]),
    "dpo_probability_gradients": (PAIRS, [("beta", 0.0), ("beta", -1.0)]),
    "dpo_objective": (SAMPLES, [("beta", 0.0)]),
    "entanglement_of_products": ((*np.exp(PAIRS[:2]), *PAIRS[1:]), []),
    "entropy": ((np.exp(LOGPS[0]),), []),
    "forward_kl_gradient": (LOGPS, []),
    "gradient_entanglement": ((*VECTORS, *PAIRS[:2]), []),
    "idealized_log_ratio": ((*PAIRS[:2], RNG.random(6)), [("beta", 0.0), ("floor", 0.5), ("floor", 0.0)]),
    "ipo_objective": (SAMPLES, [("beta", 0.0)]),
    "kl_regularised_optimum": (SAMPLES[1:], [("beta", 0.0)]),
    "kl_reward_frontier": ((LOGPS[0], PAIRS[0, :5] + np.zeros((6, 1))), []),
    "linear_conjugate": ((PAIRS[0],), []),
    "logit_q_decomposition": ((RNG.normal(size=(2, 6, 5)), PAIRS[:2], TOKENS, MASK), [("beta", 0.0)]),
    "pair_label_probability": (LOGPS, []),
    "pairwise_normalized_direction": ((*VECTORS, PAIRS[0]), []),
    "pairwise_normalized_factors": ((*np.exp(PAIRS[:2]), PAIRS[1]), []),
    "peak_rewards": ((RNG.normal(size=(2, 6, 5)), PAIRS[0, :2, None] + np.zeros(6), np.ones((2, 6))), []),
    "pearson_conjugate": ((PAIRS[0],), []),
    "reinforce_objective": (SAMPLES, []),
    "reverse_kl_gradient": (LOGPS, []),
    "reward_weighted_objective": (SAMPLES, [("beta", 0.0)]),
    "roc_auc": ((PAIRS, np.tile(np.arange(6) % 2 == 0, (4, 1))), []),
    "squared_hellinger_conjugate": ((PAIRS[0],), []),
    "turning_utilities": ((VECTORS[0],), [("slope", 0.0)]),
}
each = pytest.mark.parametrize("name", CASES)


def arrays(name, dtype=jnp.float32):
    return [jnp.asarray(a, dtype if np.asarray(a).dtype.kind == "f" else None) for a in CASES[name][0]]


def call(name, *given, **hyper):
    return jax.tree.leaves(getattr(analysis, name)(*given, **hyper))


def test_every_public_function_has_a_case_and_every_module_exports_its_own():
    # `margin_coefficients` takes a loss, and is held to autodiff and closed forms in test_gradients.py; the bandits
    # take a key and return a history, and are held to their limits in test_bandits.py and test_proxy_bandits.py.
    functions = {n for n in analysis.__all__ if inspect.isfunction(getattr(analysis, n))}
    bandits = {"offline_bandit", "on_policy_bandit", "summed_rewards_bandit"}
    bandits |= {"mu_constrained_bandit", "xi_constrained_bandit"}
    assert functions == set(CASES) | bandits | {"margin_coefficients"}
    for info in pkgutil.iter_modules(analysis.__path__):
        module = importlib.import_module(f"alignment.analysis.{info.name}")
        own = {n for n, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__}
        assert {n for n in own if not n.startswith("_")} <= set(analysis.__all__)


@each
def test_docstring_names_the_source_the_shapes_and_the_errors(name):
    text = inspect.getdoc(getattr(analysis, name))
    assert "Shapes" in text
    if name not in PLAIN:
        assert re.search(r"arXiv\s\d{4}\.\d{5}", text) and "Raises" in text and "Paper" in text


@each
def test_half_precision_is_computed_in_float32(name):
    if name in PLAIN:
        return  # elementwise, inside an objective that has already cast
    half = arrays(name, jnp.bfloat16)
    full = [a.astype(jnp.float32) if jnp.issubdtype(a.dtype, jnp.floating) else a for a in half]
    for got, want in zip(call(name, *half), call(name, *full), strict=True):
        assert got.dtype in (jnp.float32, jnp.bool_)
        np.testing.assert_array_equal(got, want)


@each
def test_jit_and_vmap_leave_the_values(name):
    given = arrays(name)
    want = call(name, *given)
    for function in (jax.jit(getattr(analysis, name)), jax.vmap(getattr(analysis, name))):
        for got, expected in zip(jax.tree.leaves(function(*given)), want, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@each
def test_a_wrong_shape_is_rejected(name):
    given = arrays(name)
    for i in range(len(given) if len(given) > 1 else 0):
        with pytest.raises(AssertionError):
            call(name, *(a[:1] if i == j else a for j, a in enumerate(given)))


@pytest.mark.parametrize("name,key,value", [(n, *case) for n, (_, out) in CASES.items() for case in out])
def test_out_of_range_states_the_range(name, key, value):
    with pytest.raises(ValueError, match=f"^{key} must lie in "):
        call(name, *arrays(name), **{key: value})
