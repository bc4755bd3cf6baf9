"""What `config.guard` asks for: the Fisher matrices of a behaviour to keep, and the penalty on adapters from them."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from alignment.data import collating
from alignment.models import decoder, lora
from alignment.training import alignment_guard, mesh
from experiments import from_config
from experiments.from_config import say


def make(config: ConfigDict, adapter: lora.Adapter, model: decoder.Model, base: Any, device_mesh) -> tuple:
    """(penalty, what it holds fixed), or (None, None) if the config has no guard.

    The same examples, from the front of config.guard.source, whatever the seed of the run.
    """
    settings = config.guard
    if not settings.source:
        return None, None
    data = examples(config)
    chosen = data.train[: settings.examples]
    say(f"guard: {len(chosen)} of {len(data.train)} examples of {settings.source} estimate the Fisher matrices")
    lengths = config.data.prompt_length, config.data.completion_length
    batch = collating.collate_trees(chosen, *lengths, 1, pad_id=data.tokenizer.pad_id)
    full = settings.fisher == "full"
    of_gradients = alignment_guard.fisher_matrix if full else alignment_guard.fisher_diagonal
    plain = decoder.build(model.config)  # a row at a time has nothing to spread over the mesh
    estimate = functools.partial(alignment_guard.estimate_fisher, plain, adapter.targets)
    fisher = jax.jit(
        lambda base, batch: estimate(base, batch, of_gradients), out_shardings=mesh.replicated(device_mesh)
    )(base, batch)
    subspace, kept = {}, 0
    for name, value in fisher.items():
        cover = alignment_guard.eigenvectors_covering if full else alignment_guard.rows_covering
        found = np.asarray(cover(np.asarray(value), mass=settings.mass))
        kept += int(np.any(found, axis=-2).sum()) if full else int(found.sum())
        if full:
            found = found[..., : int(np.any(found, axis=-2).sum(axis=-1).max())]
        subspace[name] = jax.device_put(found, mesh.replicated(device_mesh))
    of_all = sum(int(np.prod(f.shape[:2])) for f in fisher.values())
    say(f"guard: {kept} of {of_all} directions hold {settings.mass:.0%} of the Fisher mass")
    overlap = {key: settings[key] for key in ("beta", "tau")}
    of_matrix = alignment_guard.terms if full else alignment_guard.diagonal_terms
    weights = {key: settings[key] for key in ("fisher_weight", "task_weight", "collision_weight", "alpha")}
    weighed = functools.partial(alignment_guard.total, **weights)
    penalty = alignment_guard.make_penalty(adapter, functools.partial(of_matrix, **overlap), weighed)
    layers = {name: base["layers"][name] for name in adapter.targets}
    return penalty, {"layers": layers, "fisher": fisher, "subspace": subspace}


def examples(config: ConfigDict) -> from_config.Data:
    """The data of the guard's source, read as the run's own would be."""
    other = ConfigDict(config.to_dict())
    other.data.update({"source": config.guard.source, "split": config.guard.split, "eval_source": ""})
    other.data.update({"kind": "completion", "packed": False, "corpus_size": config.guard.examples, "label_noise": 0.0})
    other.data.columns = ConfigDict()
    say(f"guard: {config.guard.source}")
    return from_config.load_data(other)


def description(config: ConfigDict) -> dict[str, Any]:
    """What a checkpoint says of it: a run goes on under the same penalty only."""
    return {"guard": config.guard.to_dict()} if config.guard.source else {}
