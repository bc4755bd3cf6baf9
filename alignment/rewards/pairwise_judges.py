"""Pairwise judges without their bias of position: both orders are asked and averaged.

In a run with `config.rollout.judge` a preference oracle, a judge and a reward model are functions of one type,

    judge(prompt, first, second, record) -> probability in [0, 1] that the first completion is preferred

and `preference_matrix` asks one about all completions of a prompt. Rewards r become preferences by `bradley_terry`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alignment import checks, games
from alignment.rewards.judges import JudgeError

Array = jax.Array
PairwiseJudge = Callable[[Any, str, str, Mapping[str, Any]], float]


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


def bradley_terry(rewards: np.ndarray) -> np.ndarray:
    """P[i, j] = s(r_i - r_j), the sigmoid of the difference: `[..., G]` to `[..., G, G]`, float32.

    ValueError for a reward that is NaN: it compares with nothing.
    """
    rewards = np.asarray(rewards, np.float32)
    if np.isnan(rewards).any():
        raise ValueError("rewards: a reward that is NaN gives no preference")
    return np.asarray(games.bradley_terry_preferences(np.nan_to_num(rewards)))  # two infinite ones are equal


def preference_matrix(
    judge: PairwiseJudge, prompt: Any, completions: Sequence[str], record: Mapping[str, Any]
) -> np.ndarray:
    """P[i, j], how likely completion i is preferred to j, by a judge asked in both orders: float32 [G, G].

    P + P^T = 1 and the diagonal is 1/2 whatever the judge does; equal completions are not shown to it.

    JudgeError that names the prompt if the judge raises or gives anything but a number in [0, 1].
    """

    def ask(first: str, second: str) -> float:
        try:
            said = judge(prompt, first, second, record)
        except Exception as error:
            raise JudgeError(f"the judge failed on prompt {prompt!r}: {type(error).__name__}: {error}") from error
        try:
            # A verdict is a probability too; text is not, even if it reads as a number.
            value = float(said) if not isinstance(said, str | bytes) else float("nan")
        except (TypeError, ValueError):
            value = float("nan")
        if not 0 <= value <= 1:
            raise JudgeError(f"a pairwise judge must give a probability in [0, 1], got {said!r} on prompt {prompt!r}")
        return value

    size = len(completions)
    out = np.full((size, size), 0.5, np.float32)
    for i in range(size):
        for j in range(i + 1, size):
            if completions[i] != completions[j]:
                out[i, j] = (ask(completions[i], completions[j]) + 1 - ask(completions[j], completions[i])) / 2
                out[j, i] = 1 - out[i, j]
    return out


def win_rates(preferences: np.ndarray, opponents: np.ndarray) -> np.ndarray:
    """How likely each completion is preferred to the opponents' of its group: mean over them of P[i, j], `[..., G]`.

    An opponent's completion meets itself too, at 1/2; with all of a group as opponents the mean of the rates is 1/2.

    Shapes: preferences `[..., G, G]`, opponents bool `[..., G]`.

    ValueError if preferences are no probabilities with P + P^T = 1, or a group has no opponent.
    """
    preferences, opponents = np.asarray(preferences, np.float32), np.asarray(opponents, bool)
    if preferences.shape[-2:] != (opponents.shape[-1],) * 2 or preferences.shape[:-1] != opponents.shape:
        raise ValueError(f"preferences must have shape [..., G, G] for opponents {opponents.shape}, got "
                         f"{preferences.shape}")  # fmt: skip
    games.check_preferences(preferences)
    if not opponents.any(axis=-1).all():
        raise ValueError("opponents: a group without a completion to compare with has no win rate")
    counted = np.where(opponents[..., None, :], preferences, 0.0).sum(axis=-1)
    return (counted / opponents.sum(axis=-1, keepdims=True)).astype(np.float32)
