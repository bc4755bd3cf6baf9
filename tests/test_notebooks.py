"""Notebooks are executed ones, each has its figure in experiments/reproductions, and both give today what they show."""

import csv
import math
import re
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest

from experiments import figures

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = {p.stem: p for p in sorted((ROOT / "notebooks").glob("*.ipynb"))}
QUICK = [name for name in figures.NAMES if figures.module(name).SMALL is None]
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def printed(notebook) -> str:
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert not [o for o in outputs if o.output_type == "error"]
    return "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")


def test_every_figure_has_its_notebook_and_every_notebook_its_figure():
    assert tuple(NOTEBOOKS) == figures.NAMES


def test_the_table_gives_every_notebook_one_of_three_verdicts():
    text = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    verdicts = dict(re.findall(r"^\| \[`?\w+`?\]\((\w+)\.ipynb\) \|.*\| \*\*([\w ]+)\*\*", text, re.MULTILINE))
    assert set(verdicts) == set(NOTEBOOKS)
    assert set(verdicts.values()) <= {"shows", "shows in part", "does not show at this scale"}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_is_executed_in_order_with_a_claim_first_and_a_figure(name):
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    assert notebook.cells[0].cell_type == "markdown" and "**Claim" in notebook.cells[0].source
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert any("image/png" in o.get("data", {}) for o in outputs)
    assert printed(notebook)


@pytest.mark.parametrize("name", QUICK)
def test_a_quick_one_prints_today_what_it_shows(name, monkeypatch):
    """Words as they stand, numbers within what another processor's rounding can change in the second digit."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XLA_FLAGS", "")  # compiled for the reader, not for the tests
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    shown = printed(notebook)
    resources = {"metadata": {"path": str(ROOT)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    assert NUMBER.sub("#", printed(notebook)) == NUMBER.sub("#", shown)
    today, before = ([float(x) for x in NUMBER.findall(text)] for text in (printed(notebook), shown))
    np.testing.assert_allclose(today, before, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("name", [name for name in figures.NAMES if name not in QUICK])
def test_a_slow_one_runs_on_a_small_budget_and_writes_its_figure_and_numbers(name, tmp_path):
    *tables, png = figures.write(name, tmp_path, small=True)
    assert png.stat().st_size > 5_000 and tables
    for path in tables:
        rows = list(csv.DictReader(path.open()))
        assert rows
        for row in rows:
            assert all(not NUMBER.fullmatch(value) or math.isfinite(float(value)) for value in row.values()), row
            assert not {"nan", "inf", "-inf"} & set(row.values()), row


def test_a_figure_that_does_not_exist_is_named_with_those_that_do():
    with pytest.raises(ValueError, match=r"no_such_figure: no such figure; there are .*gradient_weights"):
        figures.module("no_such_figure")
