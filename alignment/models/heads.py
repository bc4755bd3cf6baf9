"""Reward heads: a linear map from the hidden state of a token, usually a completion's last, to n scores (no bias).

One head is the reward model of Ouyang et al. (2022), arXiv:2203.02155; several serve many objectives or an ensemble.

The heads may also be those of a second network, whose parameters then stand beside the policy's under `VALUE_MODEL`:
the policy itself has no head then, and what trains the heads does not reach it.
"""

import dataclasses

import jax
import jax.numpy as jnp

from alignment.models.decoder import DecoderConfig, Params

Array = jax.Array

VALUE_MODEL = "value_model"


def rewards(params: Params, h: Array, last_index: Array) -> Array:
    """Scores of each completion, f32 [B, S, n], computed in float32 whatever the model's dtype.

    Args:
      params: with "reward_head" [D, n] (a config with reward_heads = n > 0, or `add_reward_heads`).
      h: [B, L, D] hidden states of the rows.
      last_index: i32 [B, S] column of each completion's last real token.

    Raises:
      ValueError: the parameters have no reward head.
    """
    return _apply(params, jnp.take_along_axis(h, last_index[..., None], axis=1))


def token_scores(params: Params, h: Array) -> Array:
    """Scores of every column of the rows, f32 [B, L, n], computed in float32 whatever the model's dtype.

    Args:
      params: with "reward_head" [D, n].
      h: [B, L, D] hidden states of the rows.

    Raises:
      ValueError: the parameters have no reward head.
    """
    return _apply(params, h)


def weights(params: Params) -> Array:
    """The heads' weight rows, f32 [n, D].

    Raises:
      ValueError: the parameters have no reward head.
    """
    return _head(params).T


def _head(params: Params) -> Array:
    if "reward_head" not in params:
        raise ValueError("the parameters have no reward_head: set reward_heads >= 1 in the model's config")
    return params["reward_head"].astype(jnp.float32)


def _apply(params: Params, h: Array) -> Array:
    return jnp.matmul(h.astype(jnp.float32), _head(params), precision="highest")


def add_reward_heads(
    config: DecoderConfig, params: Params, rng: Array, reward_heads: int = 1, std: float = 0.02
) -> tuple[DecoderConfig, Params]:
    """Gives a language model (a loaded checkpoint, say) fresh heads drawn from Normal(0, std)."""
    if reward_heads < 1:
        raise ValueError(f"reward_heads must be >= 1, got {reward_heads}")
    draw = std * jax.random.normal(rng, (config.hidden_size, reward_heads), jnp.float32)
    return dataclasses.replace(config, reward_heads=reward_heads), params | {
        "reward_head": draw.astype(config.param_dtype)
    }


def add_value_model(config: DecoderConfig, params: Params, rng: Array) -> Params:
    """The parameters with a second network beside them: a copy of the first with one fresh head."""
    _, with_head = add_reward_heads(config, jax.tree.map(jnp.copy, params), rng)
    return params | {VALUE_MODEL: with_head}


def value_params(params: Params) -> Params:
    """The parameters of the network that bears the heads: the second one if there is one."""
    return params.get(VALUE_MODEL, params)


def policy_params(params: Params) -> Params:
    """The parameters without the second network, if there is one."""
    return {name: value for name, value in params.items() if name != VALUE_MODEL}
