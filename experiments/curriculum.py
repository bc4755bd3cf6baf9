"""The curriculum that a config names, given what its functions ask for (`alignment.training.curriculum`)."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from alignment import objective, statistics
from alignment.training import mesh, rollouts
from alignment.training import prompts as prompt_passes
from alignment.training.curriculum import CURRICULA, Curriculum, in_turn
from experiments import prompt_sets
from experiments.from_config import say
from experiments.prompt_sets import Prompt


class Bound(NamedTuple):
    """A curriculum with its hyperparameters; `name` is that of its state in the memory of the methods."""

    name: str
    curriculum: Curriculum
    hyperparameters: Mapping[str, Any]

    def ask(self, function: Callable, given: Mapping[str, Callable[[], Any]]) -> Any:
        """The function's value on what it names, each obtained by calling what `given` holds for it."""
        arrays = [given[name]() for name in statistics.arguments_of(function)]
        accepted = statistics.hyperparameters_of(function)
        return function(*arrays, **{k: v for k, v in self.hyperparameters.items() if k in accepted})

    def names(self, function: str) -> tuple[str, ...]:
        """What a function of the curriculum asks for; nothing for one that is not there."""
        found = getattr(self.curriculum, function)
        return statistics.arguments_of(found) if found else ()

    def offered(self, count: int) -> int:
        return self.ask(self.curriculum.offered, {"count": lambda: count})

    @property
    def prior_samples(self) -> int:
        return int(self.hyperparameters.get("prior_samples", 0))


def bind(config: ConfigDict, estimators: Iterable[objective.Estimator]) -> Bound:
    """The curriculum of `config.curriculum`, prompts in turn if there is none; ValueError that names the wrong key."""
    settings = config.curriculum.to_dict()
    if not settings:
        return Bound("", in_turn, {})
    if len(settings) > 1:
        raise ValueError(f"config.curriculum: one at a time, got {' and '.join(sorted(settings))}")
    ((name, hyperparameters),) = settings.items()
    if name not in CURRICULA:
        near = difflib.get_close_matches(name, CURRICULA, n=3, cutoff=0.5) or sorted(CURRICULA)
        raise ValueError(f"config.curriculum.{name}: no such curriculum; nearest: {', '.join(near)}")
    if config.rollout.dynamic_sampling:
        raise ValueError("config.rollout.dynamic_sampling: draws prompts by itself; leave config.curriculum empty")
    found, hyperparameters = CURRICULA[name], hyperparameters or {}
    functions = [function for function in found if function]
    allowed = {key for function in functions for key in statistics.hyperparameters_of(function)}
    if unknown := sorted(set(hyperparameters) - allowed):
        raise ValueError(
            f"config.curriculum.{name}.{unknown[0]}: unknown key; allowed: {', '.join(sorted(allowed)) or 'none'}"
        )
    remembering = [e.term.name for e in estimators if e.term.method]
    if found.update is None and name not in remembering:
        raise ValueError(
            f"config.curriculum.{name}: reads the memory of an estimator {name!r}, but config.shaping and "
            f"config.advantages have {', '.join(remembering) or 'none that remembers'}"
        )
    if found.update is not None and name in remembering:
        raise ValueError(f"config.curriculum.{name}: an estimator of this name has a memory too; rename it there")
    bound = Bound(name, found, hyperparameters)
    try:
        bound.offered(config.rollout.prompts)
    except ValueError as error:
        raise ValueError(f"config.curriculum.{name}: {error}") from None
    return bound


def shapes(bound: Bound, num_prompts: int) -> dict[str, Any]:
    """The curriculum's part of the methods' memory before anything is measured; empty if it remembers nothing."""
    nothing = {
        "num_prompts": lambda: num_prompts,
        "reward_sums": lambda: np.zeros(num_prompts, np.float32),
        "sample_counts": lambda: np.zeros(num_prompts, np.int32),
        "concentrations": lambda: np.zeros(num_prompts, np.float32),
    }
    state = bound.ask(bound.curriculum.init, nothing)
    return {bound.name: state} if jax.tree.leaves(state) else {}


class Hooks(NamedTuple):
    """What the loop calls; `memory` is that of the methods, on any device, and comes back with the same keys.

    start(params, memory, rewarder) -> memory     once, before the first iteration of a run that is not resumed
    choose(params, memory, at, round) -> prompts  the prompt of each row
    update(params, memory, batch) -> memory       after the rollout, which it gets as rows on the host
    """

    start: Callable[..., dict[str, Any]]
    choose: Callable[..., list[Prompt]]
    update: Callable[..., dict[str, Any]]


def hooks(bound: Bound, config: ConfigDict, model, tokenizer, train: list[Prompt], roll_out, place: Callable) -> Hooks:
    """The curriculum's functions with what they name; `place` puts a state where the train state lies."""
    rows, group_size = config.rollout.prompts, config.rollout.group_size
    by_id = {p.id: p for p in train}
    ids = np.array(sorted(by_id), np.int32)
    num_prompts = int(ids[-1]) + 1
    run_key = jax.random.key(config.seed)
    init, _, choose_rows, renew = bound.curriculum
    values = jax.jit(functools.partial(prompt_passes.values, model))
    concentrations = jax.jit(functools.partial(prompt_passes.concentrations, model))

    def in_parts(prompts: list[Prompt]):
        """(some of the prompts, the same filled up to one shape), one after the other."""
        for part in (prompts[i : i + rows] for i in range(0, len(prompts), rows)):
            yield part, [*part, *[part[0]] * (rows - len(part))]

    def measured(measure: Callable, params, prompts: list[Prompt]) -> np.ndarray:
        out = []
        for part, filled in in_parts(prompts):
            padded = rollouts.pad_prompts([p.tokens for p in filled], config.data.prompt_length, tokenizer.pad_id)
            out.append(mesh.to_host(measure(params, *mesh.put_beside(params, padded)))[: len(part)])
        return np.concatenate(out)

    def by_prompt(numbers: np.ndarray, missing: float) -> np.ndarray:
        out = np.full(num_prompts, missing, np.float32)
        out[[p.id for p in train]] = numbers
        return out

    def prior_sums(params, memory, rewarder) -> np.ndarray:
        """The summed rewards of `prior_samples` completions of each prompt."""
        prior, sums = bound.prior_samples, []
        if prior:
            say(f"{bound.name}: {prior} completions of each of {len(train)} prompts, before the first iteration")
        for number, (part, filled) in enumerate(in_parts(train) if prior else ()):
            # No iteration has the number 0.
            key = jax.random.fold_in(jax.random.fold_in(run_key, 0), number)
            draws = [
                roll_out(params, memory, filled, jax.random.fold_in(key, n), rewarder)[0]["rewards"]
                for n in range(-(-prior // group_size))
            ]
            sums.append(np.concatenate(draws, axis=1)[: len(part), :prior].sum(axis=1))
        return by_prompt(np.concatenate(sums) if sums else np.zeros(len(train)), 0.0)

    def start(params, memory, rewarder):
        if bound.name not in memory:
            return memory
        given = {
            "num_prompts": lambda: num_prompts,
            "reward_sums": lambda: prior_sums(params, memory, rewarder),
            "sample_counts": lambda: by_prompt(np.full(len(train), bound.prior_samples), 0.0).astype(np.int32),
            "concentrations": lambda: by_prompt(measured(concentrations, params, train), -np.inf),
        }
        return memory | {bound.name: place(bound.ask(init, given))}

    def choose(params, memory, at: int, round_number: int) -> list[Prompt]:
        offered = bound.offered(rows)
        pool = prompt_sets.next_prompts(train, offered, config.seed, at, round_number)
        given = {
            "state": lambda: jax.device_get(memory[bound.name]),
            "pool": lambda: np.array([p.id for p in pool], np.int32),
            "prompt_values": lambda: measured(values, params, pool),
            "ids": lambda: ids,
            "key": lambda: run_key,
            "place": lambda: (at - 1) * rows,
            "count": lambda: rows,
            "group_size": lambda: group_size,
        }
        return [by_id[int(i)] for i in bound.ask(choose_rows, given)]

    def update(params, memory, batch):
        if renew is None or bound.name not in memory:
            return memory
        given = {
            "state": lambda: jax.device_get(memory[bound.name]),
            "ids": lambda: ids,
            "prompt_ids": lambda: batch["prompt_ids"].reshape(-1),
            "correct": lambda: batch["correct"].reshape(-1),
            "valid": lambda: batch["valid"].reshape(-1),
            "concentrations": lambda: measured(concentrations, params, [by_id[int(i)] for i in batch["ids"]]),
        }
        return memory | {bound.name: place(bound.ask(renew, given))}

    return Hooks(start, choose, update)
