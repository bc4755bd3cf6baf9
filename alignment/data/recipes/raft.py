"""RAFT: fine-tuning on the best of a prompt's own samples (Dong et al., 2023, arXiv 2304.06767).

The samples are those of `experiments.make_data candidates`. Repeated with the model it gives, it is the paper's loop.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def best_of_k_law(probabilities: np.ndarray, rewards: np.ndarray, *, k: int) -> np.ndarray:
    """The law of the best of k draws: q(y) = F(y)^k - F(y-)^k, F the distribution function in the order of the reward.

    Of outcomes of equal reward the first drawn is kept, so they share the step of F in proportion to their probability.

    Shapes: both `[V]`; result float64 `[V]`.

    Raises:
      ValueError: k below 1, or shapes that differ.

    Paper: Dong et al., 2023, arXiv 2304.06767; the law of an order statistic. KL(q || p) <= log k - (k - 1) / k.
    """
    p, rewards = np.asarray(probabilities, np.float64), np.asarray(rewards, np.float64)
    if k < 1 or p.ndim != 1 or p.shape != rewards.shape:
        raise ValueError(f"{k=} must be at least 1, probabilities {p.shape} and rewards {rewards.shape} like vectors")
    up_to = np.array([p[rewards <= r].sum() for r in rewards])
    below = np.array([p[rewards < r].sum() for r in rewards])
    step = up_to - below
    return np.where(step > 0, p / np.where(step > 0, step, 1.0), 0.0) * (up_to**k - below**k)


def _checked(candidate: Mapping[str, Any]) -> np.ndarray:
    rewards = np.asarray(candidate["rewards"], np.float64)
    if not len(rewards) or rewards.shape != (len(candidate["responses"]),) or not np.isfinite(rewards).all():
        raise ValueError(
            f"prompt {candidate['prompt']!r}: needs a finite reward for each of one or more responses, got "
            f"{rewards.tolist()} for {len(candidate['responses'])}"
        )
    return rewards


def best_of_each(
    candidates: Iterable[Mapping[str, Any]], *, k: int | None = None
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The best of the first k responses of every prompt (None: of all), the first of several best ones; and counts.

    Raises:
      ValueError: k below 1, a prompt with fewer than k responses, or rewards that are not finite.
    """
    if k is not None and k < 1:
        raise ValueError(f"{k=} must be at least 1")
    out, counts = [], {"prompts": 0, "candidates": 0, "ties_for_the_best": 0, "left_out_after_the_first_k": 0}
    for candidate in candidates:
        rewards = _checked(candidate)
        if k is not None and len(rewards) < k:
            raise ValueError(f"prompt {candidate['prompt']!r}: {len(rewards)} responses, and {k=} asked for")
        counts["left_out_after_the_first_k"] += len(rewards[k:]) if k is not None else 0
        rewards = rewards[:k]
        best = int(np.argmax(rewards))
        counts["prompts"] += 1
        counts["candidates"] += len(rewards)
        counts["ties_for_the_best"] += int((rewards == rewards[best]).sum() > 1)
        out.append({"prompt": candidate["prompt"], "completion": candidate["responses"][best]})
    return out, counts


def best_of_all(
    candidates: Iterable[Mapping[str, Any]], *, share: float
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The best `share` of all responses, whatever their prompt (at least one); and counts, prompts without one too.

    Raises:
      ValueError: share not in (0, 1], or rewards that are not finite.
    """
    if not 0 < share <= 1:
        raise ValueError(f"{share=} must lie in (0, 1]")
    candidates = list(candidates)
    flat = [(c["prompt"], y, r) for c in candidates for y, r in zip(c["responses"], _checked(c), strict=True)]
    order = np.argsort([-r for *_, r in flat], kind="stable")[: max(1, round(share * len(flat)))]
    out = [{"prompt": flat[i][0], "completion": flat[i][1]} for i in sorted(order)]
    served = {repr(r["prompt"]) for r in out}
    counts = {"prompts": len(candidates), "candidates": len(flat), "kept": len(out)}
    counts["prompts_without_one"] = sum(repr(c["prompt"]) not in served for c in candidates)
    return out, counts
