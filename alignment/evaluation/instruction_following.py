"""IFEval's four accuracies of verdicts; the checkers that give these are `alignment.rewards.instructions`."""

from collections.abc import Sequence
from typing import NamedTuple

from alignment.evaluation import arrays
from alignment.rewards import instructions


class InstructionFollowing(NamedTuple):
    """Accuracies in [0, 1] by prompt (all instructions followed) and by instruction (pooled); n prompts."""

    prompt_strict: float
    instruction_strict: float
    prompt_loose: float
    instruction_loose: float
    n: int


def ifeval(followed: Sequence[Sequence[bool]], followed_loosely: Sequence[Sequence[bool]]) -> InstructionFollowing:
    """Accuracies of strict and loose verdicts, one list per prompt.

    Loose: the instruction is followed by one of eight versions of the response (first line, last line, asterisks).

    Raises: ValueError for no prompts, a prompt without instructions, lists of different lengths.

    Paper: Zhou et al., 2023 (Instruction-Following Evaluation for Large Language Models), arXiv 2311.07911.
    """
    arrays.same_length(followed=followed, followed_loosely=followed_loosely)
    for prompt, (strict, loose) in enumerate(zip(followed, followed_loosely, strict=True)):
        if not len(strict) or len(strict) != len(loose):
            raise ValueError(
                f"prompt {prompt} has {len(strict)} strict and {len(loose)} loose verdicts; must be equal and not 0"
            )
    return InstructionFollowing(
        instructions.prompt_level_accuracy(followed), instructions.instruction_level_accuracy(followed),
        instructions.prompt_level_accuracy(followed_loosely),
        instructions.instruction_level_accuracy(followed_loosely), len(followed),
    )  # fmt: skip
