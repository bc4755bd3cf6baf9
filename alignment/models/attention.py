"""Dense attention under any mask, arranged so that little is kept for the backward pass and little is read twice."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

Array = jax.Array

# Finite, so that a query with no visible key gets a uniform softmax instead of NaN.
MASKED_SCORE = -1e30
BLOCK, MOST_BLOCKS = 128, 8


ROW, KEYS, VALUES = "bsnd", "bnds", "bnsd"  # how keys and values lie: as a row's projections, and in a cache


def attend(q: Array, k: Array, v: Array, mask: Array, *, scale: float, softcap: float | None = None) -> Array:
    """softmax(softcap(scale q k^T), where visible) v, with a float32 softmax; K and V are never repeated for the heads.

    q [B, Q, H, d], k and v [B, S, K, d], mask bool [B, Q, S] -> [B, Q, H * d].
    """
    return _attend(q, k, v, mask, scale, softcap, ROW, ROW)


def attend_cache(q: Array, k: Array, v: Array, mask: Array, *, scale: float, softcap: float | None = None) -> Array:
    """`attend` with k [B, K, d, S] and v [B, K, S, d]: both products then read them as they lie.

    For one query per row, as in decoding, arranging [B, S, K, d] anew takes several times as long as the products.
    """
    return _attend(q, k, v, mask, scale, softcap, KEYS, VALUES)


def _attend(q, k, v, mask, scale, softcap, keys: str, values: str) -> Array:
    batch, columns, heads, size = q.shape
    groups = k.shape[keys.index("n")]
    # One matrix product per row and group: [heads of the group x queries, d] by [d, keys].
    q = q.reshape(batch, columns, groups, heads // groups, size).transpose(0, 2, 3, 1, 4)
    q = q.reshape(batch, groups, -1, size)
    scores = jnp.einsum(f"bnmd,{keys}->bnms", q, k, preferred_element_type=jnp.float32) * scale
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    scores = scores.reshape(batch, groups, heads // groups, columns, -1)
    scores = jnp.where(mask[:, None, None], scores, MASKED_SCORE)
    # Divided by the sum after the product with v: d divisions per query instead of one per key, and on a CPU a backward
    # pass three times as fast as that of `jax.nn.softmax`. The maximum keeps exp from overflowing; it has no gradient.
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    total = weights.sum(axis=-1)
    weights = weights.reshape(batch, groups, -1, weights.shape[-1]).astype(v.dtype)
    out = jnp.einsum(f"bnms,{values}->bnmd", weights, v, preferred_element_type=jnp.float32)
    out = (out.reshape(batch, groups, -1, columns, size) / total[..., None]).astype(v.dtype)
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, columns, heads * size)


def blocks(columns: int) -> list[tuple[int, int]]:
    """(first query, end) of the blocks of a causal row; a block reads the keys up to its end."""
    size = max(BLOCK, -(-columns // MOST_BLOCKS))
    return [(start, min(start + size, columns)) for start in range(0, columns, size)]


def attend_row(
    q: Array,
    k: Array,
    v: Array,
    mask: Array,
    *,
    scale: float,
    softcap: float | None = None,
    causal: bool = True,
    in_scan: bool = False,
) -> Array:
    """`attend` over whole rows (S = Q). Of a causal model no query sees a key to its right: blocks leave those out.

    At most eight blocks, so that a long row does not compile for long: they read 0.56 of the square. For the backward
    pass only q, k and v are kept, and the scores made again: [B, H, Q, S] arrays of every layer would fill the memory,
    and on a CPU reading them back takes as long as computing them.
    """
    attend_block = jax.checkpoint(functools.partial(attend, scale=scale, softcap=softcap), prevent_cse=not in_scan)
    parts = []
    for start, end in blocks(q.shape[1]) if causal else [(0, q.shape[1])]:
        parts.append(attend_block(q[:, start:end], k[:, :end], v[:, :end], mask[:, start:end, :end]))
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)
