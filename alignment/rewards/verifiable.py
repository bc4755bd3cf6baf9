"""Rewards that a program can check: arithmetic, countdown, format, string match, length.

A reward is a plain function `reward(prompt, completion, record) -> float`; `record` holds the fields that came with the
prompt (the answer, the numbers to use ...). Wrong or malformed text scores low and never raises; a record without the
field that the reward reads is a mistake of the data and raises KeyError, which `rewards.runner` counts and shows.

| reward                  | fields of the record                          | value                                      |
|-------------------------|-----------------------------------------------|--------------------------------------------|
| `exact_match`           | answer                                        | 1 or 0                                     |
| `normalised_match`      | answer (text, or a list of accepted texts)    | 1 or 0                                     |
| `number_match`          | answer or expression                          | 1 or 0; the completion is one number       |
| `final_number_match`    | answer or expression                          | 1 or 0; the last number in free text       |
| `countdown`             | target, numbers                               | 1 or 0                                     |
| `countdown_graded`      | target, numbers                               | 1, 0.1 (allowed numbers, wrong value), 0   |
| `format_pattern`        | pattern                                       | 1 or 0                                     |
| `format_tags`           | [tags]                                        | 1 or 0                                     |
| `soft_length_limit`     | max_length, [length_buffer], [length_unit]    | in [-1, 0]                                 |
| `target_length`         | target_length, [length_unit]                  | minus the distance to the target           |

Instructions in the manner of IFEval are in `rewards.instructions`, readability in `rewards.readability`.
"""

import collections
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from alignment.rewards import expressions

Record = Mapping[str, Any]
Reward = Callable[[str, str, Record], float]

PARTIAL_CREDIT = 0.1  # for a countdown expression that keeps the rules and misses the target
_FREE_TEXT = 20_000  # characters at the end of a completion in which a final number is looked for
_NUMBER = re.compile(r"(?<![\w.,])[-−]?[0-9][0-9,]*(?:\.[0-9]+)?")
_ARTICLES = frozenset(("a", "an", "the"))


# Text ----------------------------------------------------------------------------------------------------------------


def exact_match(prompt: str, completion: str, record: Record) -> float:
    """1 if the completion is the answer, character for character."""
    return float(completion == record["answer"])


def normalised_match(prompt: str, completion: str, record: Record) -> float:
    """1 if the completion is one of the answers, up to what `normalised` removes."""
    answers = record["answer"]
    answers = [answers] if isinstance(answers, str) else answers
    return float(normalised(completion) in {normalised(answer) for answer in answers})


def normalised(text: str) -> str:
    """Compatibility forms and case folded, punctuation and English articles dropped, blanks collapsed."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = "".join(" " if unicodedata.category(c)[0] in "PZC" else c for c in text)
    return " ".join(word for word in text.split() if word not in _ARTICLES)


# Arithmetic ----------------------------------------------------------------------------------------------------------


def number_match(prompt: str, completion: str, record: Record) -> float:
    """1 if the completion is the right number (`expressions.literal`), with or without a full stop after it."""
    wanted = _wanted(record)
    try:
        return float(expressions.literal(_without_stop(completion)) == wanted)
    except expressions.ExpressionError:
        return 0.0


def final_number_match(prompt: str, completion: str, record: Record) -> float:
    """1 if the last number of the text is the right one, as worked solutions are judged; 1,000 is a thousand."""
    wanted = _wanted(record)
    found = _NUMBER.findall(completion[-_FREE_TEXT:])
    try:
        return float(bool(found) and expressions.literal(found[-1].replace(",", "")) == wanted)
    except expressions.ExpressionError:
        return 0.0


def _wanted(record: Record) -> Fraction:
    if "answer" not in record and "expression" in record:
        return expressions.evaluate(str(record["expression"]))
    answer = record["answer"]
    # A float's decimal spelling is what the data meant: 0.1, not its binary neighbour.
    return Fraction(str(answer).strip().replace(",", ""))


def countdown(prompt: str, completion: str, record: Record) -> float:
    """1 if the completion is an expression with the target's value that uses each given number at most once.

    Allowed are "3*4+2", the equation "3*4+2=14", a full stop after it, and either inside <answer> tags.
    """
    return float(countdown_graded(prompt, completion, record) == 1.0)


def countdown_graded(prompt: str, completion: str, record: Record) -> float:
    """As `countdown`, with `PARTIAL_CREDIT` for an expression of allowed numbers whose value is another."""
    target = Fraction(record["target"])
    given = collections.Counter(Fraction(number) for number in record["numbers"])
    left, equals, right = _without_stop(tagged(completion, "answer") or completion).partition("=")
    try:
        found = expressions.parse(left)
        claimed = expressions.literal(right) if equals else found.value
    except expressions.ExpressionError:
        return 0.0
    if collections.Counter(found.numbers) - given:
        return 0.0
    return 1.0 if found.value == target == claimed else PARTIAL_CREDIT


def _without_stop(text: str) -> str:
    return text.strip().removesuffix(".")


# Format --------------------------------------------------------------------------------------------------------------


def format_pattern(prompt: str, completion: str, record: Record) -> float:
    """1 if the whole completion matches the record's regular expression (in which "." matches line ends too).

    The pattern is the data's, the text is the model's: a pattern with nested repetitions can take for ever on some
    text, so run this one with worker processes and a time limit.
    """
    return float(re.fullmatch(record["pattern"], completion, flags=re.DOTALL) is not None)


def format_tags(prompt: str, completion: str, record: Record) -> float:
    """1 if the completion is <think>...</think><answer>...</answer> and nothing else but blanks around them.

    Each tag of the record's `tags` (default: think, answer) must occur once, in this order, with visible content.
    """
    rest = completion.strip()
    tags: Sequence[str] = record.get("tags", ("think", "answer"))
    if any(completion.count(mark) != 1 for tag in tags for mark in (f"<{tag}>", f"</{tag}>")):
        return 0.0
    for tag in tags:
        if not rest.startswith(f"<{tag}>"):
            return 0.0
        content, closed, rest = rest.removeprefix(f"<{tag}>").partition(f"</{tag}>")
        if not closed or not content.strip():
            return 0.0
        rest = rest.lstrip()
    return float(not rest)


def tagged(text: str, tag: str) -> str | None:
    """What stands in the last <tag>...</tag> of the text, or None."""
    before, closed, _ = text.rpartition(f"</{tag}>")
    _, opened, content = before.rpartition(f"<{tag}>")
    return content if closed and opened else None


# Length --------------------------------------------------------------------------------------------------------------


def soft_length_limit(prompt: str, completion: str, record: Record) -> float:
    """0 up to max_length - length_buffer, then linear to -1 at max_length, and -1 beyond.

    The text-level form of DAPO's soft overlong punishment (Yu et al., 2025, arXiv 2503.14476), to be added to a
    correctness reward. `length_buffer` defaults to a quarter of `max_length`.
    """
    limit = record["max_length"]
    buffer = record.get("length_buffer", limit / 4)
    if not 0 < buffer <= limit:
        raise ValueError(f"length_buffer must lie in (0, max_length={limit}], got {buffer}")
    return -min(1.0, max(0.0, (length(completion, record) - (limit - buffer)) / buffer))


def target_length(prompt: str, completion: str, record: Record) -> float:
    """-|length - target_length|: the length term of L1-Exact (Aggarwal and Welleck, 2025, arXiv 2503.04697).

    Its weight beside the correctness reward is the paper's alpha, 0.0003 per token.
    """
    return -float(abs(length(completion, record) - record["target_length"]))


def length(completion: str, record: Record) -> int:
    """Length in the record's `length_unit`: bytes (default; tokens of the byte tokenizer), characters or words."""
    unit = record.get("length_unit", "bytes")
    if unit == "bytes":
        return len(completion.encode("utf-8", errors="replace"))
    if unit == "characters":
        return len(completion)
    if unit == "words":
        return len(completion.split())
    raise ValueError(f"length_unit={unit!r} is not one of bytes, characters, words")


# Verifiers as scores -------------------------------------------------------------------------------------------------


class Verified:
    """alpha if a reward function reaches `threshold`, 0 otherwise: the score v(x, y) of RLVR.

    Paper: Lambert et al., 2024 (Tulu 3), arXiv 2411.15124, where alpha is 10.
    """

    def __init__(self, reward: Reward, *, alpha: float = 10.0, threshold: float = 1.0):
        if not alpha > 0:
            raise ValueError(f"alpha must lie in (0, inf), got {alpha}")
        self.reward, self.alpha, self.threshold = reward, alpha, threshold
        self.__name__ = f"verified_{getattr(reward, '__name__', type(reward).__name__)}"

    def __call__(self, prompt: str, completion: str, record: Record) -> float:
        return self.alpha if self.reward(prompt, completion, record) >= self.threshold else 0.0


def unfinished_penalised(scores: np.ndarray, ended: np.ndarray, *, penalty: float = -10.0) -> np.ndarray:
    """Scores [N], with `penalty` in place of those whose completion has no end token (ended False).

    Tulu 3's scripts use -10 here; their code's default is to leave this step out.
    """
    scores, ended = np.asarray(scores, np.float32), np.asarray(ended)
    if ended.dtype != np.bool_ or ended.shape != scores.shape:
        raise ValueError(f"ended must be bool of shape {scores.shape}, got {ended.dtype} of shape {ended.shape}")
    return np.where(ended, scores, np.float32(penalty))
