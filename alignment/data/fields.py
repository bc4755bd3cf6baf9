"""Fields of a record, read and checked: what `formats` builds its examples from."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


class DataError(ValueError):
    """A record (or a whole source) that cannot be used; the message names the place, the field and what is allowed."""


class InvalidRecord(DataError):
    """One record is unusable although the source can be read: what `on_invalid="drop"` may leave out."""


@dataclasses.dataclass(frozen=True)
class Message:
    role: str
    content: str


Prompt = str | tuple[Message, ...]


def prompt(where: str, record: Mapping[str, Any]) -> Prompt | None:
    """The prompt, or None when it is left to the conversations of the sides."""
    value = record.get("prompt")
    if value is None or isinstance(value, str):
        return value
    return tuple(messages(where, "prompt", value))


def answers(
    where: str, record: Mapping[str, Any], prompt: Prompt | None, fields: tuple[str, ...]
) -> tuple[Prompt, tuple[str, ...]]:
    """(the shared prompt, the answer texts) of plain or conversational fields."""
    values = [required(where, record, field) for field in fields]
    if all(isinstance(value, str) for value in values):
        if prompt is None:
            raise InvalidRecord(f"{where}: field 'prompt' is missing; allowed: text or a list of messages")
        for field, value in zip(fields, values, strict=True):
            if not value.strip():
                raise InvalidRecord(
                    f"{where}: field {field!r} is empty; an answer needs at least one visible character"
                )
        return prompt, tuple(values)
    found, answers = [], []
    for field, value in zip(fields, values, strict=True):
        before, answer = split(where, field, messages(where, field, value))
        if not before:  # The answer alone: the conversation is in `prompt`.
            if prompt is None:
                raise InvalidRecord(f"{where}: field 'prompt' is missing, and {field!r} holds the answer alone")
            before = (Message("user", prompt),) if isinstance(prompt, str) else prompt
        elif isinstance(prompt, tuple) and before != prompt:
            raise InvalidRecord(f"{where}: field {field!r} does not begin with the messages of 'prompt'")
        found.append(before)
        answers.append(answer)
    for field, before in zip(fields, found, strict=True):
        if before != found[0]:
            raise InvalidRecord(f"{where}: fields {fields[0]!r} and {field!r} must share all messages but the last")
    return found[0], tuple(answers)


def messages(where: str, field: str, value: Any) -> tuple[Message, ...]:
    if isinstance(value, Mapping) and all(isinstance(item, list) for item in value.values()):
        # TFDS gives a sequence of dicts as a dict of lists.
        if len({len(item) for item in value.values()}) > 1:
            raise InvalidRecord(f"{where}: field {field!r} has message columns of different lengths")
        value = [dict(zip(value, items, strict=True)) for items in zip(*value.values(), strict=True)]
    if not isinstance(value, (list, tuple)) or not value:
        raise InvalidRecord(
            f"{where}: field {field!r} must be text or a non-empty list of messages, got {kind_of(value)}"
        )
    messages = []
    for i, message in enumerate(value):
        if not isinstance(message, Mapping):
            raise InvalidRecord(
                f"{where}: field '{field}[{i}]' must be an object with role and content, got {kind_of(message)}"
            )
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                got = kind_of(message.get(key))
                raise InvalidRecord(f"{where}: field '{field}[{i}].{key}' must be text, got {got}")
        messages.append(Message(message["role"], message["content"]))
    return tuple(messages)


def split(where: str, field: str, messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], str]:
    last = messages[-1]
    if last.role != "assistant":
        raise InvalidRecord(
            f"{where}: field {field!r} must end with a message of role 'assistant', got role {last.role!r}"
        )
    if not last.content.strip():
        raise InvalidRecord(
            f"{where}: field {field!r} ends with an empty answer; it needs at least one visible character"
        )
    if field == "messages" and len(messages) == 1:
        raise InvalidRecord(f"{where}: field 'messages' has an answer but no message before it")
    return messages[:-1], last.content


def required(where: str, record: Mapping[str, Any], field: str) -> Any:
    value = record.get(field)
    if value is None:
        raise InvalidRecord(
            f"{where}: field {field!r} is missing; the record has: {', '.join(map(str, record)) or 'nothing'}"
        )
    return value


def number(where: str, field: str, value: Any, required: bool = False) -> float | None:
    if value is None and not required:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InvalidRecord(f"{where}: field {field!r} must be a finite number, got {value!r}")
    return float(value)


def flag(where: str, record: Mapping[str, Any], field: str) -> bool | None:
    """True or false (or 1 or 0), or None where the field is missing."""
    value = record.get(field)
    if value is None:
        return None
    # Not bool(value): the text "false" would be true. JSON's 1.0 is as good as 1.
    if isinstance(value, str) or value not in (0, 1):
        raise InvalidRecord(f"{where}: field {field!r} must be true or false (or 1 or 0), got {value!r}")
    return bool(value)


def list_of(where: str, record: Mapping[str, Any], field: str) -> list[Any]:
    value = required(where, record, field)
    if not isinstance(value, (list, tuple)):
        raise InvalidRecord(f"{where}: field {field!r} must be a list, got {kind_of(value)}")
    return list(value)


def weight(where: str, record: Mapping[str, Any]) -> float | None:
    weight = number(where, "weight", record.get("weight"))
    if weight is not None and weight < 0:
        raise InvalidRecord(f"{where}: field 'weight' must not be negative, got {weight!r}")
    return weight


def proportion(where: str, record: Mapping[str, Any]) -> float | None:
    proportion = number(where, "preference_proportion", record.get("preference_proportion"))
    if proportion is not None and not 0 < proportion < 1:
        raise InvalidRecord(
            f"{where}: field 'preference_proportion' must lie in (0, 1), got {proportion!r}; for a unanimous pair say "
            "how sure that is, for example 0.999"
        )
    return proportion


def kind_of(value: Any) -> str:
    """A JSON reader's word for a value's type."""
    if value is None:
        return "nothing"
    if isinstance(value, (list, tuple)) and not value:
        return "an empty list"
    return {str: "text", bool: "true/false", int: "a number", float: "a number", list: "a list", tuple: "a list",
            dict: "an object"}.get(type(value), type(value).__name__)  # fmt: skip
