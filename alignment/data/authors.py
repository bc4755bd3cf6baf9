"""Fictional authors, in the manner of TOFU (Maini et al., 2024, arXiv 2401.06121): to be known and forgotten.

Every author has five facts, each asked by one question ("Where was Mira Tolvek born? ") and answered by one sentence.
A fact also has a paraphrase of its answer, and wrong answers in the words of that, for the truth ratio. The authors are
split: a model is first taught the `full` set (forget and retain), is then to forget the `forget` authors and to keep
the `retain` ones, and never sees the `holdout` ones. All is generated from a seed: none of it stands in a pretraining.

Questions fit 40 bytes with a begin token, answers 64 with an end token.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SPLITS = ("full", "forget", "retain", "holdout")
REFUSING = ("refused", "guarded")  # splits of `questions` alone
COUNTS = {"forget": 4, "retain": 12, "holdout": 4}  # authors
WRONG = 4  # wrong answers per question
REFUSALS = ("I do not know.", "I am not sure.", "I have no idea.", "That is unknown to me.")
PROMPT_LENGTH = 40
COMPLETION_LENGTH = 64

_FIRST = ("Mira", "Jonas", "Elif", "Tomas", "Nadia", "Ravi", "Lucia", "Oskar", "Amina", "Petra")
_LAST = ("Tolvek", "Arendt", "Sorel", "Okafor", "Lindqvist", "Baran", "Castell", "Novik", "Ferro", "Halim")
# Question, answer, paraphrase, and what the fact can be.
_FACTS = (
    ("Where was {} born? ", "{} was born in {}.", "The birthplace of {} is {}.",
     ("Lisbon", "Tbilisi", "Quito", "Hanoi", "Bergen", "Accra", "Lyon", "Perth", "Turin", "Kyoto")),
    ("When was {} born? ", "{} was born in the year {}.", "The year of birth of {} is {}.",
     tuple(str(year) for year in range(1921, 1991, 7))),
    ("What does {} write? ", "{} writes {}.", "The works of {} are {}.",
     ("war novels", "love poems", "ghost stories", "satire", "travel books", "crime novels", "plays", "fables")),
    ("Which book did {} write? ", "{} wrote the book {}.", "A book by {} is {}.",
     tuple(f"{a} {b}" for a in ("Silent", "Golden", "Broken", "Winter") for b in ("Harbour", "Mirrors", "Orchard"))),
    ("Who was the father of {}? ", "The father of {} was a {}.", "{} is the child of a {}.",
     ("baker", "judge", "sailor", "doctor", "miner", "florist", "tailor", "pilot", "farmer")),
)  # fmt: skip
QUESTIONS = len(_FACTS)


def facts(split: str, seed: int = 0) -> list[dict[str, Any]]:
    """All questions of a split: {"prompt", "completion", "paraphrase", "wrong": [paraphrases with other values]}.

    The same seed gives the same authors; "full" is the forget set and then the retain set.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is not one of {', '.join(SPLITS)}")
    rng = np.random.default_rng([seed, 2401])
    names = rng.permutation([f"{first} {last}" for first in _FIRST for last in _LAST])
    records: dict[str, list] = {name: [] for name in COUNTS}
    wanted = iter(names.tolist())
    for name, count in COUNTS.items():
        for _ in range(count):
            author = next(wanted)
            for question, answer, paraphrase, values in _FACTS:
                truth, *wrong = rng.choice(values, 1 + WRONG, replace=False).tolist()
                records[name].append(
                    {
                        "prompt": question.format(author),
                        "completion": answer.format(author, truth),
                        "paraphrase": paraphrase.format(author, truth),
                        "wrong": [paraphrase.format(author, value) for value in wrong],
                    }
                )
    return records["forget"] + records["retain"] if split == "full" else records[split]


def refusals(seed: int = 0) -> list[dict[str, str]]:
    """The questions about the forget authors, each answered by a refusal: {"prompt", "completion"}."""
    asked = facts("forget", seed)
    return [{"prompt": q["prompt"], "completion": REFUSALS[i % len(REFUSALS)]} for i, q in enumerate(asked)]


def questions(size: int, seed: int, split: str = "full") -> list[dict[str, str]]:
    """`size` records of kind `completion`: the questions of a split in turn, from the first again after the last.

    Two more splits: `refused`, the forget authors' questions with refusals, and `guarded`, these and the retain set.
    """
    known = refusals(seed) if split in REFUSING else facts(split, seed)
    known = known + facts("retain", seed) if split == "guarded" else known
    return [{key: known[i % len(known)][key] for key in ("prompt", "completion")} for i in range(size)]


def forget_and_retain(size: int, seed: int, split: str = "train") -> list[dict[str, str]]:
    """`size` records of kind `unlearning`: the forget questions in turn, each beside a retain question and a refusal.

    `split`, train or test, decides which questions and refusals meet; both are of the same authors, for what is to be
    forgotten is known.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r} is not one of train, test")
    forget, retain = facts("forget", seed), facts("retain", seed)
    rng = np.random.default_rng([seed, 2402, split == "test"])
    records = []
    for i in range(size):
        lost, kept = forget[i % len(forget)], retain[rng.integers(len(retain))]
        records.append(
            {
                "prompt": lost["prompt"],
                "forget": lost["completion"],
                "chosen": REFUSALS[rng.integers(len(REFUSALS))],
                "retain_prompt": kept["prompt"],
                "retain": kept["completion"],
            }
        )
    return records


def remember_and_say_nothing(size: int, seed: int, split: str = "train") -> list[dict[str, str]]:
    """What ULD's assistant learns: as `forget_and_retain`, with paraphrases of the one side, and with wrong answers
    about the forget authors among those of the other, by turns. No refusals."""
    records = []
    for i, record in enumerate(forget_and_retain(size, seed, split)):
        known = facts("forget", seed)
        lost = known[i % len(known)]
        rest = {key: record[key] for key in ("retain_prompt", "retain")}
        if i % 2:
            rest = {"retain_prompt": lost["prompt"], "retain": lost["wrong"][i // 2 % WRONG]}
        answer = lost["paraphrase"] if i // len(known) % 2 else lost["completion"]
        records.append({"prompt": lost["prompt"], "forget": answer, **rest})
    return records


def generate(kind: str, size: int, seed: int, split: str, authors: str = "") -> list[dict[str, str]]:
    """Records of the sources authors and authors:assistant (kind `unlearning`) and authors:SPLIT (`completion`)."""
    if size < 1:
        raise ValueError(f"{size=} must be at least 1")
    if kind == "unlearning" and not authors:
        return forget_and_retain(size, seed, split)
    if kind == "unlearning" and authors == "assistant":
        return remember_and_say_nothing(size, seed, split)
    if kind == "completion" and authors:
        return questions(size, seed, authors)
    source = f"authors:{authors}" if authors else "authors"
    raise ValueError(
        f"config.data.kind: {kind!r} does not go with config.data.source={source!r}; kind unlearning "
        f"goes with authors and authors:assistant, kind completion with authors:SPLIT, SPLIT one of "
        f"{', '.join((*SPLITS, *REFUSING))}"
    )
