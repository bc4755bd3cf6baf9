"""Judges: functions `judge(prompt, completion, record) -> bool` that say whether a completion satisfies a requirement.

Rules, models and programs have the same form, and `config.judges` names any of them as "package.module:function":

| kind    | here                                                                                                     |
|---------|----------------------------------------------------------------------------------------------------------|
| rule    | `ends_with_full_stop`, `no_false_refusal`, `follows_instructions`, `answer_is_right`, `Matches`, `Lacks` |
| model   | `ModelJudge`: asks a function from text to text, and reads its verdict                                   |
| program | `ProgramJudge`: runs a command on the case as JSON; exit code 0 is satisfied, 1 is not                   |

A judge that cannot judge raises; it never guesses. In a run (`experiments.reinforce`) it is called as rewards are, with
their time limit, and one that fails or is late counts as *not satisfied* and is counted and shown. Model judges are
noisy, and one veto is enough: with many of them almost nothing passes, so look at the pass rate of each, which is
logged as `satisfied_NAME`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alignment.rewards import instructions, tasks

Record = Mapping[str, Any]
Judge = Callable[[str, str, Record], bool]

_REFUSALS = re.compile(
    r"\b(?:i (?:can(?:no|')t|am (?:not able|unable) to|won't|will not) (?:help|assist|answer|do|provide|comply)|"
    r"i(?:'m| am) sorry,? but)",
    re.IGNORECASE,
)


class JudgeError(RuntimeError):
    """A judge could not come to a verdict; the message says why."""


def all_satisfied(judges: Sequence[Judge], prompt: str, completion: str, record: Record) -> bool:
    """Whether every judge is; True without judges. All are asked until one is not satisfied."""
    return all(verdict(judge(prompt, completion, record)) for judge in judges)


def verdict(value: Any) -> bool:
    """The value itself if it is True or False; JudgeError otherwise (a score is no verdict, and None is none)."""
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        value = value.item()
    if not isinstance(value, bool):
        raise JudgeError(f"a judge must say True or False, got {value!r}")
    return value


# Rules ---------------------------------------------------------------------------------------------------------------


def ends_with_full_stop(prompt: str, completion: str, record: Record) -> bool:
    """Whether the answer was brought to its end."""
    return completion.rstrip().endswith(".")


def no_false_refusal(prompt: str, completion: str, record: Record) -> bool:
    """Whether a harmless prompt gets more than a refusal; a prompt whose record says `harmful` may be refused."""
    return bool(record.get("harmful", False)) or not _REFUSALS.search(completion)


def follows_instructions(prompt: str, completion: str, record: Record) -> bool:
    """Whether all IFEval instructions of the record are followed (`alignment.rewards.instructions`)."""
    return instructions.follows_all(prompt, completion, record) == 1.0


def answer_is_right(prompt: str, completion: str, record: Record) -> bool:
    """Whether the record's task is solved (`alignment.rewards.tasks`)."""
    return tasks.reward(prompt, completion, record) == 1.0


def _compiled(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"judge pattern {pattern!r} is not a regular expression: {error}") from None


@dataclasses.dataclass(frozen=True)
class Matches:
    """Whether a regular expression is found in the completion."""

    pattern: str

    def __post_init__(self):
        _compiled(self.pattern)

    def __call__(self, prompt: str, completion: str, record: Record) -> bool:
        return re.search(self.pattern, completion) is not None


@dataclasses.dataclass(frozen=True)
class Lacks:
    """Whether a regular expression is not found in the completion."""

    pattern: str

    def __post_init__(self):
        _compiled(self.pattern)

    def __call__(self, prompt: str, completion: str, record: Record) -> bool:
        return re.search(self.pattern, completion) is None


@dataclasses.dataclass(frozen=True)
class OfTask:
    """A judge of one task only: satisfied with completions of prompts whose record names another `task`, or none."""

    task: str
    judge: Judge

    def __call__(self, prompt: str, completion: str, record: Record) -> bool:
        return record.get("task") != self.task or verdict(self.judge(prompt, completion, record))


digits_if_sorting = OfTask("sorting", Matches(r"^[0-9]+\.?$"))
"""Whether the answer to a sorting problem is a number and nothing else."""


# Models and programs -------------------------------------------------------------------------------------------------

TEMPLATE = """{question}

Prompt:
{prompt}

Answer:
{completion}

Reply with one word, yes or no."""


@dataclasses.dataclass(frozen=True)
class ModelJudge:
    """Asks a language model a yes-or-no question about a prompt and its answer.

    `complete` is any function from text to text: a model of this package, or a server's client. The first yes or no of
    the reply counts, after "verdict:" if there is one; JudgeError if there is neither. The answer stands in the
    question as it is, and may try to talk the judge over: ask for what a rule cannot check only.
    """

    complete: Callable[[str], str]
    question: str
    template: str = TEMPLATE
    satisfied: str = "yes"

    def __post_init__(self):
        if self.satisfied not in ("yes", "no"):
            raise ValueError(f"satisfied must be 'yes' or 'no', got {self.satisfied!r}")
        for field in ("{prompt}", "{completion}"):
            if field not in self.template:
                raise ValueError(f"template must contain {field}")

    def __call__(self, prompt: str, completion: str, record: Record) -> bool:
        # Not str.format: braces in the completion are the completion's own.
        fields = {"question": self.question, "prompt": prompt, "completion": completion}
        asked = re.sub(r"\{(question|prompt|completion)\}", lambda found: str(fields[found[1]]), self.template)
        return read_verdict(self.complete(asked)) == self.satisfied


def read_verdict(reply: str) -> str:
    """ "yes" or "no", as a judge's reply says first; JudgeError if it says neither."""
    if not isinstance(reply, str):
        raise JudgeError(f"the judge must reply with text, got {type(reply).__name__}")
    _, marked, after = reply.lower().rpartition("verdict:")
    found = re.search(r"\b(yes|no)\b", after if marked else reply.lower())
    if not found:
        raise JudgeError(f"no yes or no in the judge's reply {reply[:100]!r}")
    return found[1]


@dataclasses.dataclass(frozen=True)
class ProgramJudge:
    """Runs a command with {"prompt", "completion", "record"} as JSON on its standard input.

    Exit code 0 is satisfied and 1 is not; another one, or no end within `time_limit` seconds, is a JudgeError. The
    command is not run in a shell, and nothing of the completion is in it. What it does with the completion is its own
    affair: a program that executes text of a model needs a sandbox.
    """

    command: tuple[str, ...]
    time_limit: float = 5.0

    def __post_init__(self):
        if isinstance(self.command, str) or not self.command:
            raise ValueError(f"command must be a sequence of words, got {self.command!r}")
        if not 0 < self.time_limit < float("inf"):
            raise ValueError(f"time_limit must lie in (0, inf) seconds, got {self.time_limit}")

    def __call__(self, prompt: str, completion: str, record: Record) -> bool:
        case = json.dumps({"prompt": prompt, "completion": completion, "record": dict(record)}, default=str)
        try:
            done = subprocess.run(
                list(self.command), input=case, capture_output=True, text=True, timeout=self.time_limit, check=False
            )
        except subprocess.TimeoutExpired:
            raise JudgeError(f"{self.command[0]}: no verdict within {self.time_limit:g} s") from None
        except OSError as error:
            raise JudgeError(f"{self.command[0]}: {error.strerror or error}") from None
        if done.returncode not in (0, 1):
            raise JudgeError(f"{self.command[0]}: exit code {done.returncode}: {done.stderr.strip()[-200:]}")
        return done.returncode == 0
