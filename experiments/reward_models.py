"""Trained reward models at work: a checkpoint scores texts, votes on pairs, or is the reward of an online run.

    score = load_scorer("--model", ["runs/bt_reward_loss"], device_mesh)
    score(prompts, completions)          # [N, heads] float32: several checkpoints stand side by side

    config.rewards = {"helpful": {"checkpoint": "runs/bt_reward_loss", "weight": 1.0}}
    config.rewards = {"safe": {"checkpoint": ("runs/a", "runs/b"), "combine": "uncertainty_weighted", "penalty": 0.1}}

An entry with a `checkpoint` has, beside `weight`: `combine`, a function of `alignment.rewards.ensembles` or
`alignment.rewards.combining` (of several heads to one number) or, for models trained on steps, of
`alignment.rewards.process`; the hyperparameters of that function; `standardise` (True: every head is brought to mean 0
and deviation 1 on the completions that its own run was evaluated on, or trained on if there were none); and `reads`,
package.module:function of prompt, completion and the prompt's record, which gives the prompt and the completion that
are scored, where they are not those of the policy.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from alignment import statistics
from alignment.data import collating, pipeline, rows
from alignment.models import heads
from alignment.rewards import combining, ensembles, process, runner
from alignment.training import mesh, processes, stored_reference
from experiments import from_config, prompt_sets, teachers
from experiments.from_config import say

Scorer = Callable[[Sequence[Any], Sequence[str]], np.ndarray]


class ModelReward(NamedTuple):
    """An entry of rewards with a checkpoint; `reads`, if there is one, says what is scored."""

    name: str
    weight: float
    score: Scorer
    reads: Callable[[Any, str, Mapping[str, Any]], tuple[Any, str]] | None = None


_ROWS = 64  # scored at a time
_STEP = 32  # what longer texts than the model was trained on are padded to a multiple of
_CALIBRATION = 512  # completions that standardise a head
_OF_STEPS = ("step_min", "step_product", "step_last", "step_mean", "step_sum")


# --- scoring ---------------------------------------------------------------------------------------------------------


def load_scorer(key: str, directories: Sequence[str], device_mesh, *, standardise: bool = False) -> Scorer:
    """`score(prompts, completions) -> [N, heads]` of one or several runs of `experiments.finetune`, side by side.

    Prompts are texts or lists of messages, completions are texts; each model tokenises them with its own tokenizer and
    puts its end token behind. Of models trained on steps see `load_step_scorer`.

    Raises:
      ValueError: a directory is no finished run, its model has no reward head, or a text is longer than its context.
    """
    if not directories:
        raise ValueError(f"{key}: names no run")
    members = [_load_member(key, directory, device_mesh, standardise) for directory in directories]
    return lambda prompts, completions: np.concatenate([m(prompts, completions) for m in members], axis=-1)


def _open(key: str, directory: str, device_mesh):
    if not (Path(directory) / "result.json").is_file():
        raise ValueError(
            f"{key}: {directory} is not the WORKDIR of a finished run; train a reward model there first, for example "
            f"with python -m experiments.finetune --config=configs/bt_reward_loss.py --workdir={directory}"
        )
    config, tokenizer, model, params = from_config.load_run(key, directory, device_mesh)
    if not model.config.reward_heads:
        raise ValueError(f"{key}: the model of {directory} has no reward head (config.model.reward_heads is 0)")
    return config, tokenizer, model, params


def _load_member(key: str, directory: str, device_mesh, standardise: bool) -> Scorer:
    config, tokenizer, model, params = _open(key, directory, device_mesh)

    @jax.jit
    def of_batch(params, batch):
        hidden, _ = statistics.completion_hidden(model, params, batch)
        return heads.rewards(params, hidden, batch["last_index"])[:, 0]

    def score(prompts: Sequence[Any], completions: Sequence[str]) -> np.ndarray:
        tokenised = [_tokenised(p, [c], tokenizer) for p, c in zip(prompts, completions, strict=True)]
        values = [
            mesh.to_host(of_batch(params, mesh.put_rows(device_mesh, batch)))
            for batch in _batches(key, tokenised, config, model.config, tokenizer, device_mesh)
        ]
        return np.concatenate(values)[: len(tokenised)]

    if not standardise:
        return score
    data = from_config.load_data(config)
    known = (data.evaluation or data.train)[:_CALIBRATION]
    examples = [rows.Tokenized(e.id, e.prompt, (c,)) for e in known for c in e.completions][:_CALIBRATION]
    batches = _batches(key, examples, config, model.config, tokenizer, device_mesh)
    seen = np.concatenate([mesh.to_host(of_batch(params, mesh.put_rows(device_mesh, b))) for b in batches])
    seen = seen[: len(examples)]
    means, deviations = jnp.asarray(seen.mean(axis=0)), jnp.asarray(seen.std(axis=0))
    return lambda prompts, completions: np.asarray(
        ensembles.standardised(jnp.asarray(score(prompts, completions)), means, deviations)
    )


def load_step_scorer(key: str, directory: str, device_mesh):
    """`score(prompts, completions) -> (step scores [N, T], mask [N, T])` of a run trained on steps.

    A completion's steps are its lines. Two heads give the probability that a step is right, one gives its value.
    """
    config, tokenizer, model, params = _open(key, directory, device_mesh)
    if config.data.kind != "steps":
        raise ValueError(f"{key}: {directory} was trained on {config.data.kind!r}, not on 'steps'")
    if model.config.reward_heads > 2:
        raise ValueError(
            f"{key}: the model of {directory} has {model.config.reward_heads} heads; steps have one or two"
        )

    @jax.jit
    def of_batch(params, batch):
        needs = statistics.needs_of(["token_head_scores"])
        scores = statistics.compute(needs, model, params, {}, batch)["token_head_scores"][:, 0]
        return jax.nn.sigmoid(scores[..., 1] - scores[..., 0]) if scores.shape[-1] == 2 else scores[..., 0]

    def score(prompts: Sequence[Any], completions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        lines = [[line for line in c.split(rows.SEPARATOR) if line.strip()] for c in completions]
        tokenised = [_tokenised(p, steps, tokenizer, steps=True) for p, steps in zip(prompts, lines, strict=True)]
        values, masks = [], []
        for batch in _batches(key, tokenised, config, model.config, tokenizer, device_mesh):
            masks.append(batch.pop("step_mask")[:, 0])
            batch.pop("step_labels")
            values.append(mesh.to_host(of_batch(params, mesh.put_rows(device_mesh, batch))))
        return np.concatenate(values)[: len(tokenised)], np.concatenate(masks)[: len(tokenised)]

    return score


def _tokenised(prompt: Any, texts: Sequence[str], tokenizer, *, steps: bool = False) -> rows.Tokenized:
    prompt_ids = np.asarray(rows.encode_prompt(prompt, tokenizer), np.int32)
    separator = tokenizer.encode(rows.SEPARATOR) if steps else []
    pieces = [[*tokenizer.encode(text), *separator] for text in texts]
    completion = np.asarray([*(i for piece in pieces for i in piece), tokenizer.eos_id], np.int32)
    if not steps:
        return rows.Tokenized(0, prompt_ids, (completion,))
    ends = tuple((np.cumsum([len(piece) for piece in pieces]) - 1).tolist())
    return rows.Tokenized(0, prompt_ids, (completion,), step_ends=ends, step_labels=(0.0,) * len(ends))


def _batches(key: str, examples: list, config: ConfigDict, model_config, tokenizer, device_mesh) -> Iterator[dict]:
    """Rows of one shape for all examples, the last batch filled up; longer texts than in training get longer rows."""
    if not examples:
        raise ValueError(f"{key}: nothing to score")

    def room(trained: int, longest: int) -> int:
        return trained if longest <= trained else -(-longest // _STEP) * _STEP

    prompt_length = room(config.data.prompt_length, max(len(e.prompt) for e in examples))
    completion_length = room(config.data.completion_length, max(len(e.completions[0]) for e in examples))
    longest = max(len(e.prompt) + len(e.completions[0]) for e in examples)
    if longest > model_config.max_position_embeddings:
        raise ValueError(
            f"{key}: prompt and completion have up to {longest} tokens, more than the reward model's context of "
            f"{model_config.max_position_embeddings}"
        )
    shards = device_mesh.shape["data"] * device_mesh.shape["fsdp"]
    size = -(-_ROWS // shards) * shards
    for first in range(0, len(examples), size):
        part = examples[first : first + size]
        batch = collating.collate_trees(part, prompt_length, completion_length, 1, pad_id=tokenizer.pad_id)
        yield collating.pad_batch(batch, size)


# --- as the reward of a run ------------------------------------------------------------------------------------------


def bind(settings: ConfigDict, device_mesh, section: str = "rewards") -> list[ModelReward]:
    """Every entry of a section with a `checkpoint`."""
    out = []
    for name, entry in settings.items():
        if not entry or "checkpoint" not in entry:
            continue
        key, entry = f"config.{section}.{name}", dict(entry)
        reads = entry.pop("reads", "")
        reads = prompt_sets.function(f"{key}.reads", reads) if reads else None
        out.append(ModelReward(name, float(entry.get("weight", 1.0)), load_reward(key, entry, device_mesh), reads))
    return out


def load_reward(key: str, entry: Mapping[str, Any], device_mesh) -> Scorer:
    """`score(prompts, completions) -> [N]` of one entry, heads and members combined as it says; see the module."""
    entry = dict(entry)
    named, name, standardise = entry.pop("checkpoint"), entry.pop("combine", ""), entry.pop("standardise", False)
    entry.pop("weight", None)
    directories = [named] if isinstance(named, str) else list(named)
    combine = combination(key, name)
    allowed = statistics.hyperparameters_of(combine) if name else {}
    if unknown := sorted(set(entry) - set(allowed)):
        options = ", ".join(sorted({*allowed, "checkpoint", "combine", "reads", "standardise", "weight"}))
        raise ValueError(f"{key}.{unknown[0]}: unknown key; allowed: {options}")
    if name in _OF_STEPS:
        if len(directories) != 1 or standardise:
            raise ValueError(f"{key}: {name} is for one checkpoint whose scores are as they are")
        steps = load_step_scorer(key, directories[0], device_mesh)
        return lambda prompts, completions: np.asarray(combine(*map(jnp.asarray, steps(prompts, completions)), **entry))
    score = load_scorer(key, directories, device_mesh, standardise=standardise)

    def reward(prompts: Sequence[Any], completions: Sequence[str]) -> np.ndarray:
        values = score(prompts, completions)
        if not name and values.shape[-1] > 1:
            raise ValueError(
                f"{key}.combine: missing; the checkpoints give {values.shape[-1]} scores for every text: name how they "
                f"become one, of {', '.join(sorted(_combinations()))}"
            )
        return np.asarray(combine(jnp.asarray(values), **entry)) if name else values[:, 0]

    reward(["a"], ["a"])  # what does not fit shows before the first rollout
    return reward


def _combinations() -> dict[str, Callable]:
    """The functions of one array `scores` and hyperparameters; and those of step scores."""
    found = {}
    for module in (combining, ensembles, process):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            arrays = statistics.arguments_of(function)
            if function.__module__ == module.__name__ and name[0] != "_" and arrays[:1] in (("scores",), ("means",)):
                if len(arrays) == 1:
                    found[name] = function
            elif name in _OF_STEPS:
                found[name] = function
    return found


def combination(key: str, name: str) -> Callable | None:
    """The function that `combine` names in a reward's entry, None for no name; ValueError with the nearest."""
    found = _combinations()
    if name and name not in found:
        nearest = difflib.get_close_matches(name, list(found), n=3, cutoff=0.5) or sorted(found)
        raise ValueError(f"{key}.combine: no such function {name!r}; nearest: {', '.join(nearest)}")
    return found.get(name)


@contextlib.contextmanager
def rewarder(
    functions: Sequence, weights: Sequence[float], models: Sequence[ModelReward], settings: ConfigDict
) -> Iterator[Callable[[Sequence[Any], Sequence[str], Sequence[Mapping[str, Any]]], runner.Rewards]]:
    """What an online run calls for rewards: functions on the host, one by one, and models on the mesh, in batches.

    Several processes call the functions for a part of the completions each, and the models all together. The parts of
    `Rewards` are those of the functions first, then those of the models. A score that is not finite counts
    as a failure, worth what `settings.on_failure` says.
    """
    with contextlib.ExitStack() as stack:
        on_host = (
            stack.enter_context(runner.RewardRunner(functions, weights, **settings.to_dict())) if functions else None
        )

        def call(prompts, completions, records) -> runner.Rewards:
            together = processes.share(on_host, prompts, completions, records) if on_host else []
            parts = [runner.concatenated(together)] if on_host else []
            for name, weight, score, reads in models:
                scored = prompts, completions
                if reads:
                    scored = zip(*map(reads, prompts, completions, records), strict=True)
                values = np.asarray(score(*scored), np.float32)
                if values.shape != (len(prompts),):
                    raise ValueError(
                        f"config.rewards.{name}: gave scores of shape {values.shape} for {len(prompts)} completions; "
                        "one number for each is needed"
                    )
                bad = ~np.isfinite(values)
                values = np.where(bad, np.float32(settings.on_failure), values)
                counts = {"not_finite": int(bad.sum())} if bad.any() else {}
                first = {"not_finite": f"{name}, completion {int(np.argmax(bad))}"} if bad.any() else {}
                report = runner.RewardReport(len(values), counts, first)
                parts.append(runner.Rewards(np.float32(weight) * values, values[:, None], bad, report, bad[:, None]))
            return runner.Rewards(
                np.sum([p.rewards for p in parts], axis=0, dtype=np.float32),
                np.concatenate([p.by_function for p in parts], axis=1),
                np.any([p.failed for p in parts], axis=0),
                sum((p.report for p in parts[1:]), parts[0].report),
                np.concatenate([p.failed_by_function for p in parts], axis=1),
            )

        yield call


# --- as voters on a run's own pairs ----------------------------------------------------------------------------------


def voters_config(config: ConfigDict, before: Path) -> ConfigDict:
    """config.voters, which starts from where this run starts if both begin alike, so that this is trained once."""
    voters = ConfigDict(config.voters.to_dict())
    ours, theirs = config.data, voters.data
    for field in ("source", "kind", "tokenizer", "prompt_length", "completion_length", "corpus_size", "label_noise"):
        if ours[field] != theirs[field]:
            raise ValueError(
                f"config.voters.data.{field}: {theirs[field]!r}, but they vote on this run's pairs, whose "
                f"config.data.{field} is {ours[field]!r}"
            )
    if voters.model.reward_heads < 2:
        raise ValueError(f"config.voters.model.reward_heads: {voters.model.reward_heads} voter(s); a vote takes two")

    if teachers.same_beginning(config, voters):
        voters.before_workdir = str(before)
    return voters


def add_votes(tables: dict, workdir: Path, voters: ConfigDict, data, device_mesh, by_process: Mapping) -> None:
    """Puts the mean gap of the voters on every pair into `tables` as `strength_means`, and prints how it spreads."""
    _, _, model, params = from_config.load_run("config.voters", str(workdir / "voters"), device_mesh)
    if data.sides[:2] != ("chosen", "rejected"):
        raise ValueError(f"config.voters: they vote on pairs; the data has {', '.join(data.sides)}")

    @jax.jit
    def votes(params, batch):
        hidden, _ = statistics.completion_hidden(model, params, batch)
        scores = heads.rewards(params, hidden, batch["last_index"])
        return ensembles.preference_strength(scores[:, 0], scores[:, 1])[0]

    for split, examples in (("train", data.train), ("eval", data.evaluation)):
        if not examples:
            continue
        batches = pipeline.evaluation_batches(
            examples, batch_size=voters.data.batch_size, collate=data.collate, **by_process
        )
        tables[split]["strength_means"] = stored_reference.load_or_score(
            workdir / f"strength_means_{split}.npz",
            lambda batch: votes(params, batch),
            ((batch,) for batch in batches),
            {e.id for e in examples},
            device_mesh,
            "votes",
        )
    means = np.asarray(list(tables["train"]["strength_means"].values()))
    shown = ", ".join(f"{q:.0%} {np.quantile(means, q):.3f}" for q in (0.05, 0.1, 0.25, 0.5, 0.75))
    say(f"mean gap of the voters, by quantile: {shown}; below 0: {np.mean(means < 0):.1%} of {len(means)} pairs")
