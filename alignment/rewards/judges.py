"""Pairwise judges without their bias of position: both orders are asked and averaged."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from alignment import checks

Array = jax.Array


def first_probability(logit_first: Array, logit_second: Array) -> Array:
    """p(the first answer is better) from the logits of the verdict tokens "A" and "B", among themselves. `[...]`"""
    first, second = checks.floats(logit_first=logit_first, logit_second=logit_second)
    return jax.nn.sigmoid(first - second)


def debiased_preference(first_when_ab: Array, first_when_ba: Array) -> Array:
    """P(a > b) = (p_first(a, b) + 1 - p_first(b, a)) / 2, each p that the answer shown FIRST is better. `[...]`.

    Whatever a judge adds to the probability of the first place cancels; one that always says the same p gives 1/2.
    Probabilities are averaged, not logits, as in the public code.

    Paper: Dong et al., 2024 (RLHF Workflow), arXiv 2405.07863; position bias: Zheng et al., 2023, arXiv 2306.05685.
    """
    ab, ba = checks.floats(first_when_ab=first_when_ab, first_when_ba=first_when_ba)
    return (ab + 1 - ba) / 2


def judge_both_orders(
    judge: Callable[[Sequence[str], Sequence[str], Sequence[str]], np.ndarray],
    prompts: Sequence[str],
    first: Sequence[str],
    second: Sequence[str],
) -> np.ndarray:
    """P(first > second) [N] by a judge that is asked in both orders: `judge(prompts, a, b)` gives p(a is better), [N].

    ValueError if the judge gives another number of verdicts, or one that is no probability.
    """
    if not len(prompts) == len(first) == len(second):
        raise ValueError(f"{len(prompts)} prompts, {len(first)} and {len(second)} answers; must be equal")
    asked = []
    for a, b in ((first, second), (second, first)):
        verdicts = np.asarray(judge(prompts, a, b), np.float32)
        if verdicts.shape != (len(prompts),) or not ((verdicts >= 0) & (verdicts <= 1)).all():
            raise ValueError(f"a judge must give {len(prompts)} probabilities, got shape {verdicts.shape}: {verdicts}")
        asked.append(verdicts)
    return np.asarray(debiased_preference(jnp.asarray(asked[0]), jnp.asarray(asked[1])))
