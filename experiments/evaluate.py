"""Evaluates what models have written: JSONL files in, a table, metrics.jsonl and a figure out.

    python -m experiments.evaluate --config=configs/evaluate.py --workdir=DIR [--config.baseline=NAME ...]

A line of a file is one output (`model`, `prompt`, `output` and what the metrics need: `reward`, `confidence`, ...), one
finished comparison (`model`, `opponent`, `outcome` or `verdict`), or one row of any table. Metrics are functions of
`alignment.evaluation`, named in the config; the names of a metric's arguments say which fields it reads
(`experiments.evaluation_columns` lists them). A metric that asks for `models` gets all records at once, any other one
is computed for each model. Fields may also be made here: by functions and judges (`config.functions`), from claims
(`config.claims`), or by comparing every model with `config.baseline`.

A call that fails or is late is counted and shown; records that lack a field for that reason are left out of the metrics
that ask for it, and `left_out` says how many. WORKDIR receives metrics.jsonl, table.md, figure.png, and, where fields
were made, records.jsonl and comparisons.jsonl.
"""

from __future__ import annotations

import difflib
import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from alignment import evaluation, statistics
from alignment.data.fields import DataError
from alignment.rewards.runner import RewardReport
from configs import common
from configs import evaluate as evaluate_config
from experiments import command, evaluation_columns, evaluation_figures, evaluation_records
from experiments.evaluation_columns import COLUMNS, OF_COMPARISONS, Row
from experiments.evaluation_figures import Finding
from experiments.from_config import say


class Metric(NamedTuple):
    """An entry of config.metrics, bound."""

    entry: str
    function: Callable[..., Any]
    fields: Mapping[str, str]  # which field each argument is read from
    hyperparameters: Mapping[str, Any]

    @property
    def of_comparisons(self) -> bool:
        return not OF_COMPARISONS.isdisjoint(self.fields)


def available() -> dict[str, Callable[..., Any]]:
    """The functions of alignment.evaluation all of whose arguments are columns."""
    functions = {name: getattr(evaluation, name) for name in evaluation.__all__}
    return {n: f for n, f in functions.items() if all(a in COLUMNS for a in statistics.arguments_of(f))}


def bind(config: ConfigDict) -> list[Metric]:
    """The metrics of a config; ValueError that names the key for what does not exist or is missing."""
    metrics, functions = [], available()
    for entry, settings in config.metrics.to_dict().items():
        settings = dict(settings or {})
        where = f"config.metrics.{entry}"
        name, columns = settings.pop("metric", entry), settings.pop("columns", {})
        if name not in functions:
            near = difflib.get_close_matches(name, functions, n=3, cutoff=0.4) or sorted(functions)
            raise ValueError(f"{where}: no metric {name!r}; nearest: {', '.join(near)}")
        arguments = statistics.arguments_of(functions[name])
        hyperparameters = statistics.hyperparameters_of(functions[name])
        if unknown := [k for k in settings if k not in hyperparameters]:
            allowed = ", ".join(["metric", "columns", *hyperparameters])
            raise ValueError(f"{where}.{unknown[0]}: unknown key; allowed: {allowed}")
        if missing := [k for k, v in hyperparameters.items() if v is inspect.Parameter.empty and k not in settings]:
            raise ValueError(f"{where}.{missing[0]}: required hyperparameter is not set")
        if unknown := [k for k in columns if k not in arguments]:
            raise ValueError(
                f"{where}.columns.{unknown[0]}: {name} has no argument of that name; it has {', '.join(arguments)}"
            )
        fields = {argument: columns.get(argument, COLUMNS[argument].field) for argument in arguments}
        metrics.append(Metric(entry, functions[name], MappingProxyType(fields), settings))
    return metrics


def compute(metric: Metric, rows: Sequence[Row]) -> list[Finding]:
    """The metric of all records at once if it asks for `models`, of each model's otherwise."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault("" if "models" in metric.fields else row.fields["model"], []).append(row)
    findings = []
    for model, of_model in groups.items():
        columns, kept = evaluation_columns.gather(metric.fields, of_model)
        where = f"config.metrics.{metric.entry}" + (f" ({model})" if model else "")
        if not kept:
            raise DataError(f"{where}: no record is left; a function or judge failed for each of the {len(of_model)}")
        try:
            result = metric.function(*columns.values(), **metric.hyperparameters)
        except (ValueError, AssertionError, TypeError) as error:
            renamed = [f"{a} is the field {f!r}" for a, f in metric.fields.items() if f != COLUMNS[a].field]
            raise ValueError(f"{where}: {'; '.join([str(error), *renamed])}") from error
        findings.append(Finding(metric.entry, model, columns, result, len(of_model) - len(kept)))
    return findings


# --- what is written


def lines_of(finding: Finding) -> list[dict[str, Any]]:
    """One line for a result of single numbers, one per entry for a result of columns."""
    result = finding.result
    values = result._asdict() if hasattr(result, "_asdict") else {"value": result}
    head = {"metric": finding.entry} | ({"model": finding.model} if finding.model else {})
    columns = {k: v for k, v in values.items() if isinstance(v, list | np.ndarray)}
    if not columns:
        numbers: dict[str, Any] = {}
        for key, value in values.items():
            numbers |= value if isinstance(value, dict) else {key: value}
        return [{**head, **numbers, "left_out": finding.left_out}]
    lines = []
    for i in range(len(next(iter(columns.values())))):
        line: dict[str, Any] = {}
        for key, column in columns.items():
            # A row of a matrix: against each of the others.
            line |= dict(zip(columns["model"], column[i], strict=True)) if np.ndim(column) == 2 else {key: column[i]}
        lines.append({**head, **line, "left_out": finding.left_out})
    return lines


def as_json(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_text(value: Any) -> str:
    value = value.item() if isinstance(value, np.generic) else value
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of the lines of one metric, its columns aligned; left_out only where something was."""
    names = [k for k in lines[0] if k != "metric" and (k != "left_out" or any(line[k] for line in lines))]
    cells = [names, *([as_text(line[k]) for k in names] for line in lines)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    rows = [f"| {' | '.join(c.ljust(w) for c, w in zip(row, widths, strict=True))} |" for row in cells]
    return "\n".join([rows[0], f"|{'|'.join('-' * (w + 2) for w in widths)}|", *rows[1:]])


def calls_of(name: str, report: RewardReport) -> dict[str, Any]:
    return {"calls_of": name, "calls": report.calls, "failed": report.failed, **report.counts}


def run(config: ConfigDict, workdir: Path) -> dict[str, list[dict[str, Any]]]:
    """One evaluation; returns the lines of each metric."""
    common.check_keys(config, evaluate_config.base(), free=evaluate_config.FREE)
    evaluate_config.check_numbers(config)
    metrics = bind(config)
    command.check_writable(workdir)

    # --- records, and whether they have what is asked for
    rows = evaluation_records.read(config)
    models = list(dict.fromkeys(row.fields["model"] for row in rows))
    say(f"{len(rows)} records of {', '.join(models[:10])}{' ...' if len(models) > 10 else ''}")
    made = {*config.functions, *(("claims", "supported") if config.claims.split else ())}
    of_pairs = {"opponent", "outcome", *(f"baseline_{name}" for name in made)} if config.baseline else set()
    for metric in metrics:
        for argument, field in metric.fields.items():
            if not (config.baseline and metric.of_comparisons and field.startswith("baseline_")):
                evaluation_columns.check(argument, field, rows, made | of_pairs)

    # --- fields that functions, judges and comparisons give
    reports = evaluation_records.add_functions(rows, config)
    reports |= evaluation_records.add_claims(rows, config)
    pairs: Sequence[Row] = rows
    if not config.baseline or any(metric.of_comparisons for metric in metrics):
        pairs, judged = evaluation_records.comparisons(rows, config)
        reports |= judged
    if made:
        evaluation_records.write(workdir / "records.jsonl", rows)
    if pairs is not rows and config.baseline:
        evaluation_records.write(workdir / "comparisons.jsonl", pairs)

    # --- metrics
    findings = []
    for metric in metrics:
        of_metric = pairs if metric.of_comparisons else rows
        for argument, field in metric.fields.items():
            evaluation_columns.check(argument, field, of_metric, set())
        findings += compute(metric, of_metric)

    # --- table, metrics.jsonl, figure
    lines = {
        metric.entry: [one for f in findings if f.entry == metric.entry for one in lines_of(f)] for metric in metrics
    }
    written = [calls_of(*pair) for pair in reports.items()]
    written += [{k: as_json(v) for k, v in line.items()} for of_metric in lines.values() for line in of_metric]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written), encoding="utf-8")
    text = "\n\n".join(f"{entry}\n\n{table(of_metric)}" for entry, of_metric in lines.items())
    (workdir / "table.md").write_text(text + "\n", encoding="utf-8")
    evaluation_figures.draw(findings, workdir / "figure.png")
    say(f"\n{text}\n")
    for name in ("metrics.jsonl", "table.md", "figure.png"):
        say(f"  {name.partition('.')[0]:8} {workdir / name}")
    return lines


if __name__ == "__main__":
    command.start(run)
