"""The promises of kernels that apply to the games too; like analyses, they give no value per example: no `Row`s."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_games import random_preferences

from alignment import games

RNG = np.random.default_rng(0)
GAME = random_preferences(RNG, (3,))
POLICIES = np.log(RNG.dirichlet(np.ones(5), size=(4, 3)))
FEATURES, MOMENTS = RNG.normal(size=(3, 5, 2)), 0.1 * RNG.normal(size=(3, 2))
ACTIONS, MEANS = RNG.integers(4, size=(3, 9)), RNG.random((3, 4))
PULLS, SUMS = RNG.integers(0, 5, size=(3, 4)), RNG.random((3, 4))
PAYOFFS, ROWS, COLUMNS = RNG.normal(size=(3, 4, 2)), RNG.dirichlet(np.ones(4), 3), RNG.dirichlet(np.ones(2), 3)
TAU, ETA = [("tau", 0.0)], [("eta", 0.0)]

# name: (arrays, hyperparameters out of range); those whose arrays have leading axes that vmap may take.
CASES = {
    "best_response": ((GAME, *POLICIES[:2]), TAU),
    "bradley_terry_preferences": ((FEATURES[..., 0],), []),
    "cumulative_regret": ((ACTIONS, MEANS), []),
    "duality_gap": ((GAME, POLICIES[0]), []),
    "effective_sample_size": (POLICIES[:2], []),
    "exploitability": ((PAYOFFS, ROWS, COLUMNS), []),
    "gaussian_hardness": ((MEANS,), [("deviation", 0.0)]),
    "gdc_coefficients": ((POLICIES[0], FEATURES, MOMENTS), []),
    "gdc_log_partition": (POLICIES[:2], []),
    "gdc_moment_target": ((POLICIES[0], FEATURES, MOMENTS), []),
    "gdc_pointwise_target": ((POLICIES[0], FEATURES[..., 0] > -1), []),
    "gdc_sampled_coefficients": ((*POLICIES[:2], FEATURES, MOMENTS), [("learning_rate", 0.0)]),
    "inpo_population_loss": ((*POLICIES[:3], GAME), [*ETA, ("tau", -1.0)]),
    "kl_divergence": (POLICIES[:2], []),
    "kl_rl_log_partition": ((POLICIES[0], FEATURES[..., 0]), [("beta", 0.0)]),
    "kl_rl_objective": ((*POLICIES[:2], FEATURES[..., 0]), [("beta", 0.0)]),
    "latent_pairs": ((ACTIONS, MEANS), [("margin", -0.1)]),
    "least_pulled_share": ((ACTIONS, MEANS), []),
    "minimum_gap": ((MEANS,), []),
    "nash_md_step": ((GAME, *POLICIES[:2]), [*ETA, ("tau", -1.0)]),
    "omd_self_play_step": ((GAME, *POLICIES[:2]), [*ETA, ("tau", -1.0)]),
    "onpo_population_loss": ((*POLICIES[:3], GAME), ETA),
    "optimal_fraction": ((ACTIONS, MEANS), []),
    "regret_matching_strategy": ((PAYOFFS[..., 0],), []),
    "regularised_duality_gap": ((GAME, *POLICIES[:2]), TAU),
    "regularised_payoff": ((GAME, *POLICIES[:3]), [("tau", -0.1)]),
    "suffix_failure": ((ACTIONS, MEANS), []),
    "total_variation": (POLICIES[:2], []),
    "ucb_guide": ((PULLS, SUMS), [("alpha", -0.1)]),
    "win_rate": ((GAME, *POLICIES[:2]), []),
    "win_rates": ((GAME, POLICIES[0]), []),
}
# Runs, draws, choices and what works on the host or on one game: held to their own tests.
OTHERS = {
    "bernoulli_draw", "bernoulli_means", "bilevel_gradients", "check_preferences", "contextual_regret",
    "cyclic_preferences", "exploration_win_rates", "farthest_points", "gaussian_draw", "gaussian_means", "greedy_arm",
    "inpo_self_play", "latent_payoffs", "linucb_arm", "linucb_guide", "lloyd", "maxmin_em", "maxmin_policy",
    "multiplicative_weights", "nash_md", "nash_md_decreasing", "omd_self_play", "omd_self_play_decreasing",
    "onpo_self_play", "optimistic_omd", "parl_gradients", "parl_objective", "parl_sampled_gradients", "play_bandit",
    "play_contextual_bandit", "rating_bandit", "regret_growth", "regret_matching", "regularised_nash",
    "soft_assignments", "thompson_arm", "ucb_arm", "uniform_arm",
}  # fmt: skip
each = pytest.mark.parametrize("name", CASES)
DRAWS = {"bernoulli_draw", "gaussian_draw", "bernoulli_means", "gaussian_means", "cyclic_preferences"}


def arrays(name, dtype=jnp.float32):
    given = [np.asarray(a) for a in CASES[name][0]]
    return [jnp.asarray(a, dtype if a.dtype.kind == "f" else None) for a in given]


def call(name, *given, **hyper):
    return jax.tree.leaves(getattr(games, name)(*given, **hyper))


def test_every_public_function_has_a_case_and_every_module_exports_its_own():
    functions = {n for n in games.__all__ if inspect.isfunction(getattr(games, n))}
    assert functions == set(CASES) | OTHERS and not set(CASES) & OTHERS
    for info in pkgutil.iter_modules(games.__path__):
        if info.name == "bandit_text":
            continue  # words, by their module
        module = importlib.import_module(f"alignment.games.{info.name}")
        own = {n for n, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__}
        assert {n for n in own if not n.startswith("_")} <= set(games.__all__)


@pytest.mark.parametrize("name", sorted(set(CASES) | OTHERS))
def test_docstring_names_the_source_the_shapes_and_the_errors(name):
    text = inspect.getdoc(getattr(games, name))
    assert re.search(r"arXiv\s\d{4}\.\d{5}", text) and "Shapes" in text and "Paper" in text
    assert "Raises" in text or name in DRAWS


@each
def test_half_precision_is_computed_in_float32(name):
    half = arrays(name, jnp.bfloat16)
    full = [a.astype(jnp.float32) if jnp.issubdtype(a.dtype, jnp.floating) else a for a in half]
    # Rounded to half precision P + P^T is not quite 1, which float32 would have to be; under vmap nobody looks.
    for got, want in zip(call(name, *half), jax.tree.leaves(jax.vmap(getattr(games, name))(*full)), strict=True):
        assert got.dtype in (jnp.float32, jnp.bool_)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@each
def test_jit_and_vmap_leave_the_values(name):
    given = arrays(name)
    want = call(name, *given)
    for function in (jax.jit(getattr(games, name)), jax.vmap(getattr(games, name))):
        for got, expected in zip(jax.tree.leaves(function(*given)), want, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


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


def test_importing_games_pulls_in_neither_models_nor_data_nor_plots():
    code = "import sys, alignment.games, alignment.games.bandit_text; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"flax", "optax", "orbax", "grain", "ml_collections", "matplotlib", "scipy.stats"} & set(loaded)
    assert not [m for m in loaded if m.startswith(("alignment.models", "alignment.training", "alignment.data"))]
