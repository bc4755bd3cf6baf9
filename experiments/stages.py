"""The run that a run starts from (`config.before`), and how a run is known to be finished: by its result.json."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from alignment.models import decoder
from alignment.training import checkpoints, mesh
from experiments import from_config


def heads_before(config: ConfigDict) -> int:
    """How many reward heads the earlier run hands on; a diffusion model has none and its config no such key."""
    return config.get("before_heads", 0)


def config_before(config: ConfigDict) -> ConfigDict:
    """The config this one starts from, whole. The model, the seed, the mesh and the tokenizer are this run's: both must
    agree, so they are said once."""
    before = ConfigDict(config.before.to_dict())
    before.seed, before.distributed = config.seed, config.distributed
    before.model, before.mesh = ConfigDict(config.model.to_dict()), ConfigDict(config.mesh.to_dict())
    before.model.reward_heads, before.model.output_heads = heads_before(config), 0
    before.model.control_tokens = config.model.control_tokens if config.get("before_controls") else 0
    if "reward_head" in before.mesh.rules and not heads_before(config):  # which the earlier model does not have
        del before.mesh.rules["reward_head"]
    before.data.tokenizer = config.data.tokenizer
    return before


def run_before(config: ConfigDict, workdir: Path, run: Callable[[ConfigDict, Path], Any]) -> dict[str, Any]:
    """Runs the config this one starts from, or finds it finished, and returns its result.

    `run` is that of the script that the config before belongs to.
    """
    directory = before_directory(config, workdir)
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:  # runs that share a beginning: one does it, the others wait
        if jax.process_index() == 0:
            fcntl.flock(lock, fcntl.LOCK_EX)
        if jax.process_count() > 1:  # no process may look whether it is finished before the first holds the lock
            multihost_utils.sync_global_devices("before")
        return run(config_before(config), directory)


def before_directory(config: ConfigDict, workdir: Path) -> Path:
    return Path(config.before_workdir) if config.before_workdir else workdir / "before"


def begin_in(config: ConfigDict, root: Path) -> Path:
    """Sets `before_workdir` to a directory under `root` named after its config: runs that begin alike share it."""
    beginning = json.dumps(checkpoints.as_json(config_before(config).to_dict()))
    directory = root / hashlib.sha256(beginning.encode()).hexdigest()[:12]
    config.before_workdir = str(directory)
    return directory


def params_before(config: ConfigDict, workdir: Path, model: decoder.Model, device_mesh) -> Any:
    """The parameters that the finished run `config.before` ended with, on this run's mesh."""
    heads = heads_before(config)
    if heads > model.config.reward_heads:
        raise ValueError(
            f"config.before_heads: {heads} heads do not fit this model's {model.config.reward_heads} "
            "(config.model.reward_heads)"
        )
    before_model = decoder.build(dataclasses.replace(model.config, reward_heads=heads))
    before_model = from_config.with_controls(config, before_model) if config.get("before_controls") else before_model
    shapes = jax.eval_shape(before_model.init, jax.random.key(0))
    rules = mesh.make_rules(config.mesh.rules)
    abstract = checkpoints.abstract(shapes, mesh.parameter_sharding(device_mesh, shapes, rules))
    description = from_config.describe_model(before_model.config)
    params = checkpoints.restore_params(before_directory(config, workdir) / "checkpoints", abstract, description)
    if heads:
        params["reward_head"] = jnp.pad(params["reward_head"], ((0, 0), (0, model.config.reward_heads - heads)))
    return params


def finished(config: ConfigDict, workdir: Path, last_step: int) -> dict[str, Any] | None:
    """What a run of exactly this config left in WORKDIR/result.json, if it came to its end there."""
    path = workdir / "result.json"
    if not path.is_file() or not (workdir / "checkpoints" / str(last_step)).is_dir():
        return None
    stored = json.loads(path.read_text())
    return stored["result"] if stored["config"] == checkpoints.as_json(config.to_dict()) else None


def store_result(config: ConfigDict, workdir: Path, result: Mapping[str, Any]) -> None:
    """Writes WORKDIR/result.json, whole or not at all: its being there says that the run is through."""
    temporary = workdir / "result.json.tmp"
    temporary.write_text(json.dumps({"config": checkpoints.as_json(config.to_dict()), "result": result}, indent=1))
    temporary.replace(workdir / "result.json")
