"""Data of PIT, which learns from preference pairs to improve an answer that it is shown.

Wang et al., 2023, arXiv 2310.00898. Of a pair with answers w (better) and l come a demonstration, l shown and w to be
written, and for the reward model the four ordered pairs of the two: what is written first is judged against what
follows. The policy is then trained by RL on the gap between its answer and the one shown.
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
