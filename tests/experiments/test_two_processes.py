"""Two processes of two devices each, as on two hosts: data by process, one set of files, the numbers of one process."""

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


def run(config_file, workdir, processes):
    devices = str(4 // processes)
    port = free_port()
    running = []
    for index in range(processes):
        flags, extra = [], {"JAX_NUM_CPU_DEVICES": devices}
        if processes > 1:
            flags = ["--config.distributed=True"]
            extra |= {
                "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
                "JAX_NUM_PROCESSES": str(processes),
                "JAX_PROCESS_ID": str(index),
            }
        running.append(
            subprocess.Popen(
                tiny_runs.command(config_file, workdir, *flags),
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
