"""How good a model's samples really are, on the generated corpus, whose true reward is known."""

from __future__ import annotations

import jax
import numpy as np

from alignment.data import corpus, rows
from experiments import sampling


def sample(
    model, params, tokenizer, *, samples: int, prompt_length: int, completion_length: int, temperature: float
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Samples completions of held-out prompts: (texts, gold rewards of the samples, gold rewards of demonstrations).

    Prompts, opponents and random key are always the same, so that two models are compared on equal terms.
    """
    rng = np.random.default_rng(12345)
    held_out = corpus.prompts("test")
    prompts = [held_out[i % len(held_out)] for i in range(samples)]
    drawn = sampling.complete(
        model,
        params,
        tokenizer,
        [rows.encode_prompt(prompt, tokenizer) for prompt in prompts],
        jax.random.key(7),
        prompt_length=prompt_length,
        completion_length=completion_length,
        temperature=temperature,
    )
    texts = [d.text for d in drawn]
    rewards = np.array([corpus.gold_reward(p, t) for p, t in zip(prompts, texts, strict=True)])
    opponents = np.array([corpus.gold_reward(p, corpus.demonstration(p, rng)) for p in prompts])
    return texts, rewards, opponents


def win_rate(rewards: np.ndarray, opponents: np.ndarray) -> float:
    """Share of prompts on which the sample beats the demonstration; a tie is half a win."""
    return float(np.mean((rewards > opponents) + 0.5 * (rewards == opponents)))
