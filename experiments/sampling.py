"""Sampling with a tokenizer: prompts as token ids in, texts and log-probs out, in batches of one shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignment.decoding import sampler
from alignment.training import mesh, rollouts


class Drawn(NamedTuple):
    text: str
    tokens: list[int]  # without the end token
    logps: list[float]  # of `tokens`, and of the end token if there is one
    finished: bool  # the model ended it; otherwise the length did


def texts(tokenizer, tokens: np.ndarray, mask: np.ndarray) -> list[str]:
    """The completions as text, without end tokens."""
    return [
        tokenizer.decode([int(t) for t in row[keep] if t != tokenizer.eos_id])
        for row, keep in zip(tokens, mask, strict=True)
    ]


def offsets(tokenizer, ids: np.ndarray) -> list[tuple[int, int]]:
    """Where each token of a completion stands in its text, as `texts` gives it: (start, end) in characters.

    A token that completes nothing (a later byte of one character) stands where the one before it does; end tokens have
    no text. Found by decoding every beginning, so for completions, not for books.
    """
    text = texts(tokenizer, ids[None], np.ones((1, len(ids)), bool))[0]
    out, before = [], 0
    for i, token in enumerate(ids):
        if token == tokenizer.eos_id:
            out.append((before, before))
            continue
        after = min(len(text), len(tokenizer.decode([int(t) for t in ids[: i + 1] if t != tokenizer.eos_id])))
        out.append((before, after) if after > before else (out[-1] if out else (before, before)))
        before = max(before, after)
    return out


def complete(
    model,
    params,
    tokenizer,
    prompts: Sequence[Sequence[int]],
    rng: jax.Array,
    *,
    prompt_length: int,
    completion_length: int,
    temperature: float,
    batch_size: int = 0,
    levels: Sequence[Sequence[int]] | None = None,
) -> list[Drawn]:
    """One completion per prompt; `batch_size` rows at a time (0: all at once), each batch with its own key.

    `levels` are those of the prompts' tokens, for a model with instruction levels.
    """
    size = batch_size or len(prompts)
    out: list[Drawn] = []
    for number, first in enumerate(range(0, len(prompts), size)):
        part = list(prompts[first : first + size])
        rows = part + [part[0]] * (size - len(part))  # one shape, one compilation
        tokens, mask = rollouts.pad_prompts(rows, prompt_length, tokenizer.pad_id)
        if levels is not None:
            of_rows = list(levels[first : first + size])
            of_rows, _ = rollouts.pad_prompts(of_rows + [of_rows[0]] * (size - len(part)), prompt_length, 0)
        drawn = sampler.sample(
            model,
            params,
            jnp.asarray(tokens),
            jnp.asarray(mask),
            rng if not batch_size else jax.random.fold_in(rng, number),
            max_new_tokens=completion_length,
            temperature=temperature,
            eos_id=tokenizer.eos_id,
            pad_id=tokenizer.pad_id,
            instruction_levels=None if levels is None else jnp.asarray(of_rows),
        )
        columns = tuple(mesh.to_host(x) for x in (drawn.tokens, drawn.mask, drawn.logps))
        for ids, keep, logps in list(zip(*columns, strict=True))[: len(part)]:
            kept = [int(t) for t in ids[keep]]
            finished = bool(kept) and kept[-1] == tokenizer.eos_id
            words = kept[:-1] if finished else kept
            out.append(Drawn(tokenizer.decode(words), words, [float(x) for x in logps[keep]], finished))
    return out
