"""Noise on the embeddings of the tokens that a model is trained on (NEFTune)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.segments import BRANCHES

Array = jax.Array


def neftune_noise(seeds: Array, segment_ids: Array, width: int, *, alpha: float) -> Array:
    """alpha / sqrt(L d) times uniform numbers in [-1, 1): what is added to the embeddings of a row.

    L is the number of tokens of the sequence that a token belongs to, padding not counted (of packed sequences each has
    its own; of a tree all branches together), so that the noise of a sequence has the expected squared norm alpha^2 / 3
    whatever its length and the width d.

    Args:
      seeds: a number for each row that the draw follows from, new at every step.
      segment_ids: as in `alignment.segments`; padding gets no noise.
      width: d, of the embeddings.
      alpha: in [0, inf); 5, 10 and 15 in the paper.

    Shapes: seeds `[B]`, segment_ids `[B, L]`; result float32 `[B, L, width]`.

    Raises:
      ValueError: static alpha out of range.

    Paper: Jain et al., 2023, arXiv 2310.05914. transformers and TRL take the padded length for L, which makes the noise
    depend on what else is in the batch; the paper is followed.
    """
    checks.number("alpha", alpha, 0.0, closed="left")
    trees = segment_ids // BRANCHES

    def row(seed: Array, tree: Array) -> Array:
        lengths = jax.ops.segment_sum(jnp.ones_like(tree), tree, num_segments=tree.shape[0] + 1)[tree]
        draws = jax.random.uniform(jax.random.key(seed), (tree.shape[0], width), minval=-1.0, maxval=1.0)
        scale = alpha / jnp.sqrt(lengths.astype(jnp.float32) * width)
        return jnp.where(tree[:, None] > 0, scale[:, None] * draws, 0.0)

    return jax.vmap(row)(seeds, trees)


def with_noise(losses: Callable, width: int, *, alpha: float) -> Callable:
    """`losses` of `step.make_losses` with noise on the policy's embeddings in training, where a batch has `seeds`.

    Evaluation and frozen models are without. The noise travels with the parameters (`embedding_noise`), which a model
    adds to the embeddings it looks up, before their scale and before positions.
    """

    def noisy(params: Mapping[str, Any], frozen_params, method_state, batch):
        if "seeds" in batch:
            noise = neftune_noise(batch["seeds"], batch["segment_ids"], width, alpha=alpha)
            params = {**params, "embedding_noise": noise}
        return losses(params, frozen_params, method_state, batch)

    return noisy
