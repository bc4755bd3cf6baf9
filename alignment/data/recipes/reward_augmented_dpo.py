"""Reward-augmented data: every scored pair becomes two pairs, each under a prompt that asks for one of the two scores.

Zhang et al., 2024, arXiv 2410.08067. Under the prompt that asks for the lower score the lower answer is the chosen one,
so that a model learns what an answer of each quality is like, and is asked for the highest one at the end.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks

Array = jax.Array


def goal_conditioned_reward(rewards: Array, goals: Array) -> Array:
    """-(g - r)^2: how well an answer of reward r meets the goal g. 0 is the best there is.

    Shapes: both `[...]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.

    Paper: Zhang et al., 2024, arXiv 2410.08067.
    """
    rewards, goals = checks.floats(rewards=rewards, goals=goals)
    return -jnp.square(goals - rewards)


def system_prompt(prompt: str, goal: float) -> list[dict[str, str]]:
    """The goal as a system message before the user's turn, for models with a chat template."""
    text = f"Answer so that the response deserves an overall score of {goal:g} on a scale from 1 to 10."
    return [{"role": "system", "content": text}, {"role": "user", "content": prompt}]


def short_prompt(prompt: str, goal: float) -> str:
    """The goal as a short mark before the prompt, `[8] ...`, for small models without a chat template."""
    return f"[{goal:g}] {prompt}"


def reward_augmented_relabel(
    prompt: str,
    chosen: str,
    rejected: str,
    chosen_score: float,
    rejected_score: float,
    conditioned: Callable[[str, float], Any] = system_prompt,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two pairs from one: chosen over rejected under the chosen one's score, and the reverse under the rejected one's.

    In both the chosen side has the goal-conditioned reward 0 and the rejected side -(difference of scores)^2. Equal
    scores give two contradictory pairs under one prompt; `records` drops those.

    Args:
      conditioned: (prompt, goal) -> the prompt that asks for the goal; whole numbers are printed without decimals.

    Paper: Zhang et al., 2024, arXiv 2410.08067. In the authors' `scripts/reward_augmentation.py` the copy for the low
    goal exchanges only the users' turns, which are the same text, when there is no system message, so that the answers
    are not exchanged; that is not the paper's method and not followed here.
    """
    return (
        {"prompt": conditioned(prompt, chosen_score), "chosen": chosen, "rejected": rejected},
        {"prompt": conditioned(prompt, rejected_score), "chosen": rejected, "rejected": chosen},
    )


def to_scale(score: float, low: float, high: float) -> int:
    """A score between `low` and `high` as a whole number from 1 to 10; one scale has to serve all prompts."""
    if not low < high:
        raise ValueError(f"{low=} must be less than {high=}")
    return round(1 + 9 * (min(max(score, low), high) - low) / (high - low))


def records(
    pairs: Iterable[Mapping[str, Any]], conditioned: Callable[[str, float], Any] = system_prompt
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Pairs (kind `pairs`) from {prompt, chosen, rejected, chosen_score, rejected_score}, and counts.

    Dropped are ties, and pairs whose scores contradict their labels, as in the authors' script.
    """
    out, counts = [], {"pairs_read": 0, "dropped_ties": 0, "dropped_contradictions": 0, "pairs": 0}
    for pair in pairs:
        counts["pairs_read"] += 1
        if pair["chosen_score"] == pair["rejected_score"]:
            counts["dropped_ties"] += 1
        elif pair["chosen_score"] < pair["rejected_score"]:
            counts["dropped_contradictions"] += 1
        else:
            fields = ("prompt", "chosen", "rejected", "chosen_score", "rejected_score")
            out += reward_augmented_relabel(*(pair[f] for f in fields), conditioned=conditioned)
    counts["pairs"] = len(out)
    return out, counts
