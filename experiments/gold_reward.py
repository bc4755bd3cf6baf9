"""How good a model's samples really are, on the generated corpus, whose true reward is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from alignment.data import corpus, rows
from alignment.decoding import sampler


def sample(
    model, params, tokenizer, *, samples: int, prompt_length: int, completion_length: int, temperature: float
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Samples completions of held-out prompts: (texts, gold rewards of the samples, gold rewards of demonstrations).

    Prompts, opponents and random key are always the same, so that two models are compared on equal terms.
    """
    rng = np.random.default_rng(12345)
    held_out = corpus.prompts("test")
    prompts = [held_out[i % len(held_out)] for i in range(samples)]
    tokens = np.full((len(prompts), prompt_length), tokenizer.pad_id, np.int32)
    mask = np.zeros(tokens.shape, bool)
    for row, prompt in enumerate(prompts):
        ids = rows.encode_prompt(prompt, tokenizer)
        tokens[row, prompt_length - len(ids) :], mask[row, prompt_length - len(ids) :] = ids, True
    drawn = sampler.sample(
        model,
        params,
        jnp.asarray(tokens),
        jnp.asarray(mask),
        jax.random.key(7),
        max_new_tokens=completion_length,
        temperature=temperature,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
    )
    out, keep = np.asarray(drawn.tokens), np.asarray(drawn.mask)
    words = [[int(t) for t in row[k] if t != tokenizer.eos_id] for row, k in zip(out, keep, strict=True)]
    texts = [tokenizer.decode(w) for w in words]
    rewards = np.array([corpus.gold_reward(p, t) for p, t in zip(prompts, texts, strict=True)])
    opponents = np.array([corpus.gold_reward(p, corpus.demonstration(p, rng)) for p in prompts])
    return texts, rewards, opponents


def win_rate(rewards: np.ndarray, opponents: np.ndarray) -> float:
    """Share of prompts on which the sample beats the demonstration; a tie is half a win."""
    return float(np.mean((rewards > opponents) + 0.5 * (rewards == opponents)))
