"""Tasks whose completions help another: hints and reflections for a frozen actor, plain words for a patient.

| task            | prompt                 | completion      | what it is                                             |
|-----------------|------------------------|-----------------|--------------------------------------------------------|
| `keywords`      | `k3 b7 q1 d9 e0: `     | `bd.`           | the letters of the facts worth telling: from 5 up      |
| `retrospection` | `try 47112 go udsus: ` | `56122.`        | a code that failed, set right: u(p), d(own), s(ame)    |
| `plain_words`   | `minor renal lesion: ` | `wee loin cut.` | each learned word as an everyday one                   |

They are rows of `tasks.TASKS`, whose own reward asks for the very answer; graded rewards, which run the frozen actor,
are `stimulus` and `improvement` here and `simplification.reward`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

Record = Mapping[str, Any]

WORTH = 5  # facts from here on belong to the reference summary
CALLS = 4  # of the frozen summariser, for one hint
DROPPED = 0.1  # probability that the summariser forgets a fact, and that the actor does not heed a digit
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_FACT = re.compile(r"[a-z][0-9]")

PLAIN = {  # by what they say: how long, where, what
    "when": {"chronic": "old", "recurrent": "new", "acute": "bad", "minor": "wee", "severe": "big", "residual": "odd"},
    "where": {
        "hepatic": "liver", "renal": "loin", "gastric": "gut", "cardiac": "heart", "ocular": "eye", "oral": "mouth",
        "dermal": "skin", "cranial": "head", "pedal": "foot", "otic": "ear",
    },
    "what": {
        "neoplasm": "lump", "erythema": "rash", "oedema": "puff", "dolor": "pain", "lesion": "cut",
        "pruritus": "itch", "calculus": "rock", "pyrexia": "heat", "sepsis": "rot", "spasm": "jerk",
    },
}  # fmt: skip


# Directional stimulus ------------------------------------------------------------------------------------------------


def keywords(rng: np.random.Generator, difficulty: int) -> tuple[str, dict[str, Any]]:
    """Facts, each a letter and its weight; at least two are worth telling, and one is not."""
    count = 2 * difficulty + 1
    while True:
        letters = rng.permutation(list(_LETTERS))[:count]
        weights = rng.integers(10, size=count)
        chosen = [str(letter) for letter, weight in zip(letters, weights, strict=True) if weight >= WORTH]
        if 2 <= len(chosen) < count:
            break
    text = " ".join(f"{letter}{weight}" for letter, weight in zip(letters, weights, strict=True))
    return text, {"prompt": f"{text}: ", "answer": "".join(chosen)}


def summaries(prompt: str, hint: str, calls: int = CALLS) -> list[list[str]]:
    """What the frozen summariser tells, call by call: the facts whose letter the hint names, less a few forgotten.

    Its chance depends on the texts alone, so that a run can be repeated.
    """
    facts = [fact for fact in _FACT.findall(prompt) if fact[0] in hint]
    rng = np.random.default_rng(zlib.crc32(f"{prompt}\0{hint}".encode()))
    return [[f for f, kept in zip(facts, rng.random(len(facts)) >= DROPPED, strict=True) if kept] for _ in range(calls)]


def overlap(summary: list[str], reference: list[str]) -> float:
    """ROUGE-1 as F1 of the facts that both tell, in [0, 1]."""
    shared = len(set(summary) & set(reference))
    return 2 * shared / (len(set(summary)) + len(set(reference))) if shared else 0.0


def stimulus(prompt: str, completion: str, record: Record) -> float:
    """How good summaries are with the hint: mean F1 against the reference over several calls of the summariser.

    Li et al., 2023, arXiv 2302.11520: the black box is frozen, and what is trained are the hints.
    """
    reference = [fact for fact in _FACT.findall(prompt) if int(fact[1]) >= WORTH]
    return float(np.mean([overlap(summary, reference) for summary in summaries(prompt, completion)]))


def hint_hits(prompt: str, completion: str, record: Record) -> float:
    """Letters of the hint that the reference has, less those that it has not: the paper's optional reward per token."""
    named = [c for c in completion if c in _LETTERS]
    return float(sum(1 if c in record["answer"] else -1 for c in named))


# Retrospection -------------------------------------------------------------------------------------------------------


def retrospection(rng: np.random.Generator, difficulty: int) -> tuple[str, dict[str, Any]]:
    """A code tried in vain and, digit by digit, where the right one lies: one up, one down, or there."""
    count = 2 * difficulty + 1
    tried = rng.integers(1, 9, size=count)
    while True:
        steps = rng.integers(-1, 2, size=count)
        if steps.any():
            break
    attempt, answer = "".join(map(str, tried)), "".join(map(str, tried + steps))
    feedback = "".join("dsu"[step + 1] for step in steps)
    return f"{attempt} {feedback}", {
        "prompt": f"try {attempt} go {feedback}: ", "answer": answer, "attempt": attempt,
    }  # fmt: skip


def next_attempt(attempt: str, reflection: str, prompt: str) -> str:
    """What the frozen actor tries after reading the reflection: its digits, place by place, unless it does not heed
    one. What is no digit, or is missing, leaves the digit of the last attempt."""
    rng = np.random.default_rng(zlib.crc32(f"{prompt}\0{reflection}".encode()))
    heeded = rng.random(len(attempt)) >= DROPPED
    told = reflection.strip().ljust(len(attempt))
    return "".join(
        t if h and t.isascii() and t.isdigit() else a for a, t, h in zip(attempt, told, heeded, strict=False)
    )


def score(attempt: str, secret: str) -> float:
    """The return of an episode: the share of right digits."""
    return sum(a == b for a, b in zip(attempt, secret, strict=True)) / len(secret)


def improvement(prompt: str, completion: str, record: Record) -> float:
    """By how much the frozen actor's next return exceeds its last: the reward of a reflection.

    Yao et al., 2023, arXiv 2308.02151. Tasks that are solved already have none to give, and are not generated.
    """
    before, secret = record["attempt"], record["answer"]
    return score(next_attempt(before, completion, prompt), secret) - score(before, secret)


# Plain words ---------------------------------------------------------------------------------------------------------


def plain_words(rng: np.random.Generator, difficulty: int) -> tuple[str, dict[str, Any]]:
    """A finding of two learned words, of three, or of three in the order of an index."""
    kinds = ("where", "what") if difficulty == 1 else ("when", "where", "what")
    learned = [str(rng.choice(list(PLAIN[kind]))) for kind in kinds]
    answer = " ".join(PLAIN[kind][word] for kind, word in zip(kinds, learned, strict=True))
    source = " ".join(reversed(learned) if difficulty == 3 else learned)
    return " ".join(learned), {"prompt": f"{source}: ", "answer": answer, "source": source}


def other_words(record: Record, rng: np.random.Generator) -> str:
    """The answer with another finding in the place of its last word."""
    words = record["answer"].split()
    words[-1] = str(rng.choice([word for word in PLAIN["what"].values() if word != words[-1]]))
    return " ".join(words)
