"""Demonstrations in pairs, one that the teacher's checkpoints were confident of and one that they were not.

    config.data.by_confidence = True
    config.teacher.checkpoint = "runs/sft"      # or config.teacher.run, see experiments.teachers

A finished run is asked at every checkpoint that it kept (config.checkpoints.keep_last of that run), a Hugging Face
directory once. What they say is stored in WORKDIR/nlls_*.npz.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from alignment.data import collating, halves, pipeline, rows
from alignment.training import checkpoints, stored_reference
from experiments import from_config, teachers
from experiments.from_config import Data, say

KEY = "config.data.by_confidence"


def check(config: ConfigDict, data: Data) -> None:
    """ValueError, before anything is trained, for data that cannot be halved."""
    if data.sides != ("",) or config.data.packed:
        raise ValueError(
            f"{KEY}: is of demonstrations, one to a row (config.data.kind completion or chat, config.data.packed=False)"
        )
    if config.precompute_reference:
        raise ValueError(f"{KEY}: pairs change from epoch to epoch; set config.precompute_reference=False")
    if config.data.curriculum:
        raise ValueError(f"{KEY}: a row holds two examples, so that a curriculum has nothing to order")


def in_pairs(
    config: ConfigDict, data: Data, workdir: Path, before: Path, device_mesh, by_process: Mapping[str, int],
    run: Callable[[ConfigDict, Path], Any],
) -> Data:  # fmt: skip
    """The data as rows with the sides `confident` and `unconfident`, the teacher trained by `run` if need be."""
    check(config, data)
    teachers.check_named(config, "teacher", data.tokenizer)
    directory = teachers.directory_of(config, "teacher", workdir, before, run)
    found = {}
    for split, examples in (("train", data.train), ("eval", data.evaluation)):
        if examples:
            nlls = _nlls(config, data, examples, split, directory, workdir, device_mesh, by_process)
            found[split] = _pairs(config, examples, halves.confidences(nlls), f"{split}: {len(nlls)} checkpoint(s)")
    collate = functools.partial(collating.collate_several_prompts, **data.collate.keywords | {"sides": 2})
    one = collate(found["train"][:1])
    return data._replace(
        train=found["train"],
        evaluation=found.get("eval", []),
        sides=("confident", "unconfident"),
        columns=tuple(c for c in data.columns if c in one),
        collate=collate,
        mix=halves.exchanged,
    )


def _pairs(config: ConfigDict, examples: list, values: np.ndarray, what: str) -> list[rows.Tokenized]:
    first, second = halves.confident_and_unconfident(values)
    left_out = len(examples) - 2 * len(first)
    say(
        f"{what}; mean perplexity {-values[first].mean():.3f} in the confident half, {-values[second].mean():.3f} in "
        f"the other; {len(first)} pairs" + (f", {left_out} example in the middle left out" if left_out else "")
    )
    second = np.random.default_rng([config.seed, 23]).permutation(second)  # which pairs with which
    return halves.paired([examples[i] for i in first], [examples[i] for i in second])


def _nlls(config, data: Data, examples: list, split: str, directory: str, workdir: Path, device_mesh, by_process):
    """Mean negative log-likelihood of every example's completion tokens at every checkpoint, [C, N], in nats."""
    _, theirs, model, _ = from_config.load_run("config.teacher", directory, device_mesh)
    teachers.check_tokenizer("config.teacher", directory, theirs, data.tokenizer)
    teachers.check_context("config.teacher", directory, model.config, config)
    kept = Path(directory) / "checkpoints"
    sizes = np.array([len(e.completions[0]) for e in examples])
    out = []
    for step in checkpoints.kept_steps(kept) if kept.is_dir() else [None]:
        params = from_config.load_params("config.teacher", directory, model, device_mesh, step=step)
        score = stored_reference.token_logps(
            model, params, chunk_size=config.training.vocabulary_chunk or None, temperature=config.training.temperature
        )
        batches = pipeline.evaluation_batches(
            examples, batch_size=config.data.batch_size, collate=data.collate, **by_process
        )
        table = stored_reference.load_or_score(
            workdir / f"nlls_{split}_{step or 'only'}.npz",
            lambda batch, score=score: -score(batch).sum(axis=(1, 2)),
            ((batch,) for batch in batches),
            {e.id for e in examples},
            device_mesh,
            f"log-likelihoods at step {step}" if step else "log-likelihoods",
        )
        nlls = np.array([table[e.id] for e in examples]) / sizes
        out.append(np.maximum(nlls, 0.0))  # rounding may put a text known by heart above probability 1
    return np.stack(out)
