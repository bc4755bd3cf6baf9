"""Prompts to scored completions: the engines of a run, its rollouts, and its evaluation on held-out prompts."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from alignment.rewards import runner
from alignment.training import rollouts
from experiments import prompt_sets, sampling
from experiments.prompt_sets import Prompt


def make_engine(config: ConfigDict, model, tokenizer) -> rollouts.Engine:
    settings = config.rollout
    if not settings.engine:
        return rollouts.sampling_engine(
            model,
            group_size=settings.group_size,
            completion_length=config.data.completion_length,
            eos_id=tokenizer.eos_id,
            pad_id=tokenizer.pad_id,
            temperature=settings.temperature,
            top_k=settings.top_k or None,
            top_p=settings.top_p,
            min_p=settings.min_p,
        )
    module, _, name = settings.engine.partition(":")
    try:
        return getattr(importlib.import_module(module), name)(config, model, tokenizer)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"config.rollout.engine: cannot make an engine by {settings.engine!r}: {error}") from None


class RollOut(NamedTuple):
    """`roll_out(params, prompts, rng, rewarder)` gives a batch of rows, what failed, and the texts; `evaluate(params,
    rewarder)` the mean reward and length on held-out prompts, and lines to show."""

    roll_out: Callable[..., tuple[dict[str, np.ndarray], runner.RewardReport, list[str]]]
    evaluate: Callable[..., tuple[dict[str, float], list[dict]]]


def make(config: ConfigDict, model, tokenizer, held_out: Sequence[Prompt], with_greedy: bool) -> RollOut:
    """The functions of `RollOut`; `with_greedy` adds the reward of each prompt's likeliest completion."""
    settings, group_size = config.rollout, config.rollout.group_size
    plain = {
        "completion_length": config.data.completion_length, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id
    }  # fmt: skip
    engine = make_engine(config, model, tokenizer)
    greedy_engine = rollouts.sampling_engine(model, group_size=1, temperature=0.0, **plain)
    evaluation_engine = rollouts.sampling_engine(
        model, group_size=config.evaluation.samples, temperature=config.evaluation.temperature, **plain
    )
    stratum_of = prompt_sets.stratum(settings.strata) if settings.strata else None

    def padded(prompts: Sequence[Prompt]) -> tuple[np.ndarray, np.ndarray]:
        return rollouts.pad_prompts([p.tokens for p in prompts], config.data.prompt_length, tokenizer.pad_id)

    def rewards_of(rewarder, prompts, rollout: rollouts.Rollout, count: int) -> tuple[np.ndarray, Any, list[str]]:
        texts = sampling.texts(tokenizer, rollout.tokens, rollout.mask)
        repeated = [p for p in prompts for _ in range(count)]
        got = rewarder([p.prompt for p in repeated], texts, [p.record for p in repeated])
        return got.rewards.reshape(len(prompts), count), got.report, texts

    def roll_out(params, prompts: Sequence[Prompt], rng: jax.Array, rewarder):
        tokens, mask = padded(prompts)
        rollout = rollouts.check(
            engine(params, tokens, mask, rng), len(prompts), group_size, config.data.completion_length
        )
        if settings.demonstrations:
            given = [prompt_sets.demonstration(p, tokenizer) for p in prompts]
            rollout, shown = rollouts.with_demonstrations(rollout, given, group_size, settings.demonstrations)
        values, failures, texts = rewards_of(rewarder, prompts, rollout, group_size)
        batch = rollouts.to_rows(tokens, mask, rollout, group_size, np.array([p.id for p in prompts]))
        if settings.demonstrations:
            batch["demonstration_mask"] = shown.reshape(batch["mask"].shape)
        batch["rewards"], batch["labels"], batch["correct"] = values, values, values > 0
        batch["answers"] = np.unique([t.strip() for t in texts], return_inverse=True)[1].astype(np.int32)
        batch["answers"] = batch["answers"].reshape(values.shape)
        if stratum_of:
            repeated = [p for p in prompts for _ in range(group_size)]
            batch["strata"] = np.array([stratum_of(p, t) for p, t in zip(repeated, texts, strict=True)], np.int32)
            batch["strata"] = batch["strata"].reshape(values.shape)
        if with_greedy:
            greedy = greedy_engine(params, tokens, mask, rng)
            batch["greedy_rewards"] = np.repeat(rewards_of(rewarder, prompts, greedy, 1)[0], group_size, axis=1)
        return batch, failures, texts

    def evaluate(params, rewarder):
        values, lengths, lines = [], [], []
        for first in range(0, len(held_out), settings.prompts):
            part = held_out[first : first + settings.prompts]
            filled = [*part, *[part[0]] * (settings.prompts - len(part))]  # one shape, one compilation
            drawn = evaluation_engine(params, *padded(filled), jax.random.key(7))
            got, _, texts = rewards_of(rewarder, filled, drawn, config.evaluation.samples)
            values.append(got[: len(part)])
            lengths.append(drawn.mask.sum(axis=1)[: len(part) * config.evaluation.samples])
            if not lines:
                lines = [
                    {"prompt": p.prompt, "completion": texts[i * config.evaluation.samples], "reward": float(got[i, 0])}
                    for i, p in enumerate(part[:8])
                ]
        values = np.concatenate(values)
        return {"reward": float(values.mean()), "length": float(np.concatenate(lengths).mean())}, lines

    return RollOut(roll_out, evaluate)
