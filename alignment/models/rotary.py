"""Rotary positions (Su et al. 2021, arXiv:2104.09864) and the ways to stretch them to longer contexts."""

import math

import jax
import jax.numpy as jnp

from alignment.models.config import DecoderConfig, RopeScaling

Array = jax.Array


def frequencies(config: DecoderConfig) -> Array:
    """Angle per position of each rotated pair, f32 [head_dim / 2]."""
    plain = _plain(config.rope_theta, config.head_dim)
    scaling = config.rope_scaling
    if scaling is None:
        return plain
    if scaling.rope_type == "linear":
        return plain / scaling.factor
    keep = _llama3_share(scaling, plain) if scaling.rope_type == "llama3" else _yarn_share(config, scaling)
    return keep * plain + (1 - keep) * plain / scaling.factor


def local_frequencies(config: DecoderConfig) -> Array:
    """Those of sliding layers with a theta of their own: never scaled, since a window needs no longer context."""
    return _plain(config.rope_local_theta, config.head_dim)


def magnitude(config: DecoderConfig) -> float:
    """What cosines and sines are multiplied by: YaRN's attention factor, else 1."""
    scaling = config.rope_scaling
    if scaling is None or scaling.rope_type != "yarn":
        return 1.0
    given = scaling.attention_factor
    return 0.1 * math.log(scaling.factor) + 1.0 if given is None else given


def rotation(frequencies: Array, positions: Array, magnitude: float = 1.0) -> tuple[Array, Array]:
    """(cos, sin), each f32 [B, Q, 1, d/2], of positions i32 [B, Q]."""
    angles = positions.astype(jnp.float32)[..., None, None] * frequencies
    return magnitude * jnp.cos(angles), magnitude * jnp.sin(angles)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Rotates the pairs (x_i, x_{i + d/2}) in float32; x is [B, Q, heads, d], cos and sin [B, Q, 1, d/2]."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def _plain(theta: float, size: int) -> Array:
    return theta ** (-jnp.arange(0, size, 2, dtype=jnp.float32) / size)


def _llama3_share(scaling: RopeScaling, plain: Array) -> Array:
    """How much of each frequency is kept, by the turns it makes within the original context."""
    turns = scaling.original_max_position_embeddings * plain / (2 * math.pi)
    keep = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    return jnp.clip(keep, 0.0, 1.0)


def _yarn_share(config: DecoderConfig, scaling: RopeScaling) -> Array:
    """As above, but linear in the pair's number between the pairs that make beta_fast and beta_slow turns."""

    def pair_with(turns: float) -> float:
        context = scaling.original_max_position_embeddings
        return config.head_dim * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(config.rope_theta))

    low, high = pair_with(scaling.beta_fast), pair_with(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    # The upper bound is the paper's code's and transformers': head_dim - 1, although there are head_dim / 2 pairs.
    low, high = max(low, 0), min(high, config.head_dim - 1)
    width = max(high - low, 1e-3)
    return 1 - jnp.clip((jnp.arange(config.head_dim // 2, dtype=jnp.float32) - low) / width, 0.0, 1.0)
