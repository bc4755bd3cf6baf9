"""Records of an evaluation: read from files, given fields by functions and judges, compared with a baseline."""

from __future__ import annotations

import collections
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from alignment import evaluation
from alignment.data import formats
from alignment.data.fields import DataError
from alignment.rewards import claims, pairwise_judges
from alignment.rewards.runner import RewardReport, RewardRunner
from experiments.evaluation_columns import FAILED, Row, label
from experiments.from_config import say

_CALLS = 64  # between two moves of the bar


def read(config: ConfigDict) -> list[Row]:
    """All records, each with a field `model`; DataError with file and line for one that is no object of fields."""
    rows, unnamed = [], {}
    renamed = {theirs: ours for ours, theirs in config.columns.items()}
    for path in config.files:
        stem = Path(path).stem
        before = len(rows)
        for where, record in formats.read_records(path):
            if not isinstance(record, dict):
                raise DataError(f"{where}: a record must be an object of fields")
            found = {renamed.get(key, key): value for key, value in record.items()}
            if "model" not in found:
                if unnamed.setdefault(stem, path) != path:
                    raise DataError(
                        f"{where}: field 'model' is missing, and {unnamed[stem]} has the same name {stem!r}"
                    )
                found["model"] = stem
            if not isinstance(found["model"], str):
                raise DataError(f"{where}: field 'model' must be text, got {found['model']!r}")
            rows.append(Row(where, found))
        if len(rows) == before:
            raise DataError(f"{path}: empty")
    return rows


def need(rows: Sequence[Row], names: Sequence[str], why: str) -> None:
    """DataError for the first record without one of the fields."""
    for row in rows:
        for name in names:
            if row.fields.get(name) is None:
                raise DataError(f"{row.where}: field {name!r} is missing; {why} needs it")
        if not isinstance(row.fields.get("output", ""), str):
            raise DataError(f"{row.where}: field 'output' must be text, got {row.fields['output']!r:.100}")


def call(
    what: str,
    function: str | Callable,
    cases: Sequence[tuple[Any, str, Mapping[str, Any]]],
    config: ConfigDict,
) -> tuple[list[Any], RewardReport]:
    """Values of a function on (prompt, completion, record), FAILED where it failed or was late; a line with the counts.

    ValueError that names the config's key if the function cannot be called at all.
    """
    values, report = [], RewardReport()
    try:
        runner = RewardRunner(function, workers=config.workers, time_limit=config.time_limit)
    except ValueError as error:
        raise ValueError(f"config.{what}: {error}") from None
    with runner, tqdm(total=len(cases), desc=what, unit="call", disable=not sys.stderr.isatty()) as bar:
        for start in range(0, len(cases), _CALLS):
            some = cases[start : start + _CALLS]
            result = runner(*map(list, zip(*some, strict=True)))
            values += [FAILED if f else float(v) for f, v in zip(result.failed, result.by_function[:, 0], strict=True)]
            report += result.report
            bar.update(len(some))
    say(f"{what}: {str(report).removeprefix('rewards: ')}")
    return values, report


def add_functions(rows: Sequence[Row], config: ConfigDict) -> dict[str, RewardReport]:
    """Gives every record the fields of config.functions."""
    reports = {}
    if config.functions:
        need(rows, ("prompt", "output"), "config.functions")
    for name, entry in config.functions.items():
        if set(entry or {}) != {"function"}:
            raise ValueError(
                f"config.functions.{name}: must have the key function and no other, got {dict(entry or {})}"
            )
        if rows and any(name in row.fields for row in rows):
            where = next(row.where for row in rows if name in row.fields)
            raise ValueError(f"config.functions.{name}: {where} already has a field of this name")
    cases = [(row.fields["prompt"], row.fields["output"], dict(row.fields)) for row in rows if config.functions]
    for name, entry in config.functions.items():
        values, reports[f"functions.{name}"] = call(f"functions.{name}", entry["function"], cases, config)
        for row, value in zip(rows, values, strict=True):
            row.fields[name] = value
    return reports


def add_claims(rows: Sequence[Row], config: ConfigDict) -> dict[str, RewardReport]:
    """Gives every record `claims` and `supported`: a list of each, null where the answer abstains.

    A record whose splitter failed or was late is left out of the score, a claim whose verifier did counts as not
    supported; both are counted and shown.
    """
    if not config.claims.split:
        return {}
    need(rows, ("prompt", "output"), "config.claims")
    with tempfile.TemporaryDirectory() as directory:
        files = [Path(directory) / f"{number}.json" for number in range(len(rows))]
        cases = [
            (row.fields["prompt"], row.fields["output"], {**row.fields, claims.FILE: str(file)})
            for row, file in zip(rows, files, strict=True)
        ]
        counts, split = call("claims.split", claims.StoredClaims(config.claims.split), cases, config)
        found = [
            None if count is FAILED else json.loads(file.read_text(encoding="utf-8"))
            for count, file in zip(counts, files, strict=True)
        ]
    cases = [
        (row.fields["prompt"], claim, dict(row.fields))
        for row, of_row in zip(rows, found, strict=True)
        for claim in of_row or ()
    ]
    verdicts, verify = call("claims.verify", config.claims.verify, cases, config) if cases else ([], RewardReport())
    for case, verdict in zip(cases, verdicts, strict=True):
        if verdict is not FAILED and verdict not in (0.0, 1.0):
            raise ValueError(
                f"config.claims.verify: gave {verdict:g} for {case[1]!r}; a verifier must say True or False"
            )
    left = iter(verdicts)
    for row, of_row in zip(rows, found, strict=True):
        row.fields["claims"] = of_row
        row.fields["supported"] = FAILED if of_row is None else [next(left) == 1.0 for _ in of_row] or None
    return {"claims.split": split, "claims.verify": verify}


def comparisons(rows: Sequence[Row], config: ConfigDict) -> tuple[list[Row], dict[str, RewardReport]]:
    """Each record of another model beside the baseline's of the same prompt, with `outcome`; all rows without baseline.

    The baseline's fields come as `baseline_FIELD`. Several records of one prompt are paired in the order of the files.
    DataError for a record whose prompt the baseline has not answered (so often).
    """
    if not config.baseline:
        return list(rows), {}
    models = sorted({row.fields["model"] for row in rows})
    if config.baseline not in models or len(models) < 2:
        raise ValueError(
            f"config.baseline: {config.baseline!r} and others to compare with it; there are: {', '.join(models)}"
        )
    need(rows, ("prompt",), "config.baseline")
    seen: collections.Counter = collections.Counter()
    keys = []
    for row in rows:
        prompt = row.fields["model"], label(row.where, "prompt", row.fields["prompt"])
        keys.append((*prompt, seen[prompt]))
        seen[prompt] += 1
    baseline = {key[1:]: row for key, row in zip(keys, rows, strict=True) if key[0] == config.baseline}
    paired = []
    for key, row in zip(keys, rows, strict=True):
        if key[0] == config.baseline:
            continue
        if key[1:] not in baseline:
            raise DataError(
                f"{row.where}: {config.baseline!r} (config.baseline) has {seen[config.baseline, key[1]]} outputs for "
                f"the prompt {key[1]!r:.80}, {key[0]!r} has more"
            )
        theirs = {f"baseline_{k}": v for k, v in baseline[key[1:]].fields.items()}
        paired.append(Row(row.where, {**theirs, **row.fields, "opponent": config.baseline}))
    if any("outcome" in row.fields or "verdict" in row.fields for row in paired):
        raise ValueError("config.baseline: the records already have a field 'outcome' or 'verdict'; set it to ''")
    reports = _judge(paired, config) if config.compare.judge else _compare(paired, config)
    return paired, reports


def _compare(paired: Sequence[Row], config: ConfigDict) -> dict[str, RewardReport]:
    ours, theirs = config.compare.by, f"baseline_{config.compare.by}"
    for row in paired:
        for field in (ours, theirs):
            value = row.fields.get(field)
            finite = isinstance(value, int | float) and np.isfinite(value)
            if value is not FAILED and (not finite or isinstance(value, bool)):
                raise DataError(f"{row.where}: field {field!r} must be a finite number to compare by, got {value!r}")
        values = row.fields[ours], row.fields[theirs]
        row.fields["outcome"] = (
            FAILED if FAILED in values
            else float(evaluation.outcomes_of_scores([values[0]], [values[1]], tie_within=config.compare.tie_within)[0])
        )  # fmt: skip
    return {}


def _judge(paired: Sequence[Row], config: ConfigDict) -> dict[str, RewardReport]:
    need(paired, ("prompt", "output", "baseline_output"), "config.compare.judge")
    prompts = [row.fields["prompt"] for row in paired]
    sides = [(row.fields["output"], row.fields["baseline_output"]) for row in paired]
    cases = [
        (prompt, output, {**row.fields, "opponent_output": opponent})
        for order in (1, -1)
        for row, prompt, (output, opponent) in zip(paired, prompts, (s[::order] for s in sides), strict=True)
    ]
    values, report = call("compare.judge", config.compare.judge, cases, config)
    for (_, output, _), value in zip(cases, values, strict=True):
        if value is not FAILED and not 0 <= value <= 1:
            raise ValueError(f"config.compare.judge: gave {value:g} for {output!r:.80}; must lie in [0, 1]")
    orders = np.array([0.0 if v is FAILED else v for v in values], np.float32).reshape(2, -1)
    outcomes = np.asarray(pairwise_judges.debiased_preference(*orders))
    for row, outcome, *asked in zip(paired, outcomes, values[: len(paired)], values[len(paired) :], strict=True):
        row.fields["outcome"] = FAILED if FAILED in asked else float(outcome)
    return {"compare.judge": report}


def write(path: Path, rows: Sequence[Row]) -> None:
    """The records with the fields that were made, null where that failed."""
    lines = ({k: None if v is FAILED else v for k, v in row.fields.items()} for row in rows)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
