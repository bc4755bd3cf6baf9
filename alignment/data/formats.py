"""Records from JSONL, Parquet and TFDS as checked, immutable examples.

A record is a dict; its kind says which fields it has (text fields may also be lists of chat messages):

| kind         | fields                                                                     | example      |
|--------------|----------------------------------------------------------------------------|--------------|
| `completion` | prompt, completion, [weight]                                               | `Completion` |
| `chat`       | messages (the last one, by the assistant, is the completion), [weight];    | `Completion` |
|              | or prompt, chosen, rejected as message lists                               | `Pair`       |
| `pairs`      | prompt, chosen, rejected, [margin], [preference_proportion],               | `Pair`       |
|              | [annotator_id], [tie] (true: neither was preferred), [weight],             |              |
|              | [objective_id], [chosen_harmful] and [rejected_harmful] (true or false),   |              |
|              | [chosen_margin_rewards] and [rejected_margin_rewards] (lists of numbers)   |              |
| `lists`      | prompt, responses, labels (higher is better), [weight]                     | `Ranking`    |
| `unpaired`   | prompt, completion, label (true or 1: wanted), [weight]                    | `Unpaired`   |
| `triples`    | prompt, gold (the target answer), chosen, rejected, [weight]               | `Triple`     |
| `ratings`    | prompt, completion, ratings (a list, null where one is missing), [reward],  | `Rated`      |
|              | [weight]                                                                   |              |
| `steps`      | prompt (text), steps (texts), labels (in [0, 1], one per step), [correct], | `Steps`      |
|              | [weight]                                                                   |              |
| `segments`   | prompt, segments, [rewards], [trained], [ended]: see `alignment.data.segmented` | `Segments` |
| `sampled_pairs` | prompt, chosen, rejected, samples (two or more unlabelled completions), | `SampledPair`|
|              | [weight]                                                                   |              |
| `unlearning` | prompt, forget (its answer), retain_prompt, retain (texts), [chosen] (another | `ForgetRetain`|
|              | answer to prompt, such as a refusal), [weight]                              |              |
| `hierarchy`, | messages with roles, which bind more or less: see `alignment.data.hierarchy` | `Hierarchy` |
| `hierarchy_pairs` |                                                                      |              |
| `prompts`    | prompt, and whatever a reward reads (answer, target ...)                   | `Query`      |

In pairs of message lists, chosen and rejected hold the whole conversation, or the answer alone (then `prompt` gives the
conversation, as messages or as the text of one user turn). Whatever is wrong with a record raises `DataError` with the
file and line (JSONL) or the record number from 1 (Parquet, TFDS), the field, and what is allowed there.
"""

import dataclasses
import glob
import json
import logging
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from alignment.data import fields, hierarchy, segmented
from alignment.data.fields import DataError, InvalidRecord, Prompt
from alignment.data.fields import Message as Message  # part of what this module offers
from alignment.data.hierarchy import Hierarchy
from alignment.data.segmented import Segments

KINDS = ("completion", "chat", "pairs", "lists", "unpaired", "triples", "ratings", "steps", "segments")
KINDS += ("sampled_pairs", "unlearning", *hierarchy.KINDS, "prompts")


@dataclasses.dataclass(frozen=True)
class Completion:
    """A prompt and the text to learn. `where` is the place in the source, for error messages; it is not compared."""

    prompt: Prompt
    completion: str
    weight: float | None = None
    where: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True)
class Pair:
    """A preference. `margin` is its strength as the data set gives it, in its own unit; `preference_proportion` is the
    share of raters who chose `chosen`, strictly between 0 and 1."""

    prompt: Prompt
    chosen: str
    rejected: str
    margin: float | None = None
    annotator_id: int | None = None
    weight: float | None = None
    preference_proportion: float | None = None
    tie: bool | None = None
    objective_id: int | None = None  # which objective the label is about
    chosen_margin_rewards: tuple[float, ...] | None = None  # under each other objective; likewise of the rejected one
    rejected_margin_rewards: tuple[float, ...] | None = None
    chosen_harmful: bool | None = None  # by itself; likewise of the rejected one
    rejected_harmful: bool | None = None
    where: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Responses to one prompt, best first by label (ties stay in the order of the source)."""

    prompt: Prompt
    responses: tuple[str, ...]
    labels: tuple[float, ...]
    weight: float | None = None
    where: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True)
class Unpaired:
    """A completion with a verdict of its own: wanted or not."""

    prompt: Prompt
    completion: str
    desirable: bool
    weight: float | None = None
    where: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True)
class Triple:
    """A preference and, beside it, the answer to imitate. `gold` may be the chosen answer but not the rejected one."""

    prompt: Prompt
    gold: str
    chosen: str
    rejected: str
    weight: float | None = None
    where: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True)
class Rated:
    """A completion and its rating by each of K attributes, None where there is none; `reward` is of another model."""

    prompt: Prompt
    completion: str
    ratings: tuple[float | None, ...]
    reward: float | None = None
    weight: float | None = None
    where: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True)
class Steps:
    """A solution in steps and whether each is right, 0 to 1; `correct` says whether its outcome is."""

    prompt: str
    steps: tuple[str, ...]
    labels: tuple[float, ...]
    correct: bool | None = None
    weight: float | None = None
    where: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True)
class SampledPair:
    """A preference and, beside it, completions of another policy that nobody has labelled."""

    prompt: Prompt
    chosen: str
    rejected: str
    samples: tuple[str, ...]
    weight: float | None = None
    where: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True)
class ForgetRetain:
    """An answer to forget and, to another prompt, one to keep; `chosen` is what to answer instead of the forgotten."""

    prompt: str
    forget: str
    retain_prompt: str
    retain: str
    chosen: str | None = None
    weight: float | None = None
    where: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True)
class Query:
    """A prompt to sample completions for; `record` holds its other fields, for the reward (null fields are absent)."""

    prompt: Prompt
    record: Mapping[str, Any]
    where: str = dataclasses.field(default="", compare=False)


Example = Completion | Pair | Ranking | Unpaired | Triple | Rated | Steps | Segments | SampledPair | ForgetRetain
Example |= Hierarchy | Query


def read(
    source: str | os.PathLike,
    kind: str,
    *,
    split: str = "train",
    data_dir: str | os.PathLike | None = None,
    columns: Mapping[str, str] | None = None,
    on_invalid: str = "error",
) -> list[Example]:
    """Reads all examples of a source, in its order.

    Args:
      source: `*.jsonl` or `*.parquet` (a pattern with `*` reads the sorted matches), a prepared TFDS directory, or
        `tfds:NAME`.
      kind: one of `KINDS`.
      split: the TFDS split (`train[:10%]` works); files have no splits and ignore it.
      data_dir: where TFDS looks up `tfds:NAME`.
      columns: field -> its name in the source, e.g. `{"prompt": "question"}`.
      on_invalid: "error" stops at the first unusable record; "drop" leaves them out and logs how many and the first
        reason. A source that cannot be read (JSON, Parquet) stops in either case.
    """
    records = read_records(source, split=split, data_dir=data_dir)
    return _examples(records, kind, str(source), columns, on_invalid)


def from_records(records: Iterable[Mapping[str, Any]], kind: str, name: str = "records") -> list[Example]:
    """Examples of records that are already in memory; errors say `name:NUMBER`, counted from 1."""
    return _examples(((f"{name}:{i}", r) for i, r in enumerate(records, 1)), kind, name, None, "error")


def read_records(
    source: str | os.PathLike, *, split: str = "train", data_dir: str | os.PathLike | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (place, record) as plain Python values, without any check of the fields."""
    name = os.fspath(source)
    if name.startswith("tfds:"):
        yield from _tfds_records(name, split, data_dir)
        return
    paths = sorted(glob.glob(name)) if glob.has_magic(name) and not os.path.exists(name) else [name]
    if not paths:
        raise DataError(f"{name}: no file matches this pattern")
    for path in paths:
        suffix = pathlib.Path(path).suffix
        if os.path.isdir(path):
            yield from _tfds_records(path, split, data_dir)
        elif not os.path.exists(path):
            raise DataError(
                f"{path}: no such file or directory; allowed: *.jsonl, *.parquet, a TFDS directory, tfds:NAME"
            )
        elif suffix == ".jsonl":
            yield from _jsonl_records(path)
        elif suffix == ".parquet":
            yield from _parquet_records(path)
        else:
            raise DataError(
                f"{path}: unknown file type {suffix!r}; allowed: .jsonl, .parquet, a TFDS directory, tfds:NAME"
            )


# Sources -------------------------------------------------------------------------------------------------------------


def _jsonl_records(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    # Bytes are split at \n only: text mode would also be right, but str.splitlines would cut at U+2028 inside a string.
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}:{number}"
            if not line.strip():
                continue
            try:
                record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                raise DataError(f"{where}: not UTF-8 ({error.reason} at byte {error.start} of the line)") from error
            except json.JSONDecodeError as error:
                raise DataError(f"{where}: invalid JSON at column {error.colno}: {error.msg}") from error
            yield where, record


def _parquet_records(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"{path}: reading Parquet needs pyarrow: pip install alignment[parquet]") from error
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path}:record {number}", record
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: cannot be read as Parquet after record {number}: {error}") from error


def _tfds_records(name: str, split: str, data_dir: str | os.PathLike | None) -> Iterator[tuple[str, dict[str, Any]]]:
    import tensorflow_datasets as tfds  # Half a second, and not needed for files.

    directory = not name.startswith("tfds:")
    try:
        if directory:
            builder = tfds.builder_from_directory(name)
        else:
            # From the files alone: the builder's own code may be absent, or may want arguments. Nothing is downloaded.
            builder = tfds.core.read_only_builder.builder_from_files(
                name.removeprefix("tfds:"), **({} if data_dir is None else {"data_dir": os.fspath(data_dir)})
            )
        rows = builder.as_data_source(split=split)
    except Exception as error:  # TFDS raises many types here; each means that the name, directory or split is wrong.
        what = "directory" if directory else "data set"
        raise DataError(f"{name}: not a prepared TFDS {what} with split {split!r}, in array_record: {error}") from error
    for number, row in enumerate(rows, 1):
        where = f"{name}[{split}]:record {number}"
        try:
            record = _plain(row)
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not UTF-8 ({error.reason} at byte {error.start} of a field)") from error
        yield where, record


def _plain(value: Any) -> Any:
    """TFDS values (bytes, arrays, numpy scalars) as what JSON would have given."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


# Checks --------------------------------------------------------------------------------------------------------------


def _examples(
    records: Iterable[tuple[str, Any]],
    kind: str,
    source: str,
    columns: Mapping[str, str] | None,
    on_invalid: str,
) -> list[Example]:
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is not one of {', '.join(KINDS)}")
    if on_invalid not in ("error", "drop"):
        raise ValueError(f"on_invalid={on_invalid!r} is not one of error, drop")
    parse = {"completion": _completion, "chat": _chat, "pairs": _pair, "lists": _ranking, "unpaired": _unpaired,
             "triples": _triple, "ratings": _rated, "steps": _steps, "segments": segmented.parse,
             "sampled_pairs": _sampled_pair, "unlearning": _forget_retain, "hierarchy": hierarchy.parse,
             "hierarchy_pairs": hierarchy.parse_pair, "prompts": _query}[kind]  # fmt: skip
    examples, reasons = [], []
    for where, record in records:
        try:
            if not isinstance(record, Mapping):
                raise InvalidRecord(f"{where}: a record must be an object of fields, got {fields.kind_of(record)}")
            if columns:
                # The renamed column takes the field's name, whatever else had that name.
                record = {**record, **{f: record[c] for f, c in columns.items() if c in record}}
            examples.append(parse(where, record))
        except InvalidRecord as error:
            if on_invalid == "error":
                raise
            reasons.append(str(error))
    if reasons:
        logging.getLogger(__name__).warning(
            "%s: dropped %d of %d records; the first: %s",
            source,
            len(reasons),
            len(reasons) + len(examples),
            reasons[0],
        )
    if not examples:
        raise DataError(f"{source}: empty: no {'usable ' if reasons else ''}record of kind {kind!r}")
    return examples


def _completion(where: str, record: Mapping[str, Any]) -> Completion:
    prompt = fields.prompt(where, record)
    prompt, (completion,) = fields.answers(where, record, prompt, ("completion",))
    return Completion(prompt, completion, weight=fields.weight(where, record), where=where)


def _chat(where: str, record: Mapping[str, Any]) -> Completion | Pair:
    if record.get("messages") is None:
        if record.get("chosen") is not None or record.get("rejected") is not None:
            for field in ("chosen", "rejected"):
                if isinstance(record.get(field), str):
                    raise InvalidRecord(
                        f"{where}: field {field!r} must be a list of messages in a chat record, got text"
                    )
            return _pair(where, record)
        raise InvalidRecord(
            f"{where}: field 'messages' is missing; a chat record has messages, or prompt, chosen, rejected"
        )
    messages = fields.messages(where, "messages", record["messages"])
    return Completion(*fields.split(where, "messages", messages), weight=fields.weight(where, record), where=where)


def _pair(where: str, record: Mapping[str, Any]) -> Pair:
    prompt = fields.prompt(where, record)
    prompt, (chosen, rejected) = fields.answers(where, record, prompt, ("chosen", "rejected"))
    if chosen == rejected:
        raise InvalidRecord(f"{where}: fields 'chosen' and 'rejected' are equal; the two sides of a pair must differ")
    margin = fields.number(where, "margin", record.get("margin"))
    return Pair(
        prompt,
        chosen,
        rejected,
        margin=margin,
        annotator_id=_identity(where, "annotator_id", record),
        weight=fields.weight(where, record),
        preference_proportion=fields.proportion(where, record),
        tie=fields.flag(where, record, "tie"),
        objective_id=_identity(where, "objective_id", record),
        where=where,
        **_both_sides(where, record),
    )


def _identity(where: str, field: str, record: Mapping[str, Any]) -> int | None:
    value = record.get(field)
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if value is not None and not (is_integer and 0 <= value < 2**31):
        raise InvalidRecord(f"{where}: field {field!r} must be an integer in [0, 2**31), got {value!r}")
    return value


def _both_sides(where: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """What a pair may say of each of its two answers; of both or of neither."""
    out: dict[str, Any] = {}
    for name in ("margin_rewards", "harmful"):
        names = [f"{side}_{name}" for side in ("chosen", "rejected")]
        values = [record.get(field) for field in names]
        if values == [None, None]:
            continue
        for field, value in zip(names, values, strict=True):
            if name == "harmful":
                if not isinstance(value, bool):
                    raise InvalidRecord(f"{where}: field {field!r} must be true or false, got {value!r}")
                out[field] = value
                continue
            if not isinstance(value, Sequence) or isinstance(value, str) or not value:
                raise InvalidRecord(f"{where}: field {field!r} must be a list of numbers, got {fields.kind_of(value)}")
            out[field] = tuple(fields.number(where, f"{field}[{i}]", v, required=True) for i, v in enumerate(value))
    lengths = {len(v) for v in out.values() if isinstance(v, tuple)}
    if len(lengths) > 1:
        raise InvalidRecord(
            f"{where}: fields 'chosen_margin_rewards' and 'rejected_margin_rewards' have different lengths"
        )
    return out


def _ranking(where: str, record: Mapping[str, Any]) -> Ranking:
    prompt = fields.prompt(where, record)
    responses, labels = fields.required(where, record, "responses"), fields.required(where, record, "labels")
    for field, value in (("responses", responses), ("labels", labels)):
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise InvalidRecord(f"{where}: field {field!r} must be a list, got {fields.kind_of(value)}")
    if len(responses) < 2:
        raise InvalidRecord(f"{where}: field 'responses' must have two or more entries, got {len(responses)}")
    if len(labels) != len(responses):
        raise InvalidRecord(
            f"{where}: field 'labels' has {len(labels)} entries for {len(responses)} responses; must be equal"
        )
    labels = [fields.number(where, f"labels[{i}]", label, required=True) for i, label in enumerate(labels)]
    entries = {f"responses[{i}]": response for i, response in enumerate(responses)}
    prompt, texts = fields.answers(where, entries, prompt, tuple(entries))
    order = sorted(range(len(texts)), key=lambda i: -labels[i])  # sorted is stable, so ties keep their order
    responses, labels = tuple(texts[i] for i in order), tuple(labels[i] for i in order)
    return Ranking(prompt, responses, labels, fields.weight(where, record), where)


def _unpaired(where: str, record: Mapping[str, Any]) -> Unpaired:
    prompt = fields.prompt(where, record)
    prompt, (completion,) = fields.answers(where, record, prompt, ("completion",))
    label = fields.required(where, record, "label")
    # Not bool(label): the text "false" would be true. JSON's 1.0 is as good as 1.
    if isinstance(label, str) or label not in (0, 1):
        raise InvalidRecord(f"{where}: field 'label' must be true or false (or 1 or 0), got {label!r}")
    return Unpaired(prompt, completion, bool(label), fields.weight(where, record), where)


def _triple(where: str, record: Mapping[str, Any]) -> Triple:
    prompt = fields.prompt(where, record)
    prompt, (gold, chosen, rejected) = fields.answers(where, record, prompt, ("gold", "chosen", "rejected"))
    for field, text in (("chosen", chosen), ("gold", gold)):
        if text == rejected:
            raise InvalidRecord(
                f"{where}: fields {field!r} and 'rejected' are equal; an answer cannot be wanted and unwanted"
            )
    return Triple(prompt, gold, chosen, rejected, fields.weight(where, record), where)


def _rated(where: str, record: Mapping[str, Any]) -> Rated:
    prompt = fields.prompt(where, record)
    prompt, (completion,) = fields.answers(where, record, prompt, ("completion",))
    ratings = fields.list_of(where, record, "ratings")
    ratings = tuple(fields.number(where, f"ratings[{i}]", value) for i, value in enumerate(ratings))
    if not ratings:
        raise InvalidRecord(f"{where}: field 'ratings' is empty; it has an entry for each attribute, or null")
    reward = fields.number(where, "reward", record.get("reward"))
    return Rated(prompt, completion, ratings, reward, fields.weight(where, record), where)


def _steps(where: str, record: Mapping[str, Any]) -> Steps:
    prompt = fields.required(where, record, "prompt")
    steps, labels = fields.list_of(where, record, "steps"), fields.list_of(where, record, "labels")
    for name, value in (("prompt", prompt), *((f"steps[{i}]", step) for i, step in enumerate(steps))):
        if not isinstance(value, str) or not value.strip():
            raise InvalidRecord(f"{where}: field {name!r} must be text with a visible character, got {value!r}")
    if not steps or len(labels) != len(steps):
        raise InvalidRecord(
            f"{where}: field 'labels' has {len(labels)} entries for {len(steps)} steps; must be equal, and at least 1"
        )
    labels = tuple(fields.number(where, f"labels[{i}]", float(v) if isinstance(v, bool) else v, required=True)
                   for i, v in enumerate(labels))  # fmt: skip
    for i, label in enumerate(labels):
        if not 0 <= label <= 1:
            raise InvalidRecord(f"{where}: field 'labels[{i}]' must lie in [0, 1], got {label!r}")
    correct = fields.flag(where, record, "correct")
    return Steps(prompt, tuple(steps), labels, correct, fields.weight(where, record), where)


def _sampled_pair(where: str, record: Mapping[str, Any]) -> SampledPair:
    pair = _pair(where, record)
    samples = fields.list_of(where, record, "samples")
    if len(samples) < 2:
        raise InvalidRecord(f"{where}: field 'samples' must have two or more entries, got {len(samples)}")
    entries = {f"samples[{i}]": sample for i, sample in enumerate(samples)}
    _, texts = fields.answers(where, entries, pair.prompt, tuple(entries))
    return SampledPair(pair.prompt, pair.chosen, pair.rejected, texts, pair.weight, where)


def _forget_retain(where: str, record: Mapping[str, Any]) -> ForgetRetain:
    sides = {"prompt": ("forget", "chosen"), "retain_prompt": ("retain",)}
    texts: dict[str, str] = {}
    for prompt, answers in sides.items():
        for field in (prompt, *answers):
            if field == "chosen" and record.get(field) is None:
                continue
            texts[field] = fields.required(where, record, field)
            if not isinstance(texts[field], str):
                raise InvalidRecord(f"{where}: field {field!r} must be text, got {fields.kind_of(texts[field])}")
            if field != prompt and not texts[field].strip():
                raise InvalidRecord(f"{where}: field {field!r} is empty; an answer needs a visible character")
    if texts["forget"] == texts.get("chosen"):
        raise InvalidRecord(f"{where}: fields 'chosen' and 'forget' are equal; an answer cannot be kept and forgotten")
    return ForgetRetain(**texts, weight=fields.weight(where, record), where=where)


def _query(where: str, record: Mapping[str, Any]) -> Query:
    value = fields.required(where, record, "prompt")
    prompt = value if isinstance(value, str) else tuple(fields.messages(where, "prompt", value))
    last = prompt if isinstance(prompt, str) else prompt[-1].content
    if not last.strip():
        raise InvalidRecord(f"{where}: field 'prompt' is empty; a prompt needs at least one visible character")
    if not isinstance(prompt, str) and prompt[-1].role == "assistant":
        raise InvalidRecord(f"{where}: field 'prompt' ends with role 'assistant', whose answer is to be sampled")
    # Parquet has every column in every record.
    return Query(prompt, {k: v for k, v in record.items() if k != "prompt" and v is not None}, where)
