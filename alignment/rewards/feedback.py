"""What scored completions are good for besides their score: critiques, judging tasks, and answers that are revealed.

`critique` marks the good and the bad of a completion, `judging_tasks` turns a group of completions into tasks of
judging them, `revealed` shows the answer. All for the generated tasks of `alignment.rewards.tasks`, on the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alignment.rewards import tasks

Record = Mapping[str, Any]
KINDS = ("pointwise", "pairwise", "reflection")


def critique(prompt: str, completion: str, record: Record) -> list[tuple[int, int, int]]:
    """Spans (start, end, label) of a completion against the task's answer, character by character.

    What agrees with the answer (and its full stop) in its place is good; the first character that does not is bad, and
    so is all that follows it: it stands on a mistake. A program in the place of a model that writes critiques.
    """
    wanted = f"{record['answer']}."
    right = 0
    while right < min(len(completion), len(wanted)) and completion[right] == wanted[right]:
        right += 1
    spans = [(0, right, 1)] if right else []
    return [*spans, (right, len(completion), -1)] if right < len(completion) else spans


def revealed(prompt: str, record: Record) -> str:
    """The prompt of `sorting` with the digits in their order already: who copies them has explained the answer."""
    if record["task"] != "sorting":
        raise ValueError(f"the answer of the task {record['task']!r} cannot be revealed; only that of 'sorting' can")
    return f"sort {record['answer']}: "


def judging_tasks(
    prompts: Sequence[str],
    records: Sequence[Record],
    completions: Sequence[Sequence[str]],
    rewards: np.ndarray,
    rng: np.random.Generator,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Endlessly many (prompt, record) made of scored completions, the kinds in turn; kinds without material are left
    out, and nothing comes if there is no completion.

    pointwise   is this answer right?              `verdict` 1 or 0
    pairwise    which of the two is right?         `verdict` 1 or 2, in random order; of one right and one wrong
    reflection  this one was wrong; another try    the task's own record

    Targets come from the rewards alone, never from what a judge said. Liu et al., 2025 (SPARK), arXiv 2509.22624.
    """
    right = np.asarray(rewards) > 0
    material = {kind: list(_material(kind, right)) for kind in KINDS}
    kinds = [kind for kind in KINDS if material[kind]]
    while kinds:
        for kind in kinds:
            group, *members = material[kind][int(rng.integers(len(material[kind])))]
            texts = [completions[group][i].strip() for i in members]
            record = {k: v for k, v in records[group].items() if k != "verdict"}
            if kind == "pointwise":
                yield f"{prompts[group]}{texts[0]} ok? ", record | {"verdict": str(int(right[group, members[0]]))}
            elif kind == "pairwise":
                first = int(rng.integers(2))  # 1: the right one stands first
                shown = texts if first else texts[::-1]
                verdict = "1" if first else "2"
                yield f"{prompts[group]}{shown[0]} or {shown[1]}? ", record | {"verdict": verdict}
            else:
                yield f"{prompts[group]}{texts[0]} no: ", record


def _material(kind: str, right: np.ndarray) -> Iterator[tuple[int, ...]]:
    """(group, completion) or (group, the right completion, the wrong one) that a task of a kind can be made of."""
    for group, verdicts in enumerate(right):
        wrong = np.flatnonzero(~verdicts)
        if kind == "pairwise":
            yield from ((group, int(i), int(j)) for i in np.flatnonzero(verdicts) for j in wrong)
        else:
            yield from ((group, int(i)) for i in (wrong if kind == "reflection" else range(len(verdicts))))


def solved_or_judged(prompt: str, completion: str, record: Record) -> float:
    """1 for the right verdict where the record asks for one, else the reward of the record's task."""
    if "verdict" in record:
        return float(completion.strip().removesuffix(".") == record["verdict"])
    return tasks.reward(prompt, completion, record)
