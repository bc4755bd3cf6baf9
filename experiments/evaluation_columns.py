"""What an evaluation may ask for: the names of its arguments, and the fields of records that they are read from.

| argument                         | field                | what it is                                                 |
|----------------------------------|----------------------|------------------------------------------------------------|
| `models`                         | model                | text; without it the name of the file                      |
| `opponents`                      | opponent             | text: the model on the other side                          |
| `prompts`                        | prompt               | text or messages; without it each record is its own        |
| `outcomes`                       | outcome, or verdict  | 1 won, 1/2, 0; or one of `win_rates.VERDICTS` (A>B ...)    |
| `weights`                        | weight               | above 0; without it 1, and 3 for a verdict A>>B or B>>A    |
| `lengths`, `baseline_lengths`    | length, baseline_... | at least 0; without it the characters of [baseline_]output |
| `difficulties`, `gamed`          | difficulty, gamed    | of `length_controlled_win_rate`; without them 0 and false  |
| `subsets`                        | subset               | text: of RewardBench, or a domain                          |
| `chosen_rewards`, `rejected_...` | chosen_reward, ...   | a number                                                   |
| `scores`                         | scores               | numbers, those of right answers first                      |
| `num_correct`                    | num_correct          | how many of the scores; without it 1                       |
| `ids`                            | id                   | text                                                       |
| `proxy_rewards`, `gold_rewards`  | the same             | numbers, as many in every record: a pool of samples        |
| `confidences`, `correct`         | confidence, correct  | in [0, 1]; true or false                                   |
| `similarities`, `labels`         | similarity, label    | in [0, 1]; true or false                                   |
| `source_attributes`, `target_..` | the same             | numbers, as many in every record; of the target also null  |
|  and `output_attributes`         |                      |                                                            |
| `supported`                      | supported            | true or false per claim; null: abstained. Or config.claims |
| `followed`, `followed_loosely`   | the same             | true or false each; or instruction_id_list and kwargs      |
| `proxies`, `golds`, `kls`        | proxy, gold, kl      | a number                                                   |
| `runs`                           | run                  | text or number; without it each record is its own          |

A field that has an "or" or a "without" may be missing, but then in every record.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from alignment import evaluation
from alignment.data import fields
from alignment.data.fields import DataError
from alignment.rewards import instructions

FAILED = object()
"""Stands in a record for what a function or judge could not give."""


class Row(NamedTuple):
    where: str  # file and line
    fields: dict[str, Any]


class Column(NamedTuple):
    field: str
    read: Callable[[str, str, Any], Any]  # (where, field, value) -> checked value; DataError otherwise
    otherwise: Callable[[Row], Any] | None = None  # where the field is missing; it may give MISSING
    vector: bool = False  # lists that all have the same length


MISSING = object()


# --- how a value is read


def number(where: str, field: str, value: Any) -> float:
    return fields.number(where, field, value, required=True)


def share(where: str, field: str, value: Any) -> float:
    if not 0 <= (value := number(where, field, float(value) if isinstance(value, bool) else value)) <= 1:
        raise DataError(f"{where}: field {field!r} must lie in [0, 1], got {value:g}")
    return value


def positive(where: str, field: str, value: Any) -> float:
    if not (value := number(where, field, value)) > 0:
        raise DataError(f"{where}: field {field!r} must lie in (0, inf), got {value:g}")
    return value


def length(where: str, field: str, value: Any) -> float:
    if not (value := number(where, field, value)) >= 0:
        raise DataError(f"{where}: field {field!r} must be at least 0, got {value:g}")
    return value


def count(where: str, field: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise DataError(f"{where}: field {field!r} must be a whole number of at least 1, got {value!r}")
    return value


def flag(where: str, field: str, value: Any) -> bool:
    if (found := fields.flag(where, {field: value}, field)) is None:
        raise DataError(f"{where}: field {field!r} must be true or false, got nothing")
    return found


def label(where: str, field: str, value: Any) -> str:
    """Text, or anything that JSON can hold, as one text: messages, a number."""
    if value is None:
        raise DataError(f"{where}: field {field!r} is null")
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def list_of(read: Callable[[str, str, Any], Any]) -> Callable[[str, str, Any], list]:
    def each(where: str, field: str, value: Any) -> list:
        if not isinstance(value, list | tuple) or not value:
            raise DataError(f"{where}: field {field!r} must be a list with entries, got {fields.kind_of(value)}")
        return [read(where, f"{field}[{i}]", one) for i, one in enumerate(value)]

    return each


def number_or_null(where: str, field: str, value: Any) -> float:
    return math.nan if value is None else number(where, field, value)


def claims(where: str, field: str, value: Any) -> list[bool] | None:
    return None if value is None or value == [] else list_of(flag)(where, field, value)


# --- what stands in where a field is missing


def _of_verdict(function: Callable[[str], float]) -> Callable[[Row], Any]:
    def otherwise(row: Row) -> Any:
        if (verdict := row.fields.get("verdict")) is None:
            return MISSING
        try:
            return function(verdict)
        except ValueError as error:
            raise DataError(f"{row.where}: field 'verdict': {error}") from None

    return otherwise


def _weight(row: Row) -> Any:
    found = _of_verdict(evaluation.verdict_weight)(row)
    return 1.0 if found is MISSING else found


def _characters(field: str) -> Callable[[Row], Any]:
    def otherwise(row: Row) -> Any:
        text = row.fields.get(field)
        return len(text) if isinstance(text, str) else MISSING

    return otherwise


def _instructions(function: Callable[[str, Mapping], list[bool]]) -> Callable[[Row], Any]:
    def otherwise(row: Row) -> Any:
        if not {"output", "instruction_id_list", "kwargs"} <= set(row.fields):
            return MISSING
        try:
            return function(row.fields["output"], row.fields)
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{row.where}: fields 'instruction_id_list' and 'kwargs': {error}") from None

    return otherwise


def _where(row: Row) -> str:
    return row.where


COLUMNS: dict[str, Column] = {
    "models": Column("model", label),
    "opponents": Column("opponent", label),
    "prompts": Column("prompt", label, _where),
    "outcomes": Column("outcome", share, _of_verdict(evaluation.outcome_of_verdict)),
    "weights": Column("weight", positive, _weight),
    "lengths": Column("length", length, _characters("output")),
    "baseline_lengths": Column("baseline_length", length, _characters("baseline_output")),
    "difficulties": Column("difficulty", number, lambda row: 0.0),
    "gamed": Column("gamed", flag, lambda row: False),
    "subsets": Column("subset", label),
    "chosen_rewards": Column("chosen_reward", number),
    "rejected_rewards": Column("rejected_reward", number),
    "scores": Column("scores", list_of(number)),
    "num_correct": Column("num_correct", count, lambda row: 1),
    "ids": Column("id", label),
    "proxy_rewards": Column("proxy_rewards", list_of(number), vector=True),
    "gold_rewards": Column("gold_rewards", list_of(number), vector=True),
    "confidences": Column("confidence", share),
    "correct": Column("correct", flag),
    "similarities": Column("similarity", share),
    "labels": Column("label", flag),
    "source_attributes": Column("source_attributes", list_of(number), vector=True),
    "target_attributes": Column("target_attributes", list_of(number_or_null), vector=True),
    "output_attributes": Column("output_attributes", list_of(number), vector=True),
    "supported": Column("supported", claims),
    "followed": Column("followed", list_of(flag), _instructions(instructions.followed)),
    "followed_loosely": Column("followed_loosely", list_of(flag), _instructions(instructions.followed_loosely)),
    "proxies": Column("proxy", number),
    "golds": Column("gold", number),
    "kls": Column("kl", number),
    "runs": Column("run", label, _where),
}

OF_COMPARISONS = {"opponents", "outcomes", "baseline_lengths"}


def check(argument: str, field: str, rows: Sequence[Row], made: set[str]) -> None:
    """DataError, before any function is called, for a record that will not have what an argument is read from."""
    column = COLUMNS[argument]
    if field in made:
        return
    have = [row for row in rows if field in row.fields]
    if column.otherwise is not None and not have:
        have = [row for row in rows if column.otherwise(row) is not MISSING]
    if len(have) < len(rows):
        known = {id(row) for row in have}
        row = next(row for row in rows if id(row) not in known)
        some = f" ({len(have)} of {len(rows)} records have it)" if have else ""
        has = ", ".join(map(str, row.fields)) or "nothing"
        raise DataError(f"{row.where}: field {field!r} is missing{some}; the record has: {has}")


def gather(arguments: Mapping[str, str], rows: Sequence[Row]) -> tuple[dict[str, Any], list[Row]]:
    """The columns of the arguments {argument: field} and the rows that they are of.

    Rows with a field that a function failed to give are left out.
    """
    kept = [row for row in rows if not any(row.fields.get(field) is FAILED for field in arguments.values())]
    columns: dict[str, Any] = {}
    sizes: tuple[str, int] | None = None
    for argument, field in arguments.items():
        column, values = COLUMNS[argument], []
        for row in kept:
            present = field in row.fields
            values.append(column.read(row.where, field, row.fields[field]) if present else column.otherwise(row))
            if column.vector:
                sizes = sizes or (f"{row.where}: field {field!r}", len(values[-1]))
                if len(values[-1]) != sizes[1]:
                    raise DataError(
                        f"{row.where}: field {field!r} has {len(values[-1])} numbers, but {sizes[0]} has {sizes[1]}"
                    )
        columns[argument] = np.array(values, np.float64).reshape(len(values), -1) if column.vector else values
    return columns, kept
