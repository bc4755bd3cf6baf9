"""FActScore: the share of a long answer's atomic claims that a knowledge source supports."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from alignment import checks


class FactScore(NamedTuple):
    """score with the penalty for short answers, precision without it, both over the answered prompts; the share
    answered, claims per answered prompt, and n prompts. Read score and respond_ratio together: silence raises one."""

    score: float
    precision: float
    respond_ratio: float
    claims_per_answer: float
    n: int


def length_penalty(claims: int, *, gamma: float = 10.0) -> float:
    """1 from gamma claims on, exp(1 - gamma / claims) below; gamma 0: never a penalty.

    Raises: ValueError for no claims, or gamma below 0.
    """
    checks.positive_integer("claims", claims)
    checks.number("gamma", gamma, 0.0, closed="left")
    return 1.0 if claims >= gamma else math.exp(1 - gamma / claims)


def factscore(supported: Sequence[Sequence[bool] | None], *, gamma: float = 10.0) -> FactScore:
    """mean over answered prompts of [ mean_i supported_i * penalty(n) ]: not over the pooled claims.

    Args:
      supported: for each prompt, whether each claim of its answer is supported; None or an empty list where the model
        abstained, which never enters the score.
      gamma: claims from which on there is no penalty; 0 turns it off.

    Without any answer score, precision and claims_per_answer are NaN.

    Raises: ValueError for no prompts, an entry that is neither true nor false, gamma below 0.

    Paper: Min et al., 2023 (FActScore), arXiv 2305.14251; `factscorer.py` of later versions has the penalty, the first
    release has none.
    """
    if not len(supported):
        raise ValueError("supported must have at least one prompt")
    checks.number("gamma", gamma, 0.0, closed="left")
    precisions, scores, counts = [], [], []
    for prompt, verdicts in enumerate(supported):
        if verdicts is None or not len(verdicts):
            continue
        if not all(verdict in (0, 1) for verdict in verdicts):
            raise ValueError(f"supported of prompt {prompt} must be true or false everywhere, got {list(verdicts)}")
        precisions.append(float(np.mean(verdicts)))
        counts.append(len(verdicts))
        scores.append(precisions[-1] * length_penalty(len(verdicts), gamma=gamma))
    means = (float(np.mean(x)) if x else float("nan") for x in (scores, precisions, counts))
    score, precision, count = means
    return FactScore(score, precision, len(counts) / len(supported), count, len(supported))
