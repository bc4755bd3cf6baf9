"""Two processes of two devices each, as on two hosts: work by process, one set of files, the numbers of one process."""

import json
import socket
import subprocess

import numpy as np
import pytest
import tiny_runs

from alignment.training.logging import read_metrics

CONFIG = """
import sys
sys.path.insert(0, {tests!r})
import tiny_runs
from configs import dpo
def get_config():
    config = tiny_runs.shrink(dpo.get_config(), 4)
    config.gold.samples = 16
    config.training.accumulate = 2
    config.checkpoints.export_hugging_face = True
    config.precompute_reference = {precompute}
    config.optimizer.learning_rate = 1e-2
    return config
"""


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


ONLINE = """
import os, sys
sys.path.insert(0, {tests!r})
import tiny_runs
from configs import {name}
def get_config():
    config = tiny_runs.shrink_online({name}.get_config(), 2)
    config.before = type(config)()
    config.rollout.judge = "tiny_runs:longer" if config.rollout.judge else ""
    config.rollout.prompts = 8
    config.rewards = {{
        "letters": {{"function": "tiny_runs:letters"}}, "short": {{"function": "tiny_runs:shortness_noted"}}
    }}
    config.checkpoints.export_hugging_face = True
    config.optimizer.learning_rate = 1e-2
    return config
"""


def run(config_file, workdir, processes, script="finetune"):
    devices = str(4 // processes)
    port = free_port()
    running = []
    for index in range(processes):
        flags, extra = [], {"JAX_NUM_CPU_DEVICES": devices, "TINY_RUNS_CALLS": str(workdir) + ".calls"}
        if processes > 1:
            flags = ["--config.distributed=True"]
            extra |= {
                "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
                "JAX_NUM_PROCESSES": str(processes),
                "JAX_PROCESS_ID": str(index),
            }
        running.append(
            subprocess.Popen(
                tiny_runs.command(config_file, workdir, *flags, script=script),
                env=tiny_runs.environment(**extra),
                cwd=tiny_runs.ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [p.communicate(timeout=400)[0] for p in running]
    assert all(p.returncode == 0 for p in running), "\n=====\n".join(outputs)
    return outputs


@pytest.mark.parametrize("precompute", [False, True], ids=["reference_in_step", "stored_reference"])
def test_two_processes_train_as_one_does(tmp_path, precompute):
    config_file = tmp_path / "config.py"
    config_file.write_text(CONFIG.format(tests=str(tiny_runs.ROOT / "tests"), precompute=precompute))
    (said_alone,) = run(config_file, tmp_path / "one", 1)
    said, silent = run(config_file, tmp_path / "two", 2)
    assert "gold win rate" in said and "gold win rate" in said_alone
    assert "dpo" not in silent, "only the first process speaks"

    for stage in (".", "before"):
        one, two = (read_metrics(tmp_path / name / stage / "metrics.jsonl") for name in ("one", "two"))
        assert [(r["step"], r["split"]) for r in one] == [(r["step"], r["split"]) for r in two]
        for a, b in zip(one, two, strict=True):
            for key in ("loss", "grad_norm"):
                if key in a:
                    np.testing.assert_allclose(a[key], b[key], rtol=2e-4)
    results = [json.loads((tmp_path / name / "result.json").read_text())["result"] for name in ("one", "two")]
    assert results[0]["win_rate_before"] == pytest.approx(results[1]["win_rate_before"], abs=1 / 16)
    assert (tmp_path / "two" / "hugging_face" / "model.safetensors").exists()


@pytest.mark.parametrize("name", ["spo", "nash_md_pg"])
def test_two_processes_roll_out_and_train_as_one_does(tmp_path, name):
    """With a memory of prompts, or a judge and an opponent who is remembered; every reward is asked for once in all."""
    config_file = tmp_path / "config.py"
    config_file.write_text(ONLINE.format(tests=str(tiny_runs.ROOT / "tests"), name=name))
    run(config_file, tmp_path / "one", 1, "reinforce")
    said, silent = run(config_file, tmp_path / "two", 2, "reinforce")
    assert "mean reward on held-out prompts" in said and "mean reward" not in silent

    one, two = (read_metrics(tmp_path / directory / "metrics.jsonl") for directory in ("one", "two"))
    assert [(r["step"], r["split"]) for r in one] == [(r["step"], r["split"]) for r in two]
    assert len({r["reward"] for r in one}) > 2
    for a, b in zip(one, two, strict=True):
        for key in ("loss", "grad_norm", "reward", "reward_short", "completion_length", "length"):
            assert (key in a) == (key in b)
            if key in a:
                np.testing.assert_allclose(a[key], b[key], rtol=2e-4)
    calls = [[f.stat().st_size for f in tmp_path.glob(f"{directory}.calls.*")] for directory in ("one", "two")]
    assert len(calls[0]) == 1 and calls[1] == [calls[0][0] / 2] * 2
    shown = [(tmp_path / directory / "samples.jsonl").read_text().splitlines() for directory in ("one", "two")]
    assert shown[0] == shown[1] and len(shown[0]) > 8
    assert (tmp_path / "two" / "hugging_face" / "model.safetensors").exists()
