"""Sampling from several models at once: a function of their logits says what each token is drawn from.

    def contrast(logits, *, strength):
        return (1 + strength) * logits["expert"] - strength * logits["amateur"]

    guided.sample({"expert": big, "amateur": small}, {"expert": big_params, "amateur": small_params}, contrast,
                  prompts, prompt_mask, rng, settings={"strength": 0.5}, max_new_tokens=64, eos_id=END, pad_id=PAD)

Each model keeps a cache of its own, reads each prompt once, and makes one forward pass per token. The loop is that of
`sampler.sample`, which is the case of one model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alignment.decoding import sampler
from alignment.decoding.sampler import Samples
from alignment.models.decoder import Model, Params

Array = jax.Array
Combine = Callable[..., Array]  # ({name: logits [B, V]}, **settings) -> logits [B, V]; -inf is never drawn


def sample(
    models: Mapping[str, Model],
    params: Mapping[str, Params],
    combine: Combine,
    prompts: Array,
    prompt_mask: Array,
    rng: Array,
    *,
    settings: Mapping[str, Any] | None = None,
    given: tuple[Array, Array] | None = None,
    max_new_tokens: int,
    group_size: int = 1,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    eos_id: int | tuple[int, ...],
    pad_id: int,
    with_entropies: bool = False,
    with_support: bool = False,
) -> Samples:
    """Draws `group_size` completions per prompt from the distribution that `combine` makes of the models' logits.

    Whatever is not said here is as in `sampler.sample`: temperature and truncation act on the combined logits, and the
    log-probs returned are those of the distribution that each token was drawn from.

    Args:
      models, params: by name, the same names in both; all of one vocabulary.
      combine: pure; a row's result must depend on that row's logits alone. At least one token of every row must be
        finite. Keep one function: a new one (a lambda, a partial) compiles anew.
      settings: keyword arguments of `combine` that may change from call to call without compiling anew: numbers, or
        arrays of B * group_size rows.
      given: (tokens i32 [B * group_size, T], lengths i32 [B * group_size]): each row begins with so many of its tokens,
        which are not drawn and have log-prob 0, and goes on from there. None: all is drawn.

    Raises:
      ValueError: no model, names that differ, vocabularies that differ, `given` of another shape or longer than T, or
        what `sampler.sample` refuses, for any of the models.
    """
    if not models or set(models) != set(params):
        raise ValueError(f"models and params must have the same names, got {sorted(models)} and {sorted(params)}")
    sizes = {name: model.config.vocab_size for name, model in models.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"models that decode together must share one vocabulary, got sizes {sizes}")
    if given is not None:
        rows = len(prompts) * group_size
        tokens, lengths = given
        if np.shape(tokens) != (rows, max_new_tokens) or np.shape(lengths) != (rows,):
            raise ValueError(
                f"given must be tokens of shape {(rows, max_new_tokens)} and lengths of shape {(rows,)}, got "
                f"{np.shape(tokens)} and {np.shape(lengths)}"
            )
        if not isinstance(lengths, jax.core.Tracer) and np.max(lengths) > max_new_tokens:
            raise ValueError(f"given lengths must be at most max_new_tokens={max_new_tokens}, got {np.max(lengths)}")
        given = (jnp.asarray(tokens, jnp.int32), jnp.asarray(lengths, jnp.int32))
    return sampler.run(
        tuple(sorted(models.items())), combine, dict(params), dict(settings or {}), prompts, prompt_mask, given, rng,
        max_new_tokens=max_new_tokens, group_size=group_size, temperature=temperature, top_k=top_k, top_p=top_p,
        min_p=min_p, eos_id=eos_id, pad_id=pad_id, with_entropies=with_entropies, with_support=with_support,
    )  # fmt: skip
