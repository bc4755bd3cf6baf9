"""Teachers: frozen models that a run learns from, named by a checkpoint or trained first.

    config.teacher.checkpoint = "runs/big"      # WORKDIR of a finished run, or a Hugging Face directory
    config.teacher.run = configs.sft...         # or a whole config, which is trained first in WORKDIR/teacher

A teacher has the run's tokenizer and may have any size. `config.contrast` is a second one, which AlignDistil holds the
first against. What wants one says so by its arguments (`teacher_token_kls`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from alignment.models import decoder
from alignment.training import mesh
from experiments import from_config
from experiments.from_config import say

ROLES = ("teacher", "contrast")


def check(config: ConfigDict, models: Collection[str], tokenizer: Any) -> None:
    """ValueError, before anything is trained or compiled, for a teacher that is missing, unread, or reads otherwise."""
    for role in ROLES:
        settings = config[role]
        if role not in models:
            if settings.checkpoint or settings.run:
                raise ValueError(f"config.{role}: no kernel of this run asks for it")
            continue
        check_named(config, role, tokenizer)


def check_named(config: ConfigDict, role: str, tokenizer: Any) -> None:
    """ValueError for a teacher that is asked for and missing, named twice, or reads otherwise."""
    settings = config[role]
    if bool(settings.checkpoint) == bool(settings.run):
        who = "config.data.by_confidence" if config.data.get("by_confidence") else "a kernel of this run"
        raise ValueError(
            f"config.{role}: {who} asks for it; set either config.{role}.checkpoint, to a finished run or a Hugging "
            f"Face directory, or config.{role}.run, to a config that is trained first"
        )
    directory = settings.run.model.hugging_face if settings.run else settings.checkpoint
    if not directory or directory.startswith("BEFORE"):
        return  # it has this run's tokenizer
    where = f"config.{role}.{'run.model.hugging_face' if settings.run else 'checkpoint'}"
    check_tokenizer(
        where, directory, from_config.load_tokenizer(from_config.config_of_run(where, directory)), tokenizer
    )


def check_tokenizer(key: str, directory: str, theirs: Any, ours: Any) -> None:
    """ValueError that names the first difference, if the same number does not stand for the same text in both."""
    a, b = theirs.pieces(), ours.pieces()
    if a != b:
        differing = min(set(a.items()) ^ set(b.items()), key=lambda item: item[1])[1]
        texts = [next((text for text, number in v.items() if number == differing), None) for v in (a, b)]
        said = [f"token {differing} is {text!r}" if text is not None else f"has no token {differing}" for text in texts]
        raise ValueError(
            f"{key}: {directory} has another tokenizer than this run, and distributions over different vocabularies "
            f"cannot be compared: there {said[0]}, here {said[1]}"
        )
    if theirs.eos_id != ours.eos_id:
        raise ValueError(f"{key}: {directory} ends with token {theirs.eos_id}, this run with token {ours.eos_id}")


def same_beginning(one: ConfigDict, other: ConfigDict) -> bool:
    """Whether two runs start from the same run before, so that it is to be trained once."""

    def beginning(of: ConfigDict) -> tuple:  # as plain values: a locked ConfigDict equals no other
        return of.before.to_dict(), {**of.model.to_dict(), "reward_heads": 0}, of.before_heads, of.seed

    return bool(one.before) and beginning(one) == beginning(other)


def directory_of(config: ConfigDict, role: str, workdir: Path, before: Path, run: Callable) -> str:
    """Where the teacher of a role is, trained there by `run` if it is not yet; `before` as in `load`."""
    settings = config[role]
    if not settings.run:
        return settings.checkpoint.replace("BEFORE", str(before))
    first = ConfigDict(settings.run.to_dict())
    first.distributed, first.mesh = config.distributed, ConfigDict(config.mesh.to_dict())
    first.data.tokenizer = config.data.tokenizer or config.model.hugging_face
    if same_beginning(first, config):
        first.before_workdir = str(before)
    say(f"{role}: trained in {workdir / role}")
    run(first, workdir / role)
    return str(workdir / role)


def load(
    config: ConfigDict, models: Collection[str], workdir: Path, before: Path, model: decoder.Model, tokenizer: Any,
    device_mesh, run: Callable[[ConfigDict, Path], Any],
) -> dict[str, tuple[decoder.Model, Any]]:  # fmt: skip
    """(model, parameters on the mesh) of every teacher that `models` asks for, trained by `run` if need be.

    `before` is where config.before ran, and what BEFORE in a checkpoint stands for. ValueError for a teacher of another
    tokenizer or vocabulary, or with too short a context.
    """
    found = {}
    for role in [r for r in ROLES if r in models]:
        key, directory = f"config.{role}", directory_of(config, role, workdir, before, run)
        run_config, theirs, other, params = from_config.load_run(key, directory, device_mesh)
        check_tokenizer(key, directory, theirs, tokenizer)
        if run_config.model.get("output_heads"):
            raise ValueError(f"{key}: {directory} has an output head for each objective; a teacher has one")
        _check_sizes(key, directory, other.config, model.config, config)
        of_this_run = dataclasses.replace(other.config, dtype=model.config.dtype)
        teacher = decoder.build(of_this_run, mesh.batch_sharding(device_mesh))
        found[role] = (from_config.with_controls(run_config, teacher), params)
    return found


def _check_sizes(key: str, directory: str, theirs, ours, config: ConfigDict) -> None:
    if theirs.vocab_size != ours.vocab_size:  # one tokenizer, but tables of different length
        raise ValueError(
            f"{key}: {directory} has {theirs.vocab_size} token embeddings, the model of this run {ours.vocab_size}; "
            "their distributions cannot be compared"
        )
    check_context(key, directory, theirs, config)


def check_context(key: str, directory: str, theirs, config: ConfigDict) -> None:
    """ValueError for a model whose context is shorter than this run's rows."""
    packed = config.data.get("packed") and config.data.packed_length
    context = packed or config.data.prompt_length + config.data.completion_length
    if context > theirs.max_position_embeddings:
        raise ValueError(
            f"{key}: rows of this run have {context} tokens, more than the context of {directory}, "
            f"{theirs.max_position_embeddings}"
        )
