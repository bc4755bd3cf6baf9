"""Runs as commands that are killed and stopped: what they end with is bit for bit what an undisturbed run ends with."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import orbax.checkpoint as ocp
import pytest
import tiny_runs

from alignment.training import checkpoints
from alignment.training.logging import read_metrics

BEGINNING = f"""\
import sys
sys.path.insert(0, {str(tiny_runs.ROOT / "tests")!r})
import tiny_runs
"""
FINETUNE = """
def get_config():
    config = tiny_runs.dpo(60, {'lcpo': {'weight': 1.0, 'num_annotators': 4}})
    config.checkpoints.every, config.training.eval_every = 3, 20
    config.reference.update_every = 7  # a reference that moves is part of the state, too
    return config
"""
# The lengths of the shortest right answers so far are HAPO's memory; the rewards are scaled by a running one.
REINFORCE = """
from configs import online
def get_config():
    config = tiny_runs.shrink_online(online.base(), 40)
    config.rewards = {'reward': {'function': 'tiny_runs:letters'}}
    config.shaping = {'reward_normalization': {}, 'hapo': {'num_prompts': 32, 'order': 1}}
    config.advantages = {'grpo_advantages': {}}
    config.objective = {
        'ppo': {'weight': 1.0, 'reduction': 'sequence_mean'}, 'kl_k3': {'weight': 0.04, 'reduction': 'sequence_mean'},
    }
    config.optimizer.learning_rate = 1e-2
    config.training.epochs = 2
    config.checkpoints.every, config.training.eval_every = 3, 20
    config.reference.update_every = 8  # every second iteration
    return config
"""


class Script(NamedTuple):
    """A script of `experiments`, a config for it, its number of steps, and how a run that nothing disturbed ends."""

    name: str
    what: str  # its messages count
    config_file: Path
    steps: int
    kills: int
    undisturbed: tuple


def ending(workdir, steps):
    """(digest of the last checkpoint's whole state, position in the data, losses by step, completions shown)."""
    directory = workdir / "checkpoints" / str(steps)
    with ocp.StandardCheckpointer() as reader:
        state = tiny_runs.digest(reader.restore(directory / "state"))
    data = {p.name: p.read_bytes() for p in sorted((directory / "data").rglob("*.json"))}
    rows = read_metrics(workdir / "metrics.jsonl")
    losses = [(r["step"], r["split"], *(r.get(k) for k in ("loss", "grad_norm", "reward"))) for r in rows]
    samples = workdir / "samples.jsonl"
    return state, data, losses, samples.read_text() if samples.exists() else ""


def finished(name, config_file, workdir):
    done = subprocess.run(
        tiny_runs.command(config_file, workdir, script=name), env=tiny_runs.environment(), cwd=tiny_runs.ROOT,
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module", params=["finetune", "reinforce"])
def script(request, tmp_path_factory):
    name, what, text, steps, kills = {
        "finetune": ("finetune", "step", FINETUNE, 60, 3), "reinforce": ("reinforce", "iteration", REINFORCE, 40, 2)
    }[request.param]  # fmt: skip
    config_file = tmp_path_factory.mktemp("config") / "tiny.py"
    config_file.write_text(BEGINNING + text)
    workdir = tmp_path_factory.mktemp("undisturbed")
    finished(name, config_file, workdir)
    got = ending(workdir, steps)
    # Which prompts an iteration takes follows from its number: only the pipeline of offline data has a position.
    assert bool(got[1]) == (name == "finetune")
    assert [s for s, split, *_ in got[2] if split == "train"] == list(range(1, steps + 1))
    return Script(name, what, config_file, steps, kills, got)


def started(script, workdir, log):
    return subprocess.Popen(
        tiny_runs.command(script.config_file, workdir, script=script.name), env=tiny_runs.environment(),
        cwd=tiny_runs.ROOT, stdout=log, stderr=log,
    )  # fmt: skip


def reached(workdir):
    """The last step in metrics.jsonl."""
    path = workdir / "metrics.jsonl"
    return path.read_text().count('"train"') if path.exists() else 0


def wait_until(process, condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition() and process.poll() is None:
        assert time.monotonic() < end, "the run does not get on"
        time.sleep(0.01)


def test_killed_at_random_moments_ends_bit_identical(script, tmp_path):
    seed = int(os.environ.get("ALIGNMENT_TEST_SEED", time.time_ns() % 10_000))
    rng, workdir, killed_at = random.Random(seed), tmp_path / "run", []
    for attempt in range(script.kills):
        before = reached(workdir) if attempt else 0
        with (tmp_path / f"log{attempt}").open("w") as log:
            process = started(script, workdir, log)
            # Some steps after the resumed run writes its own lines, then anywhere within a few steps and saves.
            goal = min(before + rng.randint(1, script.steps // 5), script.steps - 5)
            wait_until(process, lambda goal=goal: reached(workdir) >= goal)
            time.sleep(rng.random() * 0.1)
            process.send_signal(signal.SIGKILL)
            process.wait()
        if process.returncode != -signal.SIGKILL:  # on a busy machine it may reach its end before the signal
            break
        killed_at.append(reached(workdir))
    assert killed_at, f"{seed=}: the run ended before the first kill"
    finished(script.name, script.config_file, workdir)
    assert ending(workdir, script.steps) == script.undisturbed, f"{seed=} {killed_at=}"


def test_stopped_by_sigterm_saves_exits_0_and_ends_bit_identical(script, tmp_path):
    workdir = tmp_path / "run"
    with (tmp_path / "log").open("w") as log:
        process = started(script, workdir, log)
        wait_until(process, lambda: reached(workdir) >= 4)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (tmp_path / "log").read_text()
    text = (tmp_path / "log").read_text()
    line = next(x for x in text.splitlines() if "SIGTERM" in x)
    assert str(workdir / "checkpoints") in line and "run the same command again" in line
    step = checkpoints.open_manager(workdir / "checkpoints").latest_step()
    assert f"at {script.what} {step}" in line and 4 <= step < script.steps
    # Nothing is lost: the last line of the metrics is the step of the checkpoint.
    assert json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])["step"] == step
    done = finished(script.name, script.config_file, workdir)
    assert f"going on from {script.what} {step}" in done.stdout
    assert ending(workdir, script.steps) == script.undisturbed
