"""Configs of the scripts of `experiments` small enough that a whole run takes seconds; used by several test files."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from alignment.training import mesh
from configs import common

ROOT = Path(__file__).resolve().parent.parent

_SMALL = {
    "model": {"hidden_size": 16, "intermediate_size": 32, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1},
    "data": {"corpus_size": 64, "corpus_eval_size": 8, "batch_size": 8, "packed_length": 128},
    "optimizer": {"warmup_steps": 0},
    "training": {"steps": 3, "log_every": 1, "eval_every": 3},
    "checkpoints": {"every": 3, "export_hugging_face": False},
    "gold": {"samples": 0},
}


def shrink(config, steps=3):
    """The config with its sizes made tiny, in all of its stages; what it trains stays as it was."""
    stages = [config]
    for stage in stages:
        stages += [stage[earlier] for earlier in ("before", "voters") if stage.get(earlier)]
        stages += _teachers(stage)
    for stage in stages:
        for section, values in _SMALL.items():
            if section in stage:
                for key, value in values.items():
                    if key in stage[section]:
                        stage[section][key] = value
        stage.training.steps = stage.training.eval_every = stage.checkpoints.every = steps
    return config


def _teachers(config):
    return [config[role].run for role in ("teacher", "contrast") if role in config and config[role].run]


_SMALL_ONLINE = {
    "model": _SMALL["model"],
    "data": {"size": 32, "eval_size": 8},
    "rollout": {"prompts": 4, "group_size": 4},
    "training": {"iterations": 3, "log_every": 1, "eval_every": 3, "minibatches": 2},
    "checkpoints": {"every": 3, "export_hugging_face": False},
    "optimizer": {"warmup_steps": 0},
}


def shrink_online(config, iterations=3):
    """An online config with its sizes made tiny, and the stage before it."""
    for section, values in _SMALL_ONLINE.items():
        config[section].update(values)
    config.rollout.recycled = min(config.rollout.recycled, 1)
    config.training.iterations = config.training.eval_every = config.checkpoints.every = iterations
    for stage in ([config.before] if config.before else []) + _teachers(config):
        shrunk = shrink(stage, 3)
        shrunk.data.corpus_size, shrunk.data.packed_length = 64, 128
    return config


def shrink_diffusion(config, iterations=3):
    """A config of masked diffusion with its sizes made tiny, and the stage before it."""
    for stage in [config, config.before] if config.before else [config]:
        for section, values in _SMALL_ONLINE.items():
            if section in stage:
                stage[section].update({k: v for k, v in values.items() if k in stage[section]})
        if stage.rollout.responses == "demonstrations":
            stage.rollout.group_size = 1
        stage.masking.samples = min(stage.masking.samples, 3)
        stage.training.iterations = stage.training.eval_every = stage.checkpoints.every = iterations
    return config


_SMALL_TOY = {
    "model": {"hidden_size": 8, "num_layers": 1, "sampler_steps": 3},
    "pretraining": {"steps": 1, "batch_size": 8},
    "rollout": {"groups": 2, "group_size": 4, "draws": 2},
    "objective": {"width": 4, "targets": 3},
    "agent": {"updates": 3, "episodes": 2, "steps": 3, "epochs": 2},
    "evolution": {"pairs": 2, "tasks": 2, "generations": 2},
    "evaluation": {"tasks": 4, "learning_rates": (1.0,)},
}


def shrink_toy(config, steps=3):
    """A config of `experiments.flow` or `experiments.evolve` with its sizes made tiny."""
    for section, values in _SMALL_TOY.items():
        if section in config:
            config[section].update({k: v for k, v in values.items() if k in config[section]})
    config.training.steps = config.training.eval_every = config.training.checkpoint_every = steps
    config.training.log_every = 1
    return config


def finished_runs(directory):
    """WORKDIRs of finished runs for `experiments.generate`: a policy, another of the same kind, and a reward model."""
    from experiments import finetune as script  # the name of this module's own function is the same

    with pytest.MonkeyPatch.context() as patch:
        one_device(patch)
        for name, objective, heads in (
            ("policy", {"sft": {}}, 0), ("tuned", {"dpo": {}}, 0), ("reward", {"bt_reward_loss": {}}, 1)
        ):  # fmt: skip
            config = dpo(1, objective, {})
            config.data.kind = "completion" if name == "policy" else "pairs"
            config.model.reward_heads = heads
            script.run(config, directory / name)
    return {name: directory / name for name in ("policy", "tuned", "reward")}


def shrink_generate(config, runs):
    """A config of `experiments.generate` with few and short outputs, decoding from `finished_runs`."""
    config.data.prompts, config.data.completion_length, config.timing = 2, 4, False
    of = {"runs/dpo": "tuned", "runs/bt_reward_loss": "reward"}
    config.models = {name: str(runs[of.get(run, "policy")]) for name, run in config.models.items()}
    for section in (config.rewards, config.scores):
        for entry in section.values():
            if "checkpoint" in entry:
                entry.checkpoint = str(runs["reward"])
    for decoder in config.decoders.values():
        small = {"n": 2, "block": 2, "simulations": 2, "width": 2, "lookahead": 1, "rounds": 1, "candidates": 3}
        decoder.update({k: v for k, v in small.items() if k in decoder and (decoder[k] or k != "lookahead")})
    return config


def dpo(steps=3, objective=None, metrics=None):
    """DPO from scratch, without the stage of supervised fine-tuning."""
    config = shrink(common.base(), steps)
    config.objective.update(objective or {"dpo": {"weight": 1.0, "beta": 0.5}})
    config.metrics.update({"reward_accuracy": {}} if metrics is None else metrics)
    return config


def letters(prompt, completion, record) -> float:
    """A reward that even a model that has learnt nothing earns now and then, and that differs between samples."""
    return float(len(completion) % 3 == 0) + 0.1 * (len(completion) % 2)


def shortness(prompt, completion, record) -> float:
    """A second reward, above 0."""
    return 1 / (1 + len(completion))


def shortness_noted(prompt, completion, record) -> float:
    """The same, and a letter in a file of this process for every call."""
    with open(f"{os.environ['TINY_RUNS_CALLS']}.{os.getpid()}", "a", encoding="utf-8") as file:
        file.write("x")
    return shortness(prompt, completion, record)


def longer(prompt, first, second, record) -> float:
    """A judge of two completions."""
    return 0.5 + 0.4 * ((len(first) > len(second)) - (len(first) < len(second)))


def even(prompt, completion, record) -> bool:
    """A judge that is satisfied about half of the time."""
    return len(completion) % 2 == 0


def one_device(monkeypatch):
    """Lets a run in this process see one of the virtual devices only: eight of them compile and run more slowly."""
    monkeypatch.setattr(mesh, "make_mesh", functools.partial(mesh.make_mesh, devices=jax.devices()[:1]))


def command(config_file, workdir, *flags, script="finetune") -> list[str]:
    return [sys.executable, "-m", f"experiments.{script}", f"--config={config_file}", f"--workdir={workdir}", *flags]


def environment(**extra) -> dict[str, str]:
    """One device; the flags and the compilation cache of conftest.py come with the inherited environment."""
    paths = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    return os.environ | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"} | extra


def finetune(config_file, workdir, *flags, timeout=240, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(config_file, workdir, *flags), env=environment(), cwd=ROOT, capture_output=True, text=True,
        timeout=timeout, check=False, **kwargs,
    )  # fmt: skip


def leaves(tree) -> dict[str, np.ndarray]:
    """A pytree as {path: array on the host}, typed keys as their integers."""

    def plain(x):
        return np.asarray(jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x)

    return {jax.tree_util.keystr(path): plain(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def digest(tree) -> str:
    """One string that differs if any bit of the tree does."""
    h = hashlib.sha256()
    for path, x in sorted(leaves(tree).items()):
        h.update(f"{path}{x.dtype}{x.shape}".encode() + x.tobytes())
    return h.hexdigest()
