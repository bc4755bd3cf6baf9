"""METHODS.md says what is true: ids of the catalogue, paths that exist, kernels that resolve, none left out."""

import inspect
import pkgutil
import re
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from alignment import analysis, evaluation, games, losses, multi_objective, policy_gradients

ROOT = Path(__file__).resolve().parents[1]
IDS = ROOT / "tests" / "catalogue_ids.txt"
CATALOGUE = ROOT.parent / "shared" / "catalogue"
NOT_OF_A_METHOD = {"configs/__init__.py", "configs/common.py", "configs/online.py"}
NOT_OF_A_METHOD |= {"configs/diffusion.py", "configs/evolution.py", "configs/flow.py", "configs/generate.py"}
HEADER = ["id", "paper", "kernels", "config", "tests", "notebook"]


class Method(NamedTuple):
    id: str
    paper: str
    kernels: list[str]
    configs: list[str]
    tests: list[str]
    notebooks: list[str]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def parse(text: str) -> list[Method]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert cells(lines[0]) == HEADER
    rows = [cells(line) for line in lines[2:]]
    assert all(len(row) == len(HEADER) for row in rows), "a row of METHODS.md has a cell too many or too few"
    return [Method(quoted(row[0])[0], row[1], *map(quoted, row[2:])) for row in rows]


METHODS = parse((ROOT / "METHODS.md").read_text(encoding="utf-8"))
each = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.id)


def test_each_id_stands_once():
    ids = [m.id for m in METHODS]
    assert ids
    assert sorted(ids) == sorted(set(ids))


@each
def test_the_id_is_in_the_catalogue(method):
    assert method.id in IDS.read_text().split()


@pytest.mark.skipif(not CATALOGUE.is_dir(), reason="a clone without the catalogue: the committed list stands for it")
def test_the_committed_ids_are_those_of_the_catalogue():
    entries = [e for p in sorted(CATALOGUE.glob("*.yaml")) for e in yaml.safe_load(p.read_text(encoding="utf-8"))]
    assert IDS.read_text().split() == sorted({e["id"] for e in entries}), f"write the catalogue's ids to {IDS}"


@each
def test_kernels_resolve(method):
    assert method.kernels
    for kernel in method.kernels:
        assert pkgutil.resolve_name(kernel).__doc__, kernel


@each
def test_paths_exist(method):
    # An analysis explains other methods and trains nothing of its own; solvers of games and arithmetic on results or on
    # a judge's verdicts neither.
    own = ("alignment.analysis.", "alignment.evaluation.", "alignment.games.", "alignment.rewards.pairwise_judges.")
    analysis = all(kernel.startswith(own) for kernel in method.kernels)
    assert method.configs or analysis, "a method needs a config"
    assert method.tests, "a method needs a test"
    missing = [p for p in (*method.configs, *method.tests, *method.notebooks) if not (ROOT / p).is_file()]
    assert not missing


def test_every_public_kernel_belongs_to_a_method():
    named = {kernel for m in METHODS for kernel in m.kernels}
    for package in (evaluation, losses, multi_objective, policy_gradients):
        assert not {f"{package.__name__}.{name}" for name in package.__all__} - named
    # The pairs of results that the functions return are no kernels.
    for package in (analysis, games):
        functions = {name for name in package.__all__ if inspect.isfunction(getattr(package, name))}
        assert not {f"{package.__name__}.{name}" for name in functions} - named


def test_every_config_belongs_to_a_method():
    named = {config for m in METHODS for config in m.configs}
    here = {f"configs/{p.name}" for p in (ROOT / "configs").glob("*.py")} - NOT_OF_A_METHOD
    assert not here - named
