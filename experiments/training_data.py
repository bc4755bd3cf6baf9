"""The order in which a config wants its training data, and what is done to its inputs."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from alignment import statistics
from alignment.data import corruption, curricula, pipeline
from alignment.training import stored_reference
from experiments.from_config import Data, say

_CURRICULA = {"climb": curricula.climb_order, "mccl": curricula.mccl_order}
_OF_THE_RUN = ("seed", "rows_in_all", "ranks")  # hyperparameters that a config does not set


class Corruptions(NamedTuple):
    training: pipeline.Corrupt | None
    evaluation: pipeline.Corrupt | None
    columns: tuple[str, ...]  # that they add to a batch


def _only(config: ConfigDict, key: str, known: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The one entry of config.data.KEY, or None if it is empty; ValueError that names what is wrong."""
    settings = config.data[key].to_dict()
    if not settings:
        return None
    if len(settings) > 1:
        raise ValueError(f"config.data.{key}: one at a time, got {' and '.join(sorted(settings))}")
    ((name, hyperparameters),) = settings.items()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or sorted(known)
        raise ValueError(f"config.data.{key}.{name}: no such entry; nearest: {', '.join(near)}")
    return name, hyperparameters or {}


def _check_keys(where: str, hyperparameters: Mapping[str, Any], allowed: set[str]) -> None:
    if unknown := sorted(set(hyperparameters) - allowed):
        raise ValueError(f"{where}.{unknown[0]}: unknown key; allowed: {', '.join(sorted(allowed)) or 'none'}")


def _all_ids(data: Data) -> list[np.ndarray]:
    examples = [e for row in data.train for e in (row if isinstance(row, tuple) else (row,))]
    return [np.concatenate([e.prompt, *e.completions]) for e in examples]


def corruptions(config: ConfigDict, data: Data) -> Corruptions:
    """What config.data.corruption names, tried out on a first row: what is wrong shows before any compilation."""
    found = _only(config, "corruption", corruption.CORRUPTIONS)
    if found is None:
        return Corruptions(None, None, ())
    name, hyperparameters = found
    where = f"config.data.corruption.{name}"
    if config.precompute_reference:
        raise ValueError(
            f"{where}: log-probs stored once are not those of corrupted inputs; precompute_reference=False"
        )
    training, evaluation = corruption.CORRUPTIONS[name]
    takes = set(statistics.hyperparameters_of(training))
    _check_keys(where, hyperparameters, takes - set(_OF_THE_RUN))
    for key in ("mask_id", "unk_id"):
        if key in hyperparameters and not 0 <= hyperparameters[key] < data.tokenizer.vocab_size:
            raise ValueError(f"{where}.{key}: must lie in [0, {data.tokenizer.vocab_size}), got {hyperparameters[key]}")
    given = dict(hyperparameters)
    if "ranks" in takes:
        given["ranks"] = curricula.frequency_ranks(_all_ids(data), data.tokenizer.vocab_size)
    bound = functools.partial(training, **given)
    plain = data.collate(data.mix(data.train[:1]) if data.mix else data.train[:1])
    try:
        tried = bound(plain, [np.random.default_rng(0)], 0.0)
    except (TypeError, ValueError) as error:  # a hyperparameter that is missing or out of range
        raise ValueError(f"{where}: {error}") from None
    if evaluation is training:
        evaluation = bound
    return Corruptions(bound, evaluation, tuple(sorted(set(tried) - set(plain))))


def order(config: ConfigDict, data: Data, model, params, device_mesh, by_process) -> pipeline.Order | None:
    """What config.data.curriculum names; difficulties are of the data, or of the model that the run starts from."""
    found = _only(config, "curriculum", _CURRICULA)
    if found is None:
        return None
    name, hyperparameters = found
    where, make = f"config.data.curriculum.{name}", _CURRICULA[name]
    if config.data.packed:
        raise ValueError(f"{where}: packed rows hold easy and difficult examples alike; set config.data.packed=False")
    try:
        if name == "climb":
            _check_keys(where, hyperparameters, set(statistics.hyperparameters_of(curricula.climb_pacing)))
            rows_in_all = config.training.steps * config.data.batch_size
            surprises = curricula.unigram_surprises(_all_ids(data))
            return make(surprises, config.seed, rows_in_all=rows_in_all, **hyperparameters)
        _check_keys(where, hyperparameters, set(statistics.hyperparameters_of(make)))
        if not config.before and not config.model.hugging_face:
            raise ValueError("losses of a model that has been trained are needed; give config.before one")
        losses = _losses(config, data, model, params, device_mesh, by_process)
        say(f"{name}: losses of the starting model from {losses.min():.3f} to {losses.max():.3f} nats a token")
        return make(losses, config.seed, **hyperparameters)
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith("config.") else f"{where}: {error}") from None


def _losses(config: ConfigDict, data: Data, model, params, device_mesh, by_process) -> np.ndarray:
    """Mean loss of the completion tokens of every training example under `params`, in nats."""
    score = stored_reference.token_logps(
        model, params, chunk_size=config.training.vocabulary_chunk or None, temperature=config.training.temperature
    )
    batches = pipeline.evaluation_batches(
        data.train, batch_size=config.data.batch_size, collate=data.collate, mix=data.mix, **by_process
    )
    table = stored_reference.score_all(score, ((batch,) for batch in batches), device_mesh)
    sizes = [sum(map(len, e.completions)) for e in data.train]
    return np.array([-table[e.id].sum() / size for e, size in zip(data.train, sizes, strict=True)])
