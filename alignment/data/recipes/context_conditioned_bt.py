"""Pairs that two contexts rank in opposite ways: what a reward model needs to learn to read the context.

Pitis et al., 2024 (Improving Context-Aware Preference Modeling for Language Models), arXiv 2407.14916. What follows
from such a model is in `alignment.rewards.contexts`; no code is published.
"""

from collections.abc import Mapping, Sequence
from typing import Any


def context_records(
    pairs: Sequence[Mapping[str, Any]], contexts: tuple[str, str], *, reverse: bool = False, without: bool = False
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Every pair twice: as labelled after the first context, turned round after the second; and counts.

    Args:
      pairs: records with prompt (text), chosen and rejected.
      contexts: what is put before the prompt.
      reverse: swap the contexts and leave the labels: a model that heeds them is wrong, one that does not is right half
        of the time, on these as on the others.
      without: no context at all, and both labels: nobody can be right more than half of the time.

    Raises:
      ValueError: equal contexts, both options, or a prompt that is no text.
    """
    if contexts[0] == contexts[1]:
        raise ValueError(f"the two contexts are the same, {contexts[0]!r}; nothing could tell the labels apart")
    if reverse and without:
        raise ValueError("contexts can be reversed or left out, not both")
    before = ("", "") if without else contexts[::-1] if reverse else contexts
    records = []
    for pair in pairs:
        if not isinstance(pair["prompt"], str):
            raise ValueError(f"a context is put before a prompt of text, got {pair['prompt']!r}")
        sides = (pair["chosen"], pair["rejected"])
        for context, (chosen, rejected) in zip(before, (sides, sides[::-1]), strict=True):
            records.append({"prompt": context + pair["prompt"], "chosen": chosen, "rejected": rejected})
    return records, {"pairs": len(pairs), "records": len(records)}
