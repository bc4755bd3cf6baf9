"""What a masked diffusion model is shown: maskings of responses, and rows in which hidden tokens are to be predicted.

Rows are those of `rollouts.to_rows`: a prompt once, then its responses, each of which sees the prompt and itself. A
place predicts its own token, there is no shift by one; everything else of the scoring pass and of the step is as ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from alignment.policy_gradients import mdlm_masks


class Maskings(NamedTuple):
    """n maskings of each response."""

    hidden: jax.Array  # bool [n, ..., L]
    times: jax.Array  # f32 [n, ...], what the terms of the bound are divided by


def by_time(rng: jax.Array, shape: tuple[int, ...], count: int) -> Maskings:
    """t uniform on (0, 1], then each of the L tokens hidden with probability t. `shape` is [..., L]."""
    time_rng, token_rng = jax.random.split(rng)
    times = 1 - jax.random.uniform(time_rng, (*shape[:-1], count))
    hidden = mdlm_masks(jax.random.uniform(token_rng, (*times.shape, shape[-1])), times, jnp.ones(shape, bool))
    return Maskings(jnp.moveaxis(hidden, -2, 0), jnp.moveaxis(times, -1, 0))


def by_count(rng: jax.Array, shape: tuple[int, ...], count: int) -> Maskings:
    """l uniform on 1 .. L, then l of the L tokens hidden: the same bound with less noise, t being l / L."""
    size_rng, order_rng = jax.random.split(rng)
    sizes = jax.random.randint(size_rng, (count, *shape[:-1]), 1, shape[-1] + 1)
    ranks = jnp.argsort(jnp.argsort(jax.random.uniform(order_rng, (count, *shape)), axis=-1), axis=-1)
    return Maskings(ranks < sizes[..., None], sizes / shape[-1])


DRAWS = {"time": by_time, "count": by_count}


def everything(shape: tuple[int, ...]) -> Maskings:
    """The one masking of the mean-field log-probs: the whole response is hidden."""
    return Maskings(jnp.ones((1, *shape), bool), jnp.ones((1, *shape[:-1])))


def masked_rows(
    batch: Mapping[str, jax.Array], hidden: jax.Array, mask: jax.Array, mask_id: int, prompt_hidden: jax.Array
) -> dict[str, jax.Array]:
    """The same rows with [MASK] for what is hidden, to be scored where `mask` says.

    `hidden` and `mask` are bool [B, S, L], `prompt_hidden` bool [B, W]. A token under `mask` that is not hidden would
    be predicted from itself.
    """
    width = prompt_hidden.shape[1]
    at = jnp.concatenate([prompt_hidden, hidden.reshape(len(hidden), -1)], axis=1)
    own = width + jnp.arange(hidden[0].size).reshape(hidden.shape[1:])
    return {
        **batch,
        "tokens": jnp.where(at, mask_id, batch["tokens"]).astype(jnp.int32),
        "predict_from": jnp.broadcast_to(own, hidden.shape).astype(jnp.int32),
        "mask": mask,
    }
