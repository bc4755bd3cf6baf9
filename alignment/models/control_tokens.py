"""Control tokens: learned embeddings that a prompt begins with, a set of its own for each kind of answer.

Prompt tuning (Lester et al., 2021, arXiv 2104.08691) as the first stage of MEET (Xue et al., 2023, arXiv 2310.00819),
which learns one set for good and one for bad answers with the language model frozen, and then finetunes everything.

The sets are `params["control_embeddings"]` [N, P, D], beside the parameters of the plain model. In a row the tokens of
set s are the numbers from V + s P on, behind the vocabulary of V: they are read and never predicted. That is all that a
model has to know of them; positions, attention, caches and the output matrix are those of any other token. How they
come into rows and prompts is in `alignment.data.controls`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.models import decoder

Array = jax.Array

NAME = "control_embeddings"


def wrap(model: decoder.Model, sets: int, length: int) -> decoder.Model:
    """The model with `sets` sets of `length` control tokens each, at first N(0, 0.02^2) as other embeddings."""
    checks.positive_integer("sets", sets)
    checks.positive_integer("length", length)
    shape, dtype = (sets, length, model.config.hidden_size), jnp.dtype(model.config.param_dtype)

    def init(rng):
        drawn = 0.02 * jax.random.normal(jax.random.fold_in(rng, 3), shape, jnp.float32)
        return {**model.init(rng), NAME: drawn.astype(dtype)}

    def hidden(params, *row, **settings):
        return model.hidden(with_table(params), *row, **settings)

    return model._replace(init=init, hidden=hidden)


def with_table(params: Mapping[str, Any]) -> dict:
    """The parameters with the control tokens behind the vocabulary in the table of embeddings that a row is looked up
    in; the output matrix is not to be read from these."""
    controls = params[NAME].reshape(-1, params[NAME].shape[-1])
    return {**params, "embedding": jnp.concatenate([params["embedding"], controls.astype(params["embedding"].dtype)])}
