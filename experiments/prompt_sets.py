"""Prompts and rewards that a config names: generated tasks, files of prompts, functions of the user."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from alignment.data import corpus, formats, rows
from alignment.data.recipes import on_corpus
from alignment.rewards import tasks
from experiments.from_config import say


class Prompt(NamedTuple):
    id: int
    prompt: Any  # text or messages, as rewards see it
    tokens: list[int]
    record: Mapping[str, Any]  # the other fields, for the rewards


def task_of(source: str) -> str:
    """What stands after "task:" (a name, or several with + between), or ""; ValueError for one that does not exist."""
    kind, _, name = source.partition(":")
    if kind != "task":
        return ""
    for part in name.split("+"):
        if part not in tasks.TASKS:
            raise ValueError(f"config.data.source: no task {part!r}; there are: {', '.join(sorted(tasks.TASKS))}")
    return name


def load(config: ConfigDict, tokenizer) -> tuple[list[Prompt], list[Prompt]]:
    """(training prompts, held-out prompts); what does not fit is counted and printed, or an error."""
    data = config.data

    def read(source: str, split: str, size: int) -> list[tuple[Any, Mapping[str, Any], str]]:
        if source == "corpus":
            return [(p, {"prompt": p}, f"corpus/{split}:{i}") for i, p in enumerate(corpus.prompts(split)[:size])]
        if name := task_of(source):
            records = tasks.generate(name, size, config.seed, split, data.difficulty)
            return [(r["prompt"], r, f"{source}/{split}:{i}") for i, r in enumerate(records)]
        if source.startswith("recipe:"):
            records, _ = on_corpus.records(source.removeprefix("recipe:"), size, config.seed, split)
            return [(r["prompt"], r, f"{source}/{split}:{i}") for i, r in enumerate(records)]
        examples = formats.read(source, "prompts", columns=dict(data.columns))
        return [(e.prompt, e.record, e.where) for e in examples]

    def tokenised(raw: list, what: str) -> list[Prompt]:
        out, too_long = [], 0
        for number, (prompt, record, where) in enumerate(raw):
            ids = rows.encode_prompt(prompt, tokenizer)
            if len(ids) > data.prompt_length:
                if data.too_long == "error":
                    raise formats.DataError(
                        f"{where}: the prompt has {len(ids)} tokens; raise config.data.prompt_length "
                        f"({data.prompt_length}) or set config.data.too_long='drop'"
                    )
                too_long += 1
                continue
            out.append(Prompt(number, prompt, ids, record))
        if not out:
            raise formats.DataError(f"{what}: no prompt is left of {len(raw)}, {too_long} were too long")
        say(f"{what}: {len(out)} of {len(raw)} prompts kept ({too_long} too long)")
        return out

    if data.too_long not in ("error", "drop"):
        raise ValueError(f"config.data.too_long: {data.too_long!r} is not one of error, drop")
    train = tokenised(read(data.source, "train", data.size), "training prompts")
    generated = data.source == "corpus" or data.source.startswith("recipe:") or task_of(data.source)
    eval_source = data.eval_source or (data.source if generated else "")
    held_out = read(eval_source, "test", data.eval_size) if eval_source else []
    return train, tokenised(held_out, "held-out prompts") if held_out else []


def rewards(settings: ConfigDict, section: str = "rewards") -> tuple[list[Callable | str], list[float]]:
    """The functions of a section (a task's name stands for the task's own reward) and their weights.

    Entries with a `checkpoint` are reward models, and are left to `experiments.reward_models`.
    """
    functions, weights = [], []
    for name, entry in settings.items():
        entry = dict(entry or {})
        if "checkpoint" in entry:
            continue
        if unknown := sorted(set(entry) - {"weight", "function"}):
            raise ValueError(
                f"config.{section}.{name}.{unknown[0]}: unknown key; allowed: checkpoint, function, weight"
            )
        function = entry.get("function", "")
        if not function and name not in tasks.TASKS:
            raise ValueError(
                f"config.{section}.{name}: no such task; name a function (package.module:function) or one of "
                f"{', '.join(sorted(tasks.TASKS))}"
            )
        functions.append(function or tasks.reward)
        weights.append(float(entry.get("weight", 1.0)))
    return functions, weights


def demonstration_text(prompt: Prompt, needed_by: str) -> str:
    """The record's `demonstration`; of a task: its right answer."""
    record = prompt.record
    text = f"{record['answer']}." if "task" in record else record.get("demonstration")
    if not isinstance(text, str):
        raise formats.DataError(
            f"prompt {prompt.id} ({prompt.prompt!r}): {needed_by} needs a field 'demonstration'"
        )
    return text


def demonstration(prompt: Prompt, tokenizer) -> list[int]:
    """Token ids of the record's demonstration, with the end token."""
    return [*tokenizer.encode(demonstration_text(prompt, "config.rollout.demonstrations")), tokenizer.eos_id]


def demonstrations(prompt: Prompt, tokenizer, count: int) -> list[list[int]]:
    """`count` of them: the record's `demonstrations`, different texts in their order, or one as often as asked for."""
    texts = prompt.record.get("demonstrations")
    if texts is None:
        return [demonstration(prompt, tokenizer)] * count
    if not isinstance(texts, list | tuple) or len(texts) != count or not all(isinstance(t, str) for t in texts):
        raise formats.DataError(
            f"prompt {prompt.id} ({prompt.prompt!r}): its field 'demonstrations' must be {count} texts, as many as "
            f"config.rollout.demonstrations says, got {texts!r}"
        )
    return [[*tokenizer.encode(text), tokenizer.eos_id] for text in texts]


def function(key: str, source: str) -> Callable:
    """What `source` names (package.module:function); ValueError that names the config's key if there is none."""
    module, _, name = source.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{key}: no function {source!r}: {error}") from None


def stratum(source: str) -> Callable[[Prompt, str], int]:
    """The function of config.rollout.strata (package.module:function), on a prompt and a completion of it."""
    named = function("config.rollout.strata", source)

    def of(prompt: Prompt, completion: str) -> int:
        value = named(prompt.prompt, completion, prompt.record)
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ValueError(
                f"config.rollout.strata: {source} gave {value!r} for prompt {prompt.id}; it must give an int"
            )
        return int(value)

    return of


def next_prompts(prompts: list[Prompt], count: int, seed: int, iteration: int, round_number: int) -> list[Prompt]:
    """`count` prompts of an endless list of permutations; what an iteration gets depends on its number alone."""
    if round_number:  # drawn anew: from anywhere
        rng = np.random.default_rng([seed, iteration, round_number])
        return [prompts[i] for i in rng.integers(len(prompts), size=count)]
    if not count:
        return []
    places = range((iteration - 1) * count, iteration * count)
    epochs = {place // len(prompts) for place in places}
    orders = {epoch: np.random.default_rng([seed, epoch]).permutation(len(prompts)) for epoch in epochs}
    return [prompts[int(orders[p // len(prompts)][p % len(prompts)])] for p in places]
