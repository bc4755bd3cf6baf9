"""Records of the kinds `hierarchy` and `hierarchy_pairs`: messages whose roles say how far their words bind.

| kind              | fields                                                                                       |
|-------------------|----------------------------------------------------------------------------------------------|
| `hierarchy`       | messages (objects with role and content; the last is the assistant's, to learn), [weight]    |
| `hierarchy_pairs` | prompt (such messages), chosen, rejected (texts), [weight]                                   |

Roles are those of `alignment.segments.LEVELS`: system, user, data (text to work on, which commands nothing), assistant.
A token's level is that of the message that it stands in, never of what the message says: text in a data message that
looks like another message stays data (Wu et al., 2024, arXiv 2410.09102).

No chat template is used, since of its text nobody could say which message a token came from. Messages are encoded one
by one, each after the delimiter of its role (any text, also none), which has the level of the message; the assistant's
also stands before the completion. The begin token is of level 0, an end token of the assistant's, as in the paper's
code. There end tokens are not learnt; here a completion's is, as everywhere in this library, for it ends by itself.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from alignment.data import fields
from alignment.data.fields import InvalidRecord, Message
from alignment.segments import LEVELS

KINDS = ("hierarchy", "hierarchy_pairs")


@dataclasses.dataclass(frozen=True)
class Hierarchy:
    """Messages and the answer to learn, or two, chosen and rejected; `where` is the place in the source."""

    prompt: tuple[Message, ...]
    completions: tuple[str, ...]
    weight: float | None = None
    where: str = dataclasses.field(default="", compare=False)


def parse(where: str, record: Mapping[str, Any]) -> Hierarchy:
    """The record of kind `hierarchy`, checked; InvalidRecord names the field and what is allowed."""
    messages = fields.messages(where, "messages", fields.required(where, record, "messages"))
    _check_roles(where, "messages", messages)
    prompt, answer = fields.split(where, "messages", messages)
    return Hierarchy(prompt, (answer,), fields.weight(where, record), where)


def parse_pair(where: str, record: Mapping[str, Any]) -> Hierarchy:
    """The same of kind `hierarchy_pairs`."""
    prompt = fields.messages(where, "prompt", fields.required(where, record, "prompt"))
    _check_roles(where, "prompt", prompt)
    sides = tuple(fields.required(where, record, side) for side in ("chosen", "rejected"))
    for name, text in zip(("chosen", "rejected"), sides, strict=True):
        if not isinstance(text, str) or not text.strip():
            raise InvalidRecord(f"{where}: field {name!r} must be text with a visible character, got {text!r}")
    if sides[0] == sides[1]:
        raise InvalidRecord(f"{where}: fields 'chosen' and 'rejected' are equal; the two sides of a pair must differ")
    return Hierarchy(prompt, sides, fields.weight(where, record), where)


def _check_roles(where: str, field: str, messages: Sequence[Message]) -> None:
    for i, message in enumerate(messages):
        if message.role not in LEVELS:
            raise InvalidRecord(
                f"{where}: field '{field}[{i}].role' is {message.role!r}, not one of {', '.join(LEVELS)}"
            )


def encode_prompt(messages: Sequence[Message], tokenizer, delimiters: Mapping[str, str]) -> tuple[list[int], list[int]]:
    """(token ids, levels) of the messages up to where the answer begins: what a sampler starts from.

    `delimiters` has a text for every role.
    """
    ids = list(tokenizer.prefix_ids(False))
    levels = [LEVELS["system"]] * len(ids)
    for message in (*messages, Message("assistant", "")):
        part = [*tokenizer.encode(delimiters[message.role]), *tokenizer.encode(message.content)]
        if message.role == "assistant" and message.content:  # an earlier answer, which ended as this one will
            part.append(tokenizer.eos_id)
        ids += part
        levels += [LEVELS[message.role]] * len(part)
    return ids, levels
