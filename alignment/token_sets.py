"""Sets of tokens as bits, 32 to a word: what may be drawn at each place, in a 32nd of the memory of its logits."""

import jax
import jax.numpy as jnp

Array = jax.Array


def words(vocabulary: int) -> int:
    """How many words hold one bit per token."""
    return -(-vocabulary // 32)


def pack(members: Array) -> Array:
    """bool [..., V] as uint32 [..., ceil(V / 32)]; token v is bit v % 32 of word v // 32."""
    vocabulary = members.shape[-1]
    pad = [(0, 0)] * (members.ndim - 1) + [(0, -vocabulary % 32)]
    bits = jnp.pad(members, pad).reshape(*members.shape[:-1], words(vocabulary), 32).astype(jnp.uint32)
    return jnp.sum(bits << jnp.arange(32, dtype=jnp.uint32), axis=-1, dtype=jnp.uint32)


def contains(packed: Array, ids: Array) -> Array:
    """Whether each set holds each of the tokens: packed uint32 [..., W], ids int32 [C] to bool [..., C]."""
    picked = jnp.take(packed, ids // 32, axis=-1)
    return ((picked >> (ids % 32).astype(jnp.uint32)) & 1).astype(bool)
