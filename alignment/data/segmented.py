"""Records of kind `segments`: a completion in pieces, each with a reward of its own, or learnt or only read.

| field    | what                                                                                       |
|----------|--------------------------------------------------------------------------------------------|
| prompt   | text                                                                                       |
| segments | texts, which make up the completion one after another, with nothing between them           |
| rewards  | optional: a number per segment, which its tokens carry (`token_rewards`)                   |
| trained  | optional: true or false per segment, whether its tokens are learnt (`trained_mask`)        |
| ended    | optional: true or false per segment, whether an end token follows it; the last one always has one |

An end token is learnt if its segment is, and its reward is 0: that a text ends is no fault of what it said.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from alignment.data import fields
from alignment.data.fields import InvalidRecord


@dataclasses.dataclass(frozen=True)
class Segments:
    """A completion in pieces; `where` is the place in the source, for error messages, and is not compared."""

    prompt: str
    segments: tuple[str, ...]
    segment_rewards: tuple[float, ...] | None = None
    trained: tuple[bool, ...] | None = None
    ended: tuple[bool, ...] | None = None
    weight: float | None = None
    where: str = dataclasses.field(default="", compare=False)


def parse(where: str, record: Mapping[str, Any]) -> Segments:
    """The record, checked; InvalidRecord names the field and what is allowed."""
    prompt = fields.required(where, record, "prompt")
    segments = fields.list_of(where, record, "segments")
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidRecord(f"{where}: field 'prompt' must be text with a visible character, got {prompt!r}")
    for i, segment in enumerate(segments):
        if not isinstance(segment, str) or not segment:
            raise InvalidRecord(f"{where}: field 'segments[{i}]' must be text that is not empty, got {segment!r}")
    if not "".join(segments).strip():
        raise InvalidRecord(f"{where}: field 'segments' has no visible character; there must be something to learn")

    def per_segment(field: str, check) -> tuple | None:
        if record.get(field) is None:
            return None
        values = fields.list_of(where, record, field)
        if len(values) != len(segments):
            raise InvalidRecord(
                f"{where}: field {field!r} has {len(values)} entries for {len(segments)} segments; must be equal"
            )
        return tuple(check(f"{field}[{i}]", value) for i, value in enumerate(values))

    def flag(field: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise InvalidRecord(f"{where}: field {field!r} must be true or false, got {value!r}")
        return value

    rewards = per_segment("rewards", lambda field, value: fields.number(where, field, value, required=True))
    trained, ended = per_segment("trained", flag), per_segment("ended", flag)
    if trained is not None and not any(trained):
        raise InvalidRecord(f"{where}: field 'trained' is false throughout; at least one segment must be learnt")
    return Segments(prompt, tuple(segments), rewards, trained, ended, fields.weight(where, record), where)


def encode(example: Segments, tokenizer) -> tuple[list[int], dict[str, tuple]]:
    """(token ids of the completion, what each token carries: `token_rewards` and `trained`, if the example has them).

    Segments are encoded apart, since in a joined text a tokenizer might merge two of them.
    """
    ids: list[int] = []
    owners: list[tuple[int, bool]] = []  # of each token: its segment, and whether it is an end token
    last = len(example.segments) - 1
    for i, segment in enumerate(example.segments):
        tokens = tokenizer.encode(segment)
        ends = i == last or (example.ended is not None and example.ended[i])
        ids += [*tokens, *([tokenizer.eos_id] if ends else [])]
        owners += [(i, False)] * len(tokens) + [(i, True)] * ends
    carried: dict[str, tuple] = {}
    if example.segment_rewards is not None:
        carried["token_rewards"] = tuple(0.0 if end else example.segment_rewards[i] for i, end in owners)
    if example.trained is not None:
        carried["trained"] = tuple(example.trained[i] for i, _ in owners)
    return ids, carried
