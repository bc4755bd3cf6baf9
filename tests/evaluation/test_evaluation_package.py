"""What holds for all of the package: docstrings with a source, nothing heavy imported, everything exported."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys

import pytest

from alignment import evaluation
from experiments import evaluate, evaluation_columns

# Parts of a metric whose docstring has the source, and plain arithmetic.
PARTS = {"area_under_risk_coverage", "best_of_n_weights", "bootstrap", "brier_score", "effective_sample_size",
         "expected_calibration_error", "length_penalty", "outcome_of_verdict", "outcomes_of_scores", "percentiles",
         "policy_win_rate", "reliability", "risk_coverage", "selection_regret", "verdict_weight", "win_rate",
         "win_rate_matrix", "wrong_at_confidence"}  # fmt: skip
HELPERS = {"arrays"}


@pytest.mark.parametrize("name", evaluation.__all__)
def test_docstring_names_the_source(name):
    text = inspect.getdoc(getattr(evaluation, name))
    assert name in PARTS or re.search(r"Paper: .*(arXiv\s+\d{4}\.\d{5}|(19|20)\d\d)", text, re.DOTALL), name


def test_every_module_exports_its_functions():
    for info in pkgutil.iter_modules(evaluation.__path__):
        module = importlib.import_module(f"alignment.evaluation.{info.name}")
        own = {n for n, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__}
        inner = {"pearson", "spearman", "kendall", "l1_logistic", "best_is_first"}
        if info.name not in HELPERS:
            assert {n for n in own if not n.startswith("_")} - inner <= set(evaluation.__all__)


def test_nothing_heavy_is_imported():
    code = "import sys, alignment.evaluation; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"flax", "optax", "orbax", "grain", "tensorflow", "tensorflow_datasets", "ml_collections", "matplotlib"}
    assert not heavy & set(loaded)


def test_every_column_is_asked_for_by_some_metric_and_is_in_the_table():
    asked = {a for f in evaluate.available().values() for a in inspect.signature(f).parameters}
    assert set(evaluation_columns.COLUMNS) <= asked
    table = evaluation_columns.__doc__
    for argument in evaluation_columns.COLUMNS:
        if argument not in ("rejected_rewards", "target_attributes"):  # shortened there
            assert f"`{argument}`" in table, argument


def test_the_metrics_that_a_config_can_name():
    assert {
        "win_rate", "win_rate_matrix", "bradley_terry_elo", "length_controlled_elo", "length_controlled_win_rate",
        "reward_bench", "reward_bench_2", "reward_bench_ties", "best_of_n_curve", "judge_calibration", "steerability",
        "objective_mismatch", "turning_point", "factscore", "ifeval",
    } <= set(evaluate.available())  # fmt: skip
