"""Instruction data in another language from its own texts: the text is the answer, and the instruction is made for it.

2024, Improving Multilingual Instruction Finetuning via Linguistically Natural and Diverse Datasets. Translator,
instruction writer and scorer are the caller's; what the paper scores by was not available.
"""

from collections.abc import Callable, Iterable
from typing import Any


def records(
    passages: Iterable[str],
    *,
    translate: Callable[[str], str],
    instruct: Callable[[str], str],
    translate_back: Callable[[str], str],
    score: Callable[[str, str], float],
    threshold: float,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Records of kind `completion` whose completions are the passages as they stand, and counts.

    Only the instruction goes through a translation: instruct(translate(passage)), translated back.

    Args:
      translate, translate_back: into the language of `instruct` and out of it.
      instruct: writes the instruction that a text answers.
      score: (instruction, passage) -> how well they fit, and how good the passage is.
      threshold: pairs that score less are dropped; -inf keeps all.
    """
    out, counts = [], dict.fromkeys(("passages", "dropped_blank", "dropped_without_instruction"), 0)
    counts |= {"dropped_by_score": 0, "kept": 0}
    for passage in passages:
        counts["passages"] += 1
        if not passage.strip():
            counts["dropped_blank"] += 1
            continue
        instruction = translate_back(instruct(translate(passage)))
        if not instruction.strip():
            counts["dropped_without_instruction"] += 1
        elif score(instruction, passage) < threshold:
            counts["dropped_by_score"] += 1
        else:
            counts["kept"] += 1
            out.append({"prompt": instruction, "completion": passage})
    return out, counts
