"""How good a model's samples really are, on the generated corpus, whose true reward is known."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignment import statistics
from alignment.data import corpus, rows
from alignment.decoding import sampler
from alignment.training import mesh, rollouts
from experiments import sampling


class Samples(NamedTuple):
    """Completions of held-out prompts, each next to a demonstration of the same prompt."""

    texts: list[str]
    rewards: np.ndarray  # gold rewards of the samples
    opponents: np.ndarray  # gold rewards of the demonstrations
    prompts: np.ndarray  # token ids [N, P], padded on the left
    prompt_mask: np.ndarray
    rollout: rollouts.Rollout

    @property
    def win_rate(self) -> float:
        """Share of prompts on which the sample beats the demonstration; a tie is half a win."""
        return float(np.mean((self.rewards > self.opponents) + 0.5 * (self.rewards == self.opponents)))


def sample(
    model,
    params,
    tokenizer,
    *,
    samples: int,
    prompt_length: int,
    completion_length: int,
    temperature: float,
    prompt: str = "{}",
) -> Samples:
    """Samples completions of held-out prompts.

    Prompts, opponents and random key are always the same, so that two models are compared on equal terms. `prompt` is
    what is said around each, {} standing for the prompt itself.
    """
    rng = np.random.default_rng(12345)
    held_out = corpus.prompts("test")
    prompts = [held_out[i % len(held_out)] for i in range(samples)]
    ids = [rows.encode_prompt(prompt.replace("{}", p), tokenizer) for p in prompts]
    tokens, mask = rollouts.pad_prompts(ids, prompt_length, tokenizer.pad_id)
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
    rollout = rollouts.Rollout(*(mesh.to_host(x) for x in (drawn.tokens, drawn.mask, drawn.logps)))
    texts = sampling.texts(tokenizer, rollout.tokens, rollout.mask)
    rewards = np.array([corpus.gold_reward(p, t) for p, t in zip(prompts, texts, strict=True)])
    opponents = np.array([corpus.gold_reward(p, corpus.demonstration(p, rng)) for p in prompts])
    return Samples(texts, rewards, opponents, tokens, mask, rollout)


def kl_to_start(model, params, start_params, samples: Samples, *, temperature: float) -> float:
    """KL(policy || start) of whole completions in nats, on the policy's own `samples`.

    The sum over each sample's positions of the exact KL between the two next-token distributions: the same expectation
    as the mean log-ratio of the samples, with less noise.
    """
    ids = np.arange(len(samples.texts))
    batch = rollouts.to_rows(samples.prompts, samples.prompt_mask, samples.rollout, 1, ids)

    @jax.jit
    def kls(params, start_params, batch):
        needs = statistics.needs_of(["policy_token_kls"])
        frozen = {"reference": (model, start_params)}
        return statistics.compute(needs, model, params, frozen, batch, temperature=temperature)["policy_token_kls"]

    return float(mesh.to_host(kls(params, start_params, batch)).sum(axis=(1, 2)).mean())
