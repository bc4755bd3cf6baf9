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
from alignment.decoding.sampler import Drawing, Samples, Scorer
from alignment.models.decoder import Model, Params
from alignment.segments import BRANCHES

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
    scorer: Scorer | None = None,
    **drawing: Any,
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
      scorer: after `combine`, looks at where each of the likeliest tokens leads (`sampler.Scorer`); its `tilt` makes of
        that the logits that are drawn from. One more forward pass per token, of 1 + count columns.
      drawing: the fields of `sampler.Drawing`.

    Raises:
      ValueError: no model, names that differ, vocabularies that differ, `given` of another shape or longer than T, a
        scorer without a reward head or with no candidates, or what `sampler.sample` refuses, for any of the models.
      TypeError: no field of `Drawing`, or one missing.
    """
    drawing = Drawing(**drawing)
    if not models or set(models) != set(params):
        raise ValueError(f"models and params must have the same names, got {sorted(models)} and {sorted(params)}")
    sizes = {name: model.config.vocab_size for name, model in models.items()}
    if scorer is not None:
        sizes["scorer"] = scorer.model.config.vocab_size
    if len(set(sizes.values())) > 1:
        raise ValueError(f"models that decode together must share one vocabulary, got sizes {sizes}")
    if scorer is not None:
        if "scorer" in models:
            raise ValueError('models: "scorer" is the name of the scorer; call the language model something else')
        if "reward_head" not in scorer.params:
            raise ValueError("scorer: its parameters have no reward_head: it needs a model with reward_heads >= 1")
        most = min(sizes["scorer"], BRANCHES - 1)
        if not 1 <= scorer.count <= most:
            raise ValueError(f"scorer: count must be between 1 and {most}, got {scorer.count}")
    if given is not None:
        rows, length = len(prompts) * drawing.group_size, drawing.max_new_tokens
        tokens, lengths = given
        if np.shape(tokens) != (rows, length) or np.shape(lengths) != (rows,):
            raise ValueError(
                f"given must be tokens of shape {(rows, length)} and lengths of shape {(rows,)}, got "
                f"{np.shape(tokens)} and {np.shape(lengths)}"
            )
        if not isinstance(lengths, jax.core.Tracer) and np.max(lengths) > length:
            raise ValueError(f"given lengths must be at most max_new_tokens={length}, got {np.max(lengths)}")
        given = (jnp.asarray(tokens, jnp.int32), jnp.asarray(lengths, jnp.int32))
    return sampler.run(
        tuple(sorted(models.items())), combine, dict(params), dict(settings or {}), prompts, prompt_mask, rng, drawing,
        given, scorer,
    )  # fmt: skip
