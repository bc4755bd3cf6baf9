"""Pairs out of rollouts: of each group one completion is chosen and one rejected, so that losses on pairs train online.

A rollout has a row per prompt with its group of G completions (`alignment.training.rollouts.to_rows`). `of_rollout`
makes rows of the sides `SIDES` of it: the chosen, the rejected and, for kernels that name it, the opponent's
completions as `samples`. All is on the host, between sampling and the first update.
"""

from collections.abc import Callable, Mapping

import numpy as np

from alignment import statistics
from alignment.segments import BRANCHES

SIDES = ("chosen", "rejected", "samples")
# What a row of pairs has for kernels to name, and more of it when the run has a judge.
COLUMNS = ("valid", "ids", "group_ids", "prompt_ids", "margins", "behaviour_token_logps")
OF_A_JUDGE = ("preference_proportions", "chosen_win_rates", "rejected_win_rates")
Choose = Callable[[np.ndarray, Mapping[str, np.ndarray]], tuple[np.ndarray, np.ndarray]]


def best_and_worst(scores: np.ndarray, batch: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The completion with the highest score and, of the others, that with the lowest; of equal ones the first.

    Shapes: scores `[B, G]`; result int `[B]`, `[B]`.
    """
    rows = np.arange(len(scores))
    chosen = scores.argmax(axis=1)
    others = np.array(scores, np.float64)
    others[rows, chosen] = np.inf
    return chosen, others.argmin(axis=1)


def demonstration_and_sample(scores: np.ndarray, batch: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The last completion, which is the demonstration, and the first, which is a sample, whatever their scores.

    ValueError for a group that does not end with a demonstration (`config.rollout.demonstrations`).
    """
    if "demonstration_mask" not in batch or not batch["demonstration_mask"][:, -1].any(axis=-1).all():
        raise ValueError(
            "config.rollout.pairs: 'demonstration_and_sample' needs a demonstration for every prompt; set "
            "config.rollout.demonstrations"
        )
    size = len(scores)
    return np.full(size, scores.shape[1] - 1), np.zeros(size, int)


def of_rollout(
    batch: Mapping[str, np.ndarray], choose: Choose, *, margin: float = 0.0, margin_of_own: float | None = None,
    floor: float = -np.inf, with_samples: bool = False,
) -> dict[str, np.ndarray]:
    """Rows of pairs from rows of groups: what is said of tokens goes along, and the columns above say the rest.

    The score of a completion is its win rate, if the run has a judge, and its reward otherwise. A pair is valid if both
    of its completions are, its scores lie at least `margin` apart (at 0 ties count too) and the chosen one has at least
    `floor`. A margin of its own for what the policy itself wrote is the filter of practical DNO (Rosset et al., 2024,
    arXiv 2404.03715: of six points a floor of 5, a margin of 2, of 1 for the student's own).

    Args:
      batch: of `rollouts.to_rows`, with `rewards` [B, G] and, with a judge, `win_rates` [B, G] and `preferences`
        [B, G, G].
      choose: `best_and_worst` or `demonstration_and_sample`.
      margin: in [0, inf).
      margin_of_own: in [0, inf), in place of `margin` where the chosen completion is no demonstration; None: `margin`.
      floor: any number.
      with_samples: whether the opponent's completions (`opponents` [B, G], as many in each group) follow as `samples`.

    ValueError: a group of one, groups without as many opponents as the others, a margin below 0, a floor that is NaN.
    """
    rows, size = batch["mask"].shape[:2]
    if size < 2:
        raise ValueError("config.rollout.group_size: a pair needs a group of at least 2")
    if not margin >= 0:
        raise ValueError(f"config.rollout.pair_margin must lie in [0, inf), got {margin}")
    margin_of_own = margin if margin_of_own is None else margin_of_own
    if not margin_of_own >= 0:
        raise ValueError(f"config.rollout.pair_margin_of_own must lie in [0, inf), got {margin_of_own}")
    if np.isnan(floor):
        raise ValueError("config.rollout.pair_floor must be a number, got nan")
    scores = batch.get("win_rates", batch["rewards"])
    chosen, rejected = choose(scores, batch)
    places = np.stack([chosen, rejected], axis=1)
    if with_samples:
        counts = batch["opponents"].sum(axis=1)
        if not counts.min() == counts.max() > 0:
            raise ValueError(f"opponents: groups must have equally many of them, at least one; got {counts.tolist()}")
        places = np.concatenate([places, np.nonzero(batch["opponents"])[1].reshape(rows, -1)], axis=1)
    out = at_places(batch, places)
    at = np.arange(rows)

    def of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return values[at, chosen], values[at, rejected]

    higher, lower = of(scores)
    won, lost = of(batch["rewards"])
    # One of two infinite or NaN rewards has no difference; the kernels that read margins say what they allow.
    out["margins"] = (won - lost).astype(np.float32)
    shown = batch["demonstration_mask"].any(axis=-1) if "demonstration_mask" in batch else np.zeros((rows, size), bool)
    apart = np.where(shown[at, chosen], margin, margin_of_own)
    out["valid"] = np.logical_and(*of(batch["valid"])) & (np.abs(higher - lower) >= apart) & (higher >= floor)
    for name in ("group_ids", "prompt_ids"):
        out[name] = batch[name][:, 0]
    if "preferences" in batch:
        out["preference_proportions"] = batch["preferences"][at, chosen, rejected]
        out["chosen_win_rates"], out["rejected_win_rates"] = of(batch["win_rates"])
    return out


def at_places(batch: Mapping[str, np.ndarray], places: np.ndarray) -> dict[str, np.ndarray]:
    """Rows with the completions at `places` [B, S] of each group, in that order; one may stand there twice.

    The keys that a forward pass reads, `ids`, and the columns that say something of each token; the rest is left out.
    """
    rows, size, time = batch["mask"].shape
    width = batch["tokens"].shape[1] - size * time
    count = places.shape[1]
    at = np.arange(rows)[:, None]
    out = {"ids": batch["ids"]}
    for key in ("tokens", "positions", "segment_ids"):
        own = batch[key][:, width:].reshape(rows, size, time)[at, places]
        if key == "segment_ids":  # a completion that stands there twice must not see itself
            own = np.where(own != 0, (BRANCHES + 1 + np.arange(count))[None, :, None], 0)
        out[key] = np.concatenate([batch[key][:, :width], own.reshape(rows, -1)], axis=1).astype(np.int32)
    moved = time * (places - np.arange(count)[None]).astype(np.int32)
    out["last_index"] = (batch["last_index"][at, places] - moved).astype(np.int32)
    before = batch["predict_from"][at, places]
    # The first token is predicted by the prompt's last, which stays where it was.
    out["predict_from"] = np.where(before >= width, before - moved[..., None], before).astype(np.int32)
    of_tokens = ("targets", "mask", "support", *statistics.TOKEN_COLUMNS)
    for key, value in batch.items():
        if key in of_tokens or key.endswith(("token_logps", "token_values")):
            out[key] = value[at, places]
    return out
