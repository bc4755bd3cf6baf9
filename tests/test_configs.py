"""Every file of configs/ with a `get_config` trains: three steps of a tiny model, in all of its stages."""

import importlib
import math
import re

import pytest
import tiny_runs

from alignment.training.logging import read_metrics
from configs import common, online
from experiments import finetune, reinforce

CONFIGS = sorted(
    p.stem for p in (tiny_runs.ROOT / "configs").glob("*.py") if "def get_config(" in p.read_text(encoding="utf-8")
)


def test_there_are_configs():
    assert {"sft", "dpo", "lcpo", "tdpo2", "lipo_lambda", "bt_reward_loss"} <= set(CONFIGS)


def is_online(name) -> bool:
    return "experiments.reinforce" in importlib.import_module(f"configs.{name}").__doc__


@pytest.mark.parametrize("name", [n for n in CONFIGS if is_online(n)])
def test_online_runs(name, tmp_path, monkeypatch):
    """Rewards of text that a fresh model writes are all 0, and teach nothing: these count the letters instead."""
    tiny_runs.one_device(monkeypatch)
    config = tiny_runs.shrink_online(importlib.import_module(f"configs.{name}").get_config())
    second = {"short": {"function": "tiny_runs:shortness"}} if len(config.rewards) > 1 else {}
    config.rewards = {"letters": {"function": "tiny_runs:letters"}, **second}
    config.judges = {"even": {"function": "tiny_runs:even"}} if config.judges else {}
    config.optimizer.learning_rate = 1e-2
    reinforce.run(config, tmp_path)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    train = [r for r in rows if r["split"] == "train"]
    assert [r["step"] for r in train] == [1, 2, 3]
    for row in rows:
        assert all(v is not None and math.isfinite(v) for k, v in row.items() if k != "split"), row
    assert any(r["grad_norm"] > 0 for r in train) and all(r["skipped"] == 0 for r in train)
    assert [r["step"] for r in rows if r["split"] == "eval"] == [0, 3]


@pytest.mark.parametrize("name", [n for n in CONFIGS if not is_online(n)])
def test_runs(name, tmp_path, monkeypatch):
    tiny_runs.one_device(monkeypatch)
    config = tiny_runs.shrink(importlib.import_module(f"configs.{name}").get_config())
    # At the first step policy and reference agree; a rate that moves the policy shows the later steps alive.
    config.optimizer.learning_rate = 1e-2
    finetune.run(config, tmp_path)
    stages = [tmp_path, tmp_path / "before"] if config.before else [tmp_path]
    for stage in stages:
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
    if is_online(name):
        common.check_keys(config, online.base(), free=online.FREE)
        online.check_numbers(config)
    else:
        common.check_keys(config, common.base())
        common.check_numbers(config)
