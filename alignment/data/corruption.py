"""What is done to a batch on its way to the model: other inputs, with targets that stay, or draws for each row.

A corruption is a function (batch, rngs, progress, **hyperparameters) -> batch. `rngs` holds a generator per row, which
depends on the run's seed and on the place of the row in the endless stream alone, so that a resumed run and one on more
processes corrupt alike; `progress` is the share of the training steps that are done, in [0, 1].
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from alignment import checks
from alignment.data import curricula
from alignment.data.collating import Batch

Rngs = Sequence[np.random.Generator]


def completion_columns(batch: Batch) -> np.ndarray:
    """Column of the row in which each completion token itself stands, i64 [B, S, T]; 0 behind the mask."""
    mask, slots = batch["mask"], np.arange(batch["mask"].shape[-1])
    if slots.size == batch["tokens"].shape[-1]:
        columns = np.broadcast_to(slots, mask.shape)  # packed: target t is the token of column t
    else:
        columns = (batch["last_index"] - mask.sum(axis=-1) + 1)[..., None] + slots
    return np.where(mask, columns, 0)


def _replaced(batch: Batch, chosen: np.ndarray, tokens: np.ndarray | int) -> Batch:
    """The batch with other tokens where `chosen` [B, S, T] of the completions are read."""
    rows, columns = np.nonzero(chosen)[0], completion_columns(batch)[chosen]
    inputs = batch["tokens"].copy()
    inputs[rows, columns] = tokens[chosen] if isinstance(tokens, np.ndarray) else tokens
    return batch | {"tokens": inputs}


def _drawn(batch: Batch, rngs: Rngs, share: float) -> np.ndarray:
    """Each completion token with probability `share`, bool [B, S, T]."""
    shape = batch["mask"].shape[1:]
    return np.stack([rng.random(shape) < share for rng in rngs]) & batch["mask"]


def masked_thought(
    batch: Batch, rngs: Rngs, progress: float, *, mask_id: int, share: float = 0.4, warmup: float = 2 / 3
) -> Batch:
    """Masked thought: each completion token that the model reads is `mask_id` with probability p, the labels the true.

        p = share * min(1, progress / warmup)

    The prompt stays whole, and a trained model reads clean text.

    Args:
      mask_id: a token that no text has; it is never a label, so that it is not learnt to be written.
      share: in [0, 1]; 0.4 in the paper for GSM8K, else 0.2. 0 is plain fine-tuning.
      warmup: share of the training in which p rises, in [0, 1]; 0 for none.

    Paper: Chen et al., 2024, arXiv 2403.02178. As in the authors' code for GSM8K; elsewhere it warms up over a fixed
      number of examples.
    """
    checks.number("share", share, 0.0, 1.0, closed="both")
    checks.number("warmup", warmup, 0.0, 1.0, closed="both")
    rate = share * (min(1.0, progress / warmup) if warmup else 1.0)
    return _replaced(batch, _drawn(batch, rngs, rate), mask_id)


def random_substitution(batch: Batch, rngs: Rngs, progress: float, *, vocabulary: int, share: float = 0.15) -> Batch:
    """RTS and SLM: completion tokens are replaced by random ones, and `trained_mask` says which.

    Only tokens below `vocabulary` are replaced, by one of these; the end token is not. A token may be drawn in its own
    place, and counts as replaced, as in the authors' code.

    Args:
      vocabulary: how many ordinary tokens there are, in front of the special ones; 256 for bytes.
      share: in [0, 1].

    Paper: Di Liello, 2023, arXiv 2309.08272.
    """
    del progress
    checks.positive_integer("vocabulary", vocabulary)
    checks.number("share", share, 0.0, 1.0, closed="both")
    chosen = _drawn(batch, rngs, share) & (batch["targets"] < vocabulary)
    others = np.stack([rng.integers(vocabulary, size=chosen.shape[1:]) for rng in rngs])
    return _replaced(batch, chosen, others) | {"trained_mask": chosen}


def crts_cluster_law(counts: np.ndarray, *, beta: float = 2.0) -> np.ndarray:
    """C-RTS: from which cluster the replacement of a token of each cluster comes, softmax(beta * minmax(counts)).

    counts[i, j] says how often the detector took a token of cluster j, put for one of cluster i, for the text's own. A
    row of equal counts gives the uniform law, and so does beta = 0.

    Shapes: counts and result float64 `[C, C]`; rows of the result sum to 1.

    Paper: Di Liello, 2023, arXiv 2309.08272; the token is then uniform in its cluster.
    """
    checks.number("beta", beta, 0.0, closed="left")
    counts = np.asarray(counts, np.float64)
    low, high = counts.min(axis=-1, keepdims=True), counts.max(axis=-1, keepdims=True)
    scaled = beta * (counts - low) / np.where(high > low, high - low, 1.0)
    weights = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def climb_vocabulary(
    batch: Batch,
    rngs: Rngs,
    progress: float,
    *,
    ranks: np.ndarray,
    unk_id: int,
    pacing: str = "linear",
    start: float = 0.0625,
    end: float = 0.875,
    lowest: float = 0.1,
    highest: float = 1.0,
) -> Batch:
    """CLIMB's vocabulary curriculum: the rarer tokens are <unk> at first, and are no labels (`trained_mask`).

    A token is known once its rank is below c * (number of tokens), c from `curricula.climb_pacing`. Prompts and
    completions are treated alike.

    Args:
      ranks: place of each token id in the order of frequency, the most frequent 0.
      unk_id: the token that stands for unknown ones; it is always known.
      pacing, start, end, lowest, highest: of `curricula.climb_pacing`.

    Paper: Diehl Martinez et al., 2023, arXiv 2311.08886. The authors report no consistent gain.
    """
    del rngs
    share = curricula.climb_pacing(progress, pacing=pacing, start=start, end=end, lowest=lowest, highest=highest)
    known = ranks < np.ceil(share * len(ranks))
    known[unk_id] = True
    inputs = np.where(known[batch["tokens"]], batch["tokens"], unk_id).astype(np.int32)
    return batch | {"tokens": inputs, "trained_mask": batch["mask"] & known[batch["targets"]]}


def mixup(batch: Batch, rngs: Rngs, progress: float, *, alpha: float = 0.5) -> Batch:
    """`mix_weights`, one draw of Beta(alpha, alpha) for every row: where a mixture of its first two sides lies.

    alpha = 1 is uniform, below it most draws are near 0 or 1, and alpha to infinity gives 1/2.

    Args:
      alpha: in (0, inf).

    Paper: Zhang et al., 2017, arXiv 1710.09412; one draw for a pair of texts as in Xiao et al., 2024, arXiv 2410.05248.
    """
    del progress
    checks.number("alpha", alpha, 0.0)
    if batch["mask"].shape[1] < 2:
        raise ValueError("rows of one completion have nothing to mix; two sides are needed")
    return batch | {"mix_weights": np.array([rng.beta(alpha, alpha) for rng in rngs], np.float32)}


def everything_known(batch: Batch, rngs: Rngs, progress: float) -> Batch:
    """What evaluation sees of a run with `climb_vocabulary`."""
    del rngs, progress
    return batch | {"trained_mask": batch["mask"]}


class Corruption(NamedTuple):
    """What becomes of training batches, and of evaluation batches (None: nothing)."""

    training: Callable[..., Batch]
    evaluation: Callable[..., Batch] | None


CORRUPTIONS = {
    "masked_thought": Corruption(masked_thought, None),
    "random_substitution": Corruption(random_substitution, random_substitution),
    "climb_vocabulary": Corruption(climb_vocabulary, everything_known),
    "mixup": Corruption(mixup, mixup),
}
