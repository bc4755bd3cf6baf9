"""Several output heads on one trunk, an objective each: pi_h = softmax(W_h hidden(x)) (Shen et al., 2025, arXiv
2510.01167).

The heads are `params["output_heads"]` [H, V, D], beside the parameters of the plain model, whose own output matrix is
then not read. Which head scores a row follows from its `objective_ids`: with hidden states put in the block of their
head, [.., H D], and the heads side by side, [V, H D], one product gives every row the logits of its own head, and the
scoring pass stays as it is. Mixed logits sum_h w_h W_h h are those of one head, so a mixture is a plain model again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.models import decoder

Array = jax.Array

NAME = "output_heads"
NOISE = 1e-3


def add_heads(model: decoder.Model, params: Mapping[str, Any], count: int, rng: Array, noise: float = NOISE) -> dict:
    """The parameters and `count` heads: each the model's output matrix with noise of its own, N(0, noise^2)."""
    checks.positive_integer("count", count)
    checks.number("noise", noise, 0.0, closed="left")
    matrix = params["embedding" if model.config.tie_word_embeddings else "lm_head"]
    drawn = noise * jax.random.normal(rng, (count, *matrix.shape), jnp.float32)
    return {**params, NAME: (matrix[None] + drawn).astype(matrix.dtype)}


def wrap(model: decoder.Model, count: int) -> decoder.Model:
    """The model with `count` heads; where no objective is meant (sampling) it speaks with their mean."""

    def init(rng):
        return add_heads(model, model.init(rng), count, jax.random.fold_in(rng, 1))

    def head(params):
        return jnp.mean(params[NAME], axis=0).astype(model.config.dtype)

    def unembed(params, h):
        untied, plain = mix_heads(model.config, params, [1 / count] * count)
        return decoder.unembed(untied, plain, h)

    return model._replace(init=init, head=head, unembed=unembed)


def routed(params: Mapping[str, Any], completions: Array, objective_ids: Array, dtype: Any) -> tuple[Array, Array]:
    """Hidden states [B, S, T, H D], 0 outside the block of the row's head, and the output matrix [V, H D] that fits.

    `completions` [B, S, T, D] are the hidden states that predict, `objective_ids` [B] the head of each row. A number
    that is no head's gives logits of 0.
    """
    heads = params[NAME]
    count, size, width = heads.shape
    of_row = jax.nn.one_hot(objective_ids, count, dtype=completions.dtype)
    blocks = jnp.einsum("bh,bstd->bsthd", of_row, completions)
    matrix = heads.transpose(1, 0, 2).reshape(size, count * width)
    return blocks.reshape(*completions.shape[:-1], count * width), matrix.astype(dtype)


def mix_heads(config: decoder.DecoderConfig, params: Mapping[str, Any], weights: Sequence[float]) -> tuple[Any, dict]:
    """Config and parameters of the plain model whose logits are sum_h w_h W_h h, the weights brought to sum 1.

    The mixture is the normalised geometric mean of the heads' distributions; one weight alone is that head. (A soft cap
    on the logits comes after the mixing.) ValueError for weights that are not one number of at least 0 for each head,
    or all 0.
    """
    heads = params[NAME]
    values = checks.constants("weights", weights, heads.shape[0], 0.0)
    if not sum(weights) > 0:
        raise ValueError(f"weights must not all be 0, got {list(weights)}")
    mixed = jnp.einsum("h,hvd->vd", (values / jnp.sum(values)).astype(heads.dtype), heads)
    plain = {k: v for k, v in params.items() if k != NAME}
    return dataclasses.replace(config, tie_word_embeddings=False), {**plain, "lm_head": mixed}
