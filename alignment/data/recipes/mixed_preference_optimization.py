"""Mixed preference optimisation: easy pairs for DPO, the prompts of difficult ones for reinforcement learning after it.

Gou and Nguyen, 2024, arXiv 2403.19443. Stage 1 is `dpo` on the easy pairs. Stage 2 is PPO on the prompts of the
difficult ones, starting from the stage-1 policy and with it as the reference.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from alignment import checks


def mpo_split(
    chosen_rewards: np.ndarray, rejected_rewards: np.ndarray, *, gamma: float
) -> tuple[np.ndarray, np.ndarray]:
    """(easy, difficult): easy where |r(chosen) - r(rejected)| > gamma, difficult where not. Each pair is in one.

    Args:
      chosen_rewards, rejected_rewards: scores by one reward model, which must be comparable across prompts for one
        threshold to make sense.
      gamma: in [0, inf]. Below the smallest gap all pairs are easy (plain DPO); at inf none is (stage 1 is empty). The
        paper tunes it to the data; there is no default.

    Shapes: rewards `[...]`; results bool `[...]`.

    Raises:
      ValueError: gamma out of range, shapes differ, a reward is not finite.

    Paper: Gou and Nguyen, 2024, arXiv 2403.19443.
    """
    checks.number("gamma", gamma, 0.0, closed="both")
    chosen, rejected = np.asarray(chosen_rewards, np.float64), np.asarray(rejected_rewards, np.float64)
    if chosen.shape != rejected.shape:
        raise ValueError(f"chosen_rewards {chosen.shape} and rejected_rewards {rejected.shape} must have one shape")
    if not (np.isfinite(chosen).all() and np.isfinite(rejected).all()):
        raise ValueError("rewards must be finite: a NaN would make a pair difficult unseen")
    easy = np.abs(chosen - rejected) > gamma
    return easy, ~easy


def records(
    pairs: Iterable[Mapping[str, Any]], *, gamma: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, int]]:
    """(easy pairs of kind `pairs`, {prompt} of the difficult ones each once, counts) from pairs with scores."""
    pairs = list(pairs)
    scores = [[pair[f"{side}_score"] for pair in pairs] for side in ("chosen", "rejected")]
    easy, difficult = mpo_split(*scores, gamma=gamma)
    chosen = [
        {field: value for field, value in pair.items() if not field.endswith("_score")}
        for pair, is_easy in zip(pairs, easy, strict=True)
        if is_easy
    ]
    # A prompt may be a list of messages, which no set takes.
    prompts = {json.dumps(pair["prompt"]): pair["prompt"] for pair, hard in zip(pairs, difficult, strict=True) if hard}
    counts = {
        "pairs_read": len(pairs),
        "easy_pairs": len(chosen),
        "difficult_pairs": int(difficult.sum()),
        "difficult_prompts": len(prompts),
    }
    return chosen, [{"prompt": prompt} for prompt in prompts.values()], counts
