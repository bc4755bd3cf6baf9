"""Prompts to scored completions: the engines of a run, its rollouts, and its evaluation on held-out prompts."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from alignment.data import rows
from alignment.rewards import pairwise_judges, runner, spans
from alignment.training import processes, rollouts
from experiments import prompt_sets, sampling, several_rewards
from experiments.engines import ENGINE
from experiments.prompt_sets import Prompt

_RECYCLED = 2**30  # prompts made from rollouts are numbered from here on, beyond those of any data set


def columns(config: ConfigDict) -> list[str]:
    """The columns of a rollout that not every rollout has."""
    settings = config.rollout
    given = {"demonstration_mask": settings.demonstrations, "strata": settings.strata, "span_labels": settings.critique}
    given |= {"win_rates": settings.judge}
    return [name for name, wanted in given.items() if wanted]


class RollOut(NamedTuple):
    """`roll_out(params, memory, prompts, rng, rewarder)` gives a batch of rows, what failed, and the texts; `memory` is
    that of the methods, among it the engine's. `evaluate(params, rewarder)` gives the mean reward and length on
    held-out prompts, lines to show, and the points of the front of several rewards."""

    roll_out: Callable[..., tuple[dict[str, np.ndarray], runner.RewardReport, list[str]]]
    evaluate: Callable[..., tuple[dict[str, float], list[dict], list[several_rewards.Point]]]


def make(
    config: ConfigDict, model, tokenizer, engine: rollouts.EngineWithMemory, held_out: Sequence[Prompt],
    read: Sequence[str], tasks: Sequence[str] = (),
) -> RollOut:  # fmt: skip
    """The functions of `RollOut`; `read` names what the kernels of the run ask for, which decides what is computed, and
    `tasks` the tasks of the prompts (`several_rewards.task_names`)."""
    settings, group_size = config.rollout, config.rollout.group_size
    plain = {
        "completion_length": config.data.completion_length, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id
    }  # fmt: skip
    greedy_engine = rollouts.sampling_engine(model, group_size=1, temperature=0.0, **plain)
    evaluation_engine = rollouts.sampling_engine(
        model, group_size=config.evaluation.samples, temperature=config.evaluation.temperature, **plain
    )
    stratum_of = prompt_sets.stratum(settings.strata) if settings.strata else None
    reveal, critique, recycle = (
        prompt_sets.function(f"config.rollout.{key}", settings[key]) if settings[key] else None
        for key in ("reveal", "critique", "recycle")
    )
    judge = pair_judge(settings.judge)
    explaining_engine = rollouts.sampling_engine(
        model, group_size=settings.demonstrations or 1, temperature=settings.temperature, **plain
    )

    def padded(prompts: Sequence[Prompt]) -> tuple[np.ndarray, np.ndarray]:
        return rollouts.pad_prompts([p.tokens for p in prompts], config.data.prompt_length, tokenizer.pad_id)

    def rewards_of(rewarder, prompts, rollout: rollouts.Rollout, count: int) -> tuple[np.ndarray, Any, list[str]]:
        texts = sampling.texts(tokenizer, rollout.tokens, rollout.mask)
        repeated = [p for p in prompts for _ in range(count)]
        got = rewarder([p.prompt for p in repeated], texts, [p.record for p in repeated])
        return got.rewards.reshape(len(prompts), count), got, texts

    def explanations(params, prompts: Sequence[Prompt], rng, rewarder):
        """What the policy writes once it is shown the answer, where that is right; and what failed."""
        shown = [p._replace(prompt=reveal(p.prompt, p.record)) for p in prompts]
        shown = [p._replace(tokens=rows.encode_prompt(p.prompt, tokenizer)) for p in shown]
        drawn = explaining_engine(params, *padded(shown), rng)
        # Judged by the question alone: the answer shown must not help the judge.
        values, got, _ = rewards_of(rewarder, prompts, drawn, settings.demonstrations)
        right = values.reshape(-1) > 0
        return [t[m].tolist() if ok else None for t, m, ok in zip(*drawn[:2], right, strict=True)], got.report

    def scored(params, memory, prompts: Sequence[Prompt], rng: jax.Array, rewarder):
        prompts, preferences = several_rewards.tell(config, prompts, rng, tokenizer)
        tokens, mask = padded(prompts)
        rollout = rollouts.check(
            engine.draw(memory.get(ENGINE, ()), params, tokens, mask, rng),
            len(prompts), group_size, config.data.completion_length,
        )  # fmt: skip
        failed = runner.RewardReport()
        if settings.demonstrations:
            if reveal:
                given, failed = explanations(params, prompts, jax.random.fold_in(rng, 1), rewarder)
            else:
                given = [d for p in prompts for d in prompt_sets.demonstrations(p, tokenizer, settings.demonstrations)]
            rollout, shown = rollouts.with_demonstrations(rollout, given, group_size, settings.demonstrations)
        values, got, texts = rewards_of(rewarder, prompts, rollout, group_size)
        batch = rollouts.to_rows(tokens, mask, rollout, group_size, np.array([p.id for p in prompts]))
        repeated = [p for p in prompts for _ in range(group_size)]
        if settings.demonstrations:
            batch["demonstration_mask"] = shown.reshape(batch["mask"].shape)
        if critique:
            written = [ids[keep] for ids, keep in zip(rollout.tokens, rollout.mask, strict=True)]
            of_each = functools.partial(span_labels, critique, tokenizer)
            labels = itertools.chain(*processes.share(lambda *c: list(map(of_each, *c)), repeated, texts, written))
            batch["span_labels"] = np.zeros(batch["mask"].shape, np.float32)
            batch["span_labels"][batch["mask"]] = np.concatenate(list(labels))
        batch["rewards"], batch["labels"], batch["correct"] = values, values, values > 0
        batch["answers"] = np.unique([t.strip() for t in texts], return_inverse=True)[1].astype(np.int32)
        batch["answers"] = batch["answers"].reshape(values.shape)
        if stratum_of:
            batch["strata"] = np.array([stratum_of(p, t) for p, t in zip(repeated, texts, strict=True)], np.int32)
            batch["strata"] = batch["strata"].reshape(values.shape)
        if judge:
            batch |= compared(judge, prompts, texts, batch)
        if "opponents" in batch and not settings.pairs:  # they are compared with, and not trained on
            batch["valid"] = batch["valid"] & ~batch["opponents"]
        if "greedy_rewards" in read:
            greedy = greedy_engine(params, tokens, mask, rng)
            batch["greedy_rewards"] = np.repeat(rewards_of(rewarder, prompts, greedy, 1)[0], group_size, axis=1)
        more, failed_more = several_rewards.of_rollout(config, read, prompts, got, preferences, rewarder, tasks)
        return batch | more, got.report + failed + failed_more, texts

    def roll_out(params, memory, prompts: Sequence[Prompt], rng: jax.Array, rewarder):
        if not recycle:
            return scored(params, memory, prompts, rng, rewarder)
        solved = prompts[: len(prompts) - settings.recycled]
        batch, failures, texts = scored(params, memory, solved, rng, rewarder)
        made = recycled(recycle, solved, texts, batch["rewards"], settings.recycled, rng, config, tokenizer)
        # Fewer than wanted: others fill the shape, and count for nothing.
        filled = [*made, *solved][: settings.recycled]
        again, failures_again, texts_again = scored(
            params, memory, filled, jax.random.fold_in(rng, 2), rewarder
        )  # fmt: skip
        again["valid"] = again["valid"] & (np.arange(settings.recycled) < len(made))[:, None]
        return rollouts.join([batch, again]), failures + failures_again, texts + texts_again

    def evaluate(params, rewarder):
        values, by_objective, lengths, lines = [], [], [], []
        prompts, preferences = several_rewards.tell_fan(config, held_out, tokenizer)
        for first in range(0, len(prompts), settings.prompts):
            part = prompts[first : first + settings.prompts]
            filled = [*part, *[part[0]] * (settings.prompts - len(part))]  # one shape, one compilation
            drawn = evaluation_engine(params, *padded(filled), jax.random.key(7))
            got, rewarded, texts = rewards_of(rewarder, filled, drawn, config.evaluation.samples)
            values.append(got[: len(part)])
            of_each = several_rewards.by_objective(config, rewarded)
            by_objective.append(of_each.reshape(*got.shape, -1)[: len(part)])
            lengths.append(drawn.mask.sum(axis=1)[: len(part) * config.evaluation.samples])
            if not lines:
                lines = [
                    {"prompt": p.prompt, "completion": texts[i * config.evaluation.samples], "reward": float(got[i, 0])}
                    for i, p in enumerate(part[:8])
                ]
        values, by_objective = np.concatenate(values), np.concatenate(by_objective)
        out = {"reward": float(values.mean()), "length": float(np.concatenate(lengths).mean())}
        if len(config.rewards) == 1:
            return out, lines, []
        out |= {f"reward_{k}": float(by_objective[..., n].mean()) for n, k in enumerate(config.rewards)}
        _, signs = several_rewards.maximised(config)
        return out, lines, several_rewards.points(signs * by_objective, preferences)

    return RollOut(roll_out, evaluate)


def pair_judge(source: str) -> pairwise_judges.PairwiseJudge | str:
    """The function that config.rollout.judge names, or "rewards", or "" for none."""
    return source if source in ("", "rewards") else prompt_sets.function("config.rollout.judge", source)


def compared(
    judge: pairwise_judges.PairwiseJudge | str, prompts: Sequence[Prompt], texts: Sequence[str],
    batch: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:  # fmt: skip
    """`preferences` f32 [rows, G, G] among the completions of each prompt, and `win_rates` [rows, G].

    Against whom: the completions of the opponent, if the engine has one, or else all that were sampled.
    """
    size = batch["rewards"].shape[1]
    if judge == "rewards":
        preferences = pairwise_judges.bradley_terry(batch["rewards"])
    else:
        groups = [list(texts[i : i + size]) for i in range(0, len(texts), size)]

        def judged(prompts, groups):
            matrix = functools.partial(pairwise_judges.preference_matrix, judge)
            return np.stack([matrix(p.prompt, group, p.record) for p, group in zip(prompts, groups, strict=True)])

        preferences = np.concatenate(processes.share(judged, prompts, groups))
    opponents = batch.get("opponents")
    if opponents is None:
        shown = batch.get("demonstration_mask")
        opponents = np.ones(batch["rewards"].shape, bool) if shown is None else ~shown.any(axis=-1)
    return {"preferences": preferences, "win_rates": pairwise_judges.win_rates(preferences, opponents)}


def span_labels(critique: Callable, tokenizer, prompt: Prompt, text: str, ids: np.ndarray) -> np.ndarray:
    """The label of each token of a completion, by the spans that a critique of it gives."""
    found = critique(prompt.prompt, text, prompt.record)
    return spans.character_labels(text, sampling.offsets(tokenizer, ids), found).astype(np.float32)


def recycled(
    recycle: Callable, prompts: Sequence[Prompt], texts: Sequence[str], rewards: np.ndarray, count: int, rng: jax.Array,
    config: ConfigDict, tokenizer,
) -> list[Prompt]:  # fmt: skip
    """At most `count` new prompts made from scored completions; those that do not fit are left out."""
    groups = [list(texts[i : i + rewards.shape[1]]) for i in range(0, len(texts), rewards.shape[1])]
    numbers = np.random.default_rng(np.asarray(jax.random.key_data(rng)).tolist())
    offered = recycle([p.prompt for p in prompts], [p.record for p in prompts], groups, rewards, numbers)
    made = []
    for text, record in itertools.islice(offered, 4 * count):  # they may never end, and never fit
        ids = rows.encode_prompt(text, tokenizer)
        if len(ids) <= config.data.prompt_length and len(made) < count:
            made.append(Prompt(_RECYCLED + len(made), text, ids, record))
    return made
