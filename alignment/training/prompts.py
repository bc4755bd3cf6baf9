"""What one forward pass over prompts alone says of them, before anything is sampled."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from alignment.models import heads
from alignment.policy_gradients import angle_concentration_within
from alignment.segments import BRANCHES

Array = jax.Array


def _hidden(model, params: Any, tokens: Array, mask: Array) -> Array:
    positions = jnp.maximum(jnp.cumsum(mask, axis=-1, dtype=jnp.int32) - 1, 0)
    return model.hidden(params, tokens, positions, jnp.where(mask, BRANCHES, 0).astype(jnp.int32))[0]


def values(model, params: Any, tokens: Array, mask: Array) -> Array:
    """The value head at the last token of each prompt, before any completion: f32 [B]; `prompt_values` of a rollout.

    Args:
      tokens, mask: i32 and bool [B, P], padded on the left.
    """
    params = heads.value_params(params)
    return heads.token_scores(params, _hidden(model, params, tokens, mask)[:, -1:])[:, 0, 0]


def last_mlp_inputs(model, params: Any, tokens: Array, mask: Array) -> Array:
    """What enters the up-projection of the last layer's MLP, [B, P, D].

    A decoder that ends before that MLP: its output is set to 0, and its norm takes the place of the final one.
    """
    layers = params["layers"]
    cut = {**params, "layers": {**layers, "down": layers["down"].at[-1].set(0.0)}, "final_norm": layers["mlp_norm"][-1]}
    return _hidden(model, cut, tokens, mask)


def concentrations(model, params: Any, tokens: Array, mask: Array) -> Array:
    """`angle_concentration_within` of each prompt, f32 [B]: all of the prompt counts as the question."""
    return angle_concentration_within(last_mlp_inputs(model, params, tokens, mask), mask)
