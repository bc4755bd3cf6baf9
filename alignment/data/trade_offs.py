"""Generated pairs on which two objectives disagree, from the sentences of `alignment.data.corpus`.

The objectives are `quality` (the corpus' gold reward without its length term) and `brevity` (-0.1 for each byte): a
third adjective or a clause pays in one and costs in the other. A record of `pairs` is labelled by one objective: it
says which (`objective_id` 0 or 1), what the other gives both answers (`chosen_margin_rewards`,
`rejected_margin_rewards`) and whether each answer is harmful by itself (more unkind words than kind ones).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from alignment.data import corpus

OBJECTIVES = ("quality", "brevity")
BYTE = 0.1


def rewards(prompt: str, completion: str) -> tuple[float, float]:
    """(quality, brevity) of a completion. Raises ValueError for a prompt that is not of the corpus."""
    length = len(completion.encode("utf-8"))
    return corpus.gold_reward(prompt, completion) + corpus.LENGTH_PENALTY * length, -BYTE * length


def harmful(completion: str) -> bool:
    words = completion.replace(",", " ").replace(".", " ").split()
    return sum((w in corpus.NEGATIVE) - (w in corpus.POSITIVE) for w in words) > 0


def pairs(size: int, seed: int, split: str = "train", objective: str = "") -> list[dict[str, Any]]:
    """`size` records of kind `pairs`; the same arguments give the same ones.

    Args:
      size: in [1, inf).
      seed: of the sentences.
      split: train or test, which share no prompt.
      objective: by which all pairs are labelled; "": by turns.
    """
    if objective not in ("", *OBJECTIVES):
        raise ValueError(f"trade_offs:{objective}: no such objective; there are: {', '.join(OBJECTIVES)}")
    if size < 1:
        raise ValueError(f"{size=} must be at least 1")
    prompts = corpus.prompts(split)
    rng = np.random.default_rng([seed, corpus.SPLITS.index(split), 77])
    records: list[dict[str, Any]] = []
    while len(records) < size:
        by = OBJECTIVES.index(objective) if objective else len(records) % len(OBJECTIVES)
        prompt = prompts[rng.integers(len(prompts))]
        texts = [corpus.demonstration(prompt, rng) for _ in range(2)]
        values = [rewards(prompt, text) for text in texts]
        if abs(values[0][by] - values[1][by]) < BYTE / 2:  # a tie, but for rounding
            continue
        chosen = int(values[1][by] > values[0][by])
        sides = {"chosen": chosen, "rejected": 1 - chosen}
        records.append(
            {"prompt": prompt, "objective_id": by}
            | {side: texts[n] for side, n in sides.items()}
            | {f"{side}_margin_rewards": [round(values[n][1 - by], 6)] for side, n in sides.items()}
            | {f"{side}_harmful": harmful(texts[n]) for side, n in sides.items()}
        )
    return records
