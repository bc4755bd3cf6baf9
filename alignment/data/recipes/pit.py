"""Data of PIT, which learns from preference pairs to improve an answer that it is shown.

Wang et al., 2023, arXiv 2310.00898. Of a pair with answers w (better) and l come a demonstration, l shown and w to be
written, and for the reward model the four ordered pairs of the two: what is written first is judged against what
follows. The policy is then trained by RL on the gap between its answer and the one shown: first the rejected ones of
pairs, then samples of the base model.
"""

from collections.abc import Iterable, Mapping
from typing import Any


def shown(prompt: str, answer: str) -> str:
    """The prompt of an improvement: the question, then the answer that is to be improved."""
    return f"{prompt}{answer}\n"


def ordered(first: str, second: str) -> str:
    """What the reward model of gaps reads after the prompt: how much better is the first than the second?"""
    return f"{first}\n{second}"


def pit_improvements(pairs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Demonstrations (kind `completion`) from {prompt, chosen, rejected}: the rejected one shown, the chosen written.

    Paper: Wang et al., 2023, arXiv 2310.00898 (the supervised stage).
    """
    return [{"prompt": shown(p["prompt"], p["rejected"]), "completion": p["chosen"]} for p in pairs]


def pit_tasks(pairs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Prompts of the first stage of RL, from {prompt, chosen, rejected}: the rejected answer is shown.

    Each has what `gap_input` reads: `question` and `shown`; `demonstration` is the chosen answer.

    Paper: Wang et al., 2023, arXiv 2310.00898 (curriculum reinforcement learning).
    """
    return [_task(p["prompt"], p["rejected"]) | {"demonstration": p["chosen"]} for p in pairs]


def pit_tasks_of_samples(candidates: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Prompts of the second stage, from {prompt, responses}: each of the base model's samples is shown.

    Paper: Wang et al., 2023, arXiv 2310.00898. What inference shows is a model's own answer, not one of the data.
    """
    return [_task(c["prompt"], response) for c in candidates for response in c["responses"]]


def _task(question: str, answer: str) -> dict[str, Any]:
    return {"prompt": shown(question, answer), "question": question, "shown": answer}


def gap_input(prompt: str, completion: str, record: Mapping[str, Any]) -> tuple[str, str]:
    """(prompt, completion) as the reward model of gaps reads them: is the completion better than what was shown?

    For config.rewards.NAME.reads, with prompts of `pit_tasks`; ValueError if the record is of another kind.
    """
    for field in ("question", "shown"):
        if not isinstance(record.get(field), str):
            raise ValueError(f"prompt {prompt!r}: no text {field!r}; make prompts by `make_data pit --what=tasks`")
    return record["question"], ordered(completion, record["shown"])


def pit_gap_lists(pairs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Lists of four (kind `lists`) from {prompt, chosen, rejected}: (w, l), (w, w), (l, l), (l, w), for `pit_gap_loss`.

    The labels are the order in which the reward model is to see them; the middle two share one.

    Paper: Wang et al., 2023, arXiv 2310.00898 (the reward model).
    """
    out = []
    for pair in pairs:
        better, worse = pair["chosen"], pair["rejected"]
        responses = [ordered(a, b) for a, b in ((better, worse), (better, better), (worse, worse), (worse, better))]
        out.append({"prompt": pair["prompt"], "responses": responses, "labels": [1.0, 0.5, 0.5, 0.0]})
    return out
