"""Small verifiable tasks, generated: prompts with records, imperfect demonstrations and exact rewards.

| task           | prompt                | completion | difficulty 1, 2, 3                                             |
|----------------|-----------------------|------------|----------------------------------------------------------------|
| `addition`     | `17+25=`              | `42.`      | up to 1, 2, 3 digits                                           |
| `chain`        | `3+4-(2*1)=`          | `5.`       | + and - of 3 numbers; also * of 4; also parentheses of 5       |
| `countdown`    | `14 of 3 4 2: `       | `3*4+2.`   | 2, 3, 4 numbers                                                |
| `sorting`      | `sort 52731: `        | `12357.`   | 3, 5, 7 digits                                                 |
| `copy_reverse` | `reverse abcde: `     | `edcba.`   | 3, 5, 7 letters; the other word is `copy`                      |

and those of `assisted_tasks`: `keywords`, `retrospection`, `plain_words`.

A record has prompt, answer (a right completion without its full stop), task, and what the task's reward reads. With a
begin token prompts fit `PROMPT_LENGTH` bytes, with an end token completions fit `COMPLETION_LENGTH`. Demonstrations are
right with a stated probability (`ACCURACY`), so that imitation leaves something to gain. Problems are "train" or "test"
by a hash of what they ask, in which 17+25 is the same as 25+17: the splits share neither a prompt nor a problem.

What a decoder of 3 layers and width 128 learns from 16,384 demonstrations (half of them right) in 300 steps of 128, one
seed: share of right completions, sampled at temperature 1 for unseen prompts.

| task, difficulty  | `sorting`, 1 | `sorting`, 2 | `copy_reverse`, 1 | `countdown`, 1 | `addition`, 1 |
|-------------------|--------------|--------------|-------------------|----------------|---------------|
| right, of samples | 0.44         | 0.47         | 0.50              | 0.35           | 0.03          |

`addition` of difficulty 1 has 55 problems, which are learnt by heart (0.43 of the training problems); of difficulty 2
it is at 0.07 after 600 steps, as is `chain` of difficulty 1 after 400: tasks for longer warm-ups.
"""

import dataclasses
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from alignment.rewards import assisted_tasks, expressions, verifiable

Record = Mapping[str, Any]

PROMPT_LENGTH = 32  # bytes and a begin token
COMPLETION_LENGTH = 16  # bytes and an end token
SPLITS = ("train", "test")
DIFFICULTIES = (1, 2, 3)
ACCURACY = 0.5  # of demonstrations

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_TEST_SHARE = 5  # one problem in so many is a test problem


@dataclasses.dataclass(frozen=True)
class Task:
    """`draw(rng, difficulty)` gives (what is asked, a key of the split; the record); `wrong(record, rng)` a well-formed
    completion that is probably, not surely, wrong."""

    draw: Callable[[np.random.Generator, int], tuple[str, dict[str, Any]]]
    wrong: Callable[[Record, np.random.Generator], str]
    reward: verifiable.Reward


def generate(task: str, size: int, seed: int, split: str = "train", difficulty: int = 1) -> list[dict[str, Any]]:
    """`size` records; the same arguments give the same ones. Easy tasks have few problems, which then repeat.

    Several tasks, `"sorting+addition"`, take turns.
    """
    if "+" in task:
        parts = task.split("+")
        each = [generate(part, -(-size // len(parts)), seed, split, difficulty) for part in parts]
        return [record for turn in zip(*each, strict=True) for record in turn][:size]
    if task not in TASKS:
        raise ValueError(f"{task=} is not one of {', '.join(TASKS)}")
    if split not in SPLITS:
        raise ValueError(f"{split=} is not one of {', '.join(SPLITS)}")
    if difficulty not in DIFFICULTIES:
        raise ValueError(f"{difficulty=} is not one of {', '.join(map(str, DIFFICULTIES))}")
    if size < 1:
        raise ValueError(f"{size=} must be at least 1")
    rng = np.random.default_rng([seed, list(TASKS).index(task), SPLITS.index(split), difficulty])
    records: list[dict[str, Any]] = []
    while len(records) < size:
        asked, record = TASKS[task].draw(rng, difficulty)
        if (zlib.crc32(f"{task} {asked}".encode()) % _TEST_SHARE == 0) == (split == "test"):
            records.append({**record, "task": task})
    return records


def reward(prompt: str, completion: str, record: Record) -> float:
    """1 if the completion solves the record's task, else 0; a full stop at its end may stand or not."""
    return TASKS[record["task"]].reward(prompt, completion, record)


def demonstration(record: Record, rng: np.random.Generator, accuracy: float = ACCURACY) -> str:
    """A completion that is right with exactly the probability `accuracy`, and else a plausible wrong one."""
    if not 0 <= accuracy <= 1:
        raise ValueError(f"accuracy must lie in [0, 1], got {accuracy}")
    if rng.random() < accuracy:
        return f"{record['answer']}."
    while True:
        text = f"{TASKS[record['task']].wrong(record, rng)}."
        if reward(record["prompt"], text, record) == 0:
            return text


def demonstrations(
    task: str, size: int, seed: int, split: str = "train", difficulty: int = 1, accuracy: float = ACCURACY
) -> list[dict[str, Any]]:
    """Records of kind "completion" for the supervised warm-up, one demonstration for each of `generate`'s records."""
    records = generate(task, size, seed, split, difficulty)
    numbers = [list(TASKS).index(part) for part in task.split("+")]
    rng = np.random.default_rng([seed, *numbers, SPLITS.index(split), difficulty, 1])
    return [{"prompt": r["prompt"], "completion": demonstration(r, rng, accuracy)} for r in records]


def write(
    directory: str | os.PathLike, task: str, *, size: int = 2048, test_size: int = 256, seed: int = 0,
    difficulty: int = 1,
) -> dict[tuple[str, str], pathlib.Path]:  # fmt: skip
    """Writes prompts and completions of both splits as JSONL, to try runs from files; paths by (kind, split)."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    paths = {}
    for kind, make in (("prompts", generate), ("completion", demonstrations)):
        for split, count in (("train", size), ("test", test_size)):
            path = paths[kind, split] = directory / f"{task}_{kind}_{split}.jsonl"
            records = make(task, count, seed, split, difficulty)
            path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return paths


# The tasks -----------------------------------------------------------------------------------------------------------


def _addition(rng: np.random.Generator, difficulty: int) -> tuple[str, dict[str, Any]]:
    a, b = (int(n) for n in rng.integers(10**difficulty, size=2))
    return f"{min(a, b)}+{max(a, b)}", {"prompt": f"{a}+{b}=", "answer": str(a + b)}


def _chain(rng: np.random.Generator, difficulty: int) -> tuple[str, dict[str, Any]]:
    numbers = [str(n) for n in rng.integers(10, size=difficulty + 2)]
    if difficulty == 3:
        first = int(rng.integers(len(numbers) - 1))
        numbers[first], numbers[first + 1] = f"({numbers[first]}", f"{numbers[first + 1]})"
    operators = rng.choice(list("+-" if difficulty == 1 else "+-*"), size=len(numbers) - 1)
    text = numbers[0] + "".join(f"{op}{number}" for op, number in zip(operators, numbers[1:], strict=True))
    return text, {"prompt": f"{text}=", "answer": str(expressions.evaluate(text))}


def _near_number(record: Record, rng: np.random.Generator) -> str:
    """The usual slips: off by a little, by a ten, or the sign."""
    value = int(record["answer"])
    return str(rng.choice([value + rng.integers(1, 4), value - rng.integers(1, 4), value + 10, value - 10, -value]))


def _countdown(rng: np.random.Generator, difficulty: int) -> tuple[str, dict[str, Any]]:
    while True:
        numbers = [int(n) for n in rng.integers(1, 10, size=difficulty + 1)]
        answer = _combination(numbers, rng)
        target = expressions.evaluate(answer)
        if 0 < target < 100:
            break
    given = [numbers[i] for i in rng.permutation(len(numbers))]
    record = {
        "prompt": f"{target} of {' '.join(map(str, given))}: ",
        "answer": answer,
        "target": int(target),
        "numbers": given,
    }
    return f"{target} of {sorted(given)}", record


def _combination(numbers: list[int], rng: np.random.Generator) -> str:
    """A random expression from left to right; parentheses where a product follows a sum."""
    text, is_sum = str(numbers[0]), False
    for number in numbers[1:]:
        operator = str(rng.choice(list("+-*")))
        if operator == "*" and is_sum:
            text = f"({text})"
        text, is_sum = f"{text}{operator}{number}", operator != "*"
    return text


def _wrong_combination(record: Record, rng: np.random.Generator) -> str:
    return _combination([record["numbers"][i] for i in rng.permutation(len(record["numbers"]))], rng)


def _sorting(rng: np.random.Generator, difficulty: int) -> tuple[str, dict[str, Any]]:
    digits = "".join(str(n) for n in rng.integers(10, size=2 * difficulty + 1))
    answer = "".join(sorted(digits))
    return answer, {"prompt": f"sort {digits}: ", "answer": answer}


def _copy_reverse(rng: np.random.Generator, difficulty: int) -> tuple[str, dict[str, Any]]:
    word = "".join(rng.choice(list(_LETTERS), size=2 * difficulty + 1))
    verb = str(rng.choice(["copy", "reverse"]))
    record = {"prompt": f"{verb} {word}: ", "answer": word if verb == "copy" else word[::-1]}
    return f"{verb} {min(word, word[::-1])}", record


def _one_slip(record: Record, rng: np.random.Generator) -> str:
    """Two neighbours swapped, one character left out, or one replaced by another character of the answer's kind."""
    text = list(record["answer"])
    at = int(rng.integers(len(text) - 1))
    slip = rng.integers(3)
    if slip == 0:
        text[at], text[at + 1] = text[at + 1], text[at]
    elif slip == 1:
        del text[at]
    else:
        text[at] = str(rng.choice(list("0123456789" if text[at].isdigit() else _LETTERS)))
    return "".join(text)


def _same_text(prompt: str, completion: str, record: Record) -> float:
    # Digits in order are a text: 0012 is not 12.
    return verifiable.exact_match(prompt, completion.strip().removesuffix("."), record)


TASKS: dict[str, Task] = {
    "addition": Task(_addition, _near_number, verifiable.number_match),
    "chain": Task(_chain, _near_number, verifiable.number_match),
    "countdown": Task(_countdown, _wrong_combination, verifiable.countdown),
    "sorting": Task(_sorting, _one_slip, _same_text),
    "copy_reverse": Task(_copy_reverse, _one_slip, _same_text),
    "keywords": Task(assisted_tasks.keywords, _one_slip, _same_text),
    "retrospection": Task(assisted_tasks.retrospection, _one_slip, _same_text),
    "plain_words": Task(assisted_tasks.plain_words, assisted_tasks.other_words, _same_text),
}
