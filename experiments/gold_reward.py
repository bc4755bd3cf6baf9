"""How good a model's samples really are, on the generated corpus, whose true reward is known."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignment import statistics
from alignment.data import corpus, rows
from alignment.decoding import sampler
from alignment.segments import BRANCHES


class Samples(NamedTuple):
    """Completions of held-out prompts, each next to a demonstration of the same prompt."""

    texts: list[str]
    rewards: np.ndarray  # gold rewards of the samples
    opponents: np.ndarray  # gold rewards of the demonstrations
    prompts: np.ndarray  # token ids [N, P], padded on the left
    prompt_mask: np.ndarray
    completions: np.ndarray  # token ids [N, T], padded on the right
    mask: np.ndarray

    @property
    def win_rate(self) -> float:
        """Share of prompts on which the sample beats the demonstration; a tie is half a win."""
        return float(np.mean((self.rewards > self.opponents) + 0.5 * (self.rewards == self.opponents)))


def sample(
    model, params, tokenizer, *, samples: int, prompt_length: int, completion_length: int, temperature: float
) -> Samples:
    """Samples completions of held-out prompts.

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
    return Samples(texts, rewards, opponents, tokens, mask, out, keep)


def kl_to_start(model, params, start_params, samples: Samples, *, temperature: float) -> float:
    """KL(policy || start) of whole completions in nats, on the policy's own `samples`.

    The sum over each sample's positions of the exact KL between the two next-token distributions: the same expectation
    as the mean log-ratio of the samples, with less noise.
    """
    length = samples.prompts.shape[1]
    tokens = np.concatenate([samples.prompts, samples.completions], axis=1)
    real = np.concatenate([samples.prompt_mask, samples.mask], axis=1)
    at = np.arange(length, tokens.shape[1]) - 1
    batch = {
        "tokens": tokens,
        "positions": np.maximum(np.cumsum(real, axis=1) - 1, 0),
        "segment_ids": real * BRANCHES,
        "targets": samples.completions[:, None],
        "predict_from": np.broadcast_to(at, samples.completions.shape)[:, None],
        "mask": samples.mask[:, None],
    }

    @jax.jit
    def kls(params, start_params, batch):
        needs = statistics.needs_of(["policy_token_kls"])
        frozen = {"reference": (model, start_params)}
        return statistics.compute(needs, model, params, frozen, batch, temperature=temperature)["policy_token_kls"]

    return float(np.asarray(kls(params, start_params, batch)).sum(axis=(1, 2)).mean())
