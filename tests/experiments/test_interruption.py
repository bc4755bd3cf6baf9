"""Runs as commands that are killed and stopped: what they end with is bit for bit what an undisturbed run ends with."""

import json
import os
import random
import signal
import subprocess
import time

import orbax.checkpoint as ocp
import pytest
import tiny_runs

from alignment.training import checkpoints
from alignment.training.logging import read_metrics

STEPS = 60


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny_lcpo.py"
    path.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(tiny_runs.ROOT / 'tests')!r})\n"
        "import tiny_runs\n"
        "def get_config():\n"
        f"    config = tiny_runs.dpo({STEPS}, {{'lcpo': {{'weight': 1.0, 'num_annotators': 4}}}})\n"
        "    config.checkpoints.every, config.training.eval_every = 3, 20\n"
        "    config.reference.update_every = 7\n"  # a reference that moves is part of the state, too
        "    return config\n"
    )
    return path


def ending(workdir):
    """(digest of the last checkpoint's whole state and data position, losses by step)."""
    directory = workdir / "checkpoints" / str(STEPS)
    with ocp.StandardCheckpointer() as reader:
        state = tiny_runs.digest(reader.restore(directory / "state"))
    data = {p.name: p.read_bytes() for p in sorted((directory / "data").rglob("*.json"))}
    rows = read_metrics(workdir / "metrics.jsonl")
    return state, data, [(r["step"], r["split"], r["loss"], r.get("grad_norm")) for r in rows]


@pytest.fixture(scope="module")
def undisturbed(config_file, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    done = tiny_runs.finetune(config_file, workdir)
    assert done.returncode == 0, done.stderr
    got = ending(workdir)
    assert got[1], "no data position in the checkpoint"
    assert [s for s, split, *_ in got[2] if split == "train"] == list(range(1, STEPS + 1))
    return got


def started(config_file, workdir, log):
    return subprocess.Popen(
        tiny_runs.command(config_file, workdir), env=tiny_runs.environment(), cwd=tiny_runs.ROOT, stdout=log, stderr=log
    )


def reached(workdir):
    """The last step in metrics.jsonl."""
    path = workdir / "metrics.jsonl"
    return path.read_text().count('"train"') if path.exists() else 0


def wait_until(process, condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition() and process.poll() is None:
        assert time.monotonic() < end, "the run does not get on"
        time.sleep(0.01)


def test_killed_at_random_moments_ends_bit_identical(config_file, undisturbed, tmp_path):
    seed = int(os.environ.get("ALIGNMENT_TEST_SEED", time.time_ns() % 10_000))
    rng, workdir, killed_at = random.Random(seed), tmp_path / "run", []
    for attempt in range(3):
        before = reached(workdir) if attempt else 0
        with (tmp_path / f"log{attempt}").open("w") as log:
            process = started(config_file, workdir, log)
            # Some steps after the resumed run writes its own lines, then anywhere within a few steps and saves.
            goal = min(before + rng.randint(1, 12), STEPS - 5)
            wait_until(process, lambda goal=goal: reached(workdir) >= goal)
            time.sleep(rng.random() * 0.1)
            process.send_signal(signal.SIGKILL)
            process.wait()
        if process.returncode != -signal.SIGKILL:  # on a busy machine it may reach its end before the signal
            break
        killed_at.append(reached(workdir))
    assert killed_at, f"{seed=}: the run ended before the first kill"
    done = tiny_runs.finetune(config_file, workdir)
    assert done.returncode == 0, done.stderr
    assert ending(workdir) == undisturbed, f"{seed=} {killed_at=}"


def test_stopped_by_sigterm_saves_exits_0_and_ends_bit_identical(config_file, undisturbed, tmp_path):
    workdir = tmp_path / "run"
    with (tmp_path / "log").open("w") as log:
        process = started(config_file, workdir, log)
        wait_until(process, lambda: reached(workdir) >= 4)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (tmp_path / "log").read_text()
    text = (tmp_path / "log").read_text()
    line = next(x for x in text.splitlines() if "SIGTERM" in x)
    assert str(workdir / "checkpoints") in line and "run the same command again" in line
    step = checkpoints.open_manager(workdir / "checkpoints").latest_step()
    assert f"at step {step}" in line and 4 <= step < STEPS
    # Nothing is lost: the last line of the metrics is the step of the checkpoint.
    assert json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])["step"] == step
    done = tiny_runs.finetune(config_file, workdir)
    assert done.returncode == 0, done.stderr
    assert f"going on from step {step}" in done.stdout
    assert ending(workdir) == undisturbed
