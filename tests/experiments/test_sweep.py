"""The sweep: every value once, whoever dies on the way, and a table that says what came out."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import tiny_runs

from experiments import sweep

CONFIG = """
import sys
sys.path.insert(0, {tests!r})
import tiny_runs
def get_config():
    config = tiny_runs.dpo({steps})
    config.checkpoints.every = {every}
    return config
def get_sweep():
    return {sweep!r}
def with_values(config, **values):
    config.seed = values.get("seed", 0)
    config.objective.dpo.beta = values["beta"]
    return config
"""
GRID = {
    "parameters": {"beta": [0.1, 1.0], "seed": [0, 1]},
    "minimize": ["loss"],
    "report": ["reward_accuracy"],
    "repeat": "seed",
    "figure": {"x": "beta"},
}


def config_file(directory, what=GRID, steps=2, every=2):
    path = directory / "config.py"
    path.write_text(CONFIG.format(tests=str(tiny_runs.ROOT / "tests"), sweep=what, steps=steps, every=every))
    return path


def command(path, workdir, *flags):
    return [sys.executable, "-m", "experiments.sweep", f"--config={path}", f"--workdir={workdir}", *flags]


def run(path, workdir, *flags):
    return subprocess.run(
        command(path, workdir, *flags), env=tiny_runs.environment(), cwd=tiny_runs.ROOT, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip


def values_of(workdir):
    rows = [json.loads(line) for line in (workdir / "trials.jsonl").read_text().splitlines()]
    return rows, sorted((r["beta"], r["seed"]) for r in rows)


def test_a_grid_runs_every_value_once_and_a_second_call_runs_none(tmp_path):
    path = config_file(tmp_path)
    done = run(path, tmp_path / "work")
    assert done.returncode == 0, done.stderr
    rows, values = values_of(tmp_path / "work")
    assert values == [(0.1, 0), (0.1, 1), (1.0, 0), (1.0, 1)]
    assert all({"loss", "reward_accuracy"} <= set(r) for r in rows)
    lines = (tmp_path / "work" / "table.md").read_text().splitlines()
    assert lines[0] == "| beta | runs | loss | reward_accuracy |" and len(lines) == 4
    mean = sum(r["loss"] for r in rows if r["beta"] == 0.1) / 2
    assert f"| 0.1 | 2 | {mean:.3f} ± " in lines[2]
    assert (tmp_path / "work" / "figure.png").stat().st_size > 1000
    again = run(path, tmp_path / "work")
    assert again.returncode == 0 and "trial 0:" not in again.stdout
    assert values_of(tmp_path / "work")[0] == rows


def test_two_workers_killed_and_restarted_leave_every_trial_finished_once(tmp_path):
    path = config_file(tmp_path, steps=30, every=5)
    workdir = tmp_path / "work"

    def start():
        log = (tmp_path / "log").open("a")
        return subprocess.Popen(
            command(path, workdir, "--heartbeat=1"), env=tiny_runs.environment(), cwd=tiny_runs.ROOT,
            stdout=log, stderr=log,
        )  # fmt: skip

    def checkpoint_written():
        return any(p.name.isdigit() for p in workdir.glob("trials/*/checkpoints/*"))

    workers = [start(), start()]
    deadline = time.monotonic() + 200
    while not checkpoint_written():
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.1)
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    assert not (workdir / "table.md").exists()
    workers = [start(), start()]
    assert [w.wait(timeout=300) for w in workers] == [0, 0], (tmp_path / "log").read_text()
    _, values = values_of(workdir)
    assert values == [(0.1, 0), (0.1, 1), (1.0, 0), (1.0, 1)]
    assert "going on from step" in (tmp_path / "log").read_text(), "a killed trial goes on from its checkpoint"


def test_a_search_stays_in_its_range_and_runs_as_many_trials_as_asked(tmp_path):
    what = {"parameters": {"beta": {"low": 0.1, "high": 1.0, "log": True}}, "sampler": "tpe", "trials": 3,
            "maximize": ["reward_accuracy"], "prune_on": "loss"}  # fmt: skip
    done = run(config_file(tmp_path, what), tmp_path / "work")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "work" / "trials.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and all(0.1 <= r["beta"] <= 1.0 for r in rows)
    assert len({r["beta"] for r in rows}) == 3


@pytest.mark.parametrize(
    "change,words",
    [
        ({"sampler": "annealing"}, "annealing"),
        ({"parameters": {}}, "no parameters"),
        ({"minimize": []}, "neither what to maximize nor"),
        ({"repeat": "sed"}, "'sed' is not among"),
        ({"parameters": {"beta": {"low": 0.1, "high": 1.0}}, "repeat": "", "figure": {}}, "needs a list of choices"),
        ({"sampler": "tpe"}, "needs `trials`"),
        ({"colour": 1}, "unknown key 'colour'"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused_with_the_reason(tmp_path, change, words):
    with pytest.raises(ValueError, match=words) as error:
        sweep.load(str(config_file(tmp_path, {**GRID, **change})))
    assert str(tmp_path) in str(error.value)


def test_a_result_that_has_not_what_is_asked_for_names_what_it_has(tmp_path):
    path = config_file(tmp_path, {**GRID, "minimize": ["los"]})
    done = run(path, tmp_path / "work")
    assert done.returncode == 1 and "'los'" in done.stderr and "reward_accuracy" in done.stderr


def test_a_trial_that_failed_with_an_error_is_tried_again_by_the_next_call(tmp_path):
    path = config_file(tmp_path)
    good = path.read_text()
    path.write_text(good.replace("config.seed =", "config.data.batch_size = 7 if values['seed'] else 8; config.seed ="))
    environment = {"JAX_NUM_CPU_DEVICES": "2"}  # which 7 rows do not divide
    first = subprocess.run(
        command(path, tmp_path / "work"), env=tiny_runs.environment(**environment), cwd=tiny_runs.ROOT,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert first.returncode == 1 and "batch_size" in first.stderr
    path.write_text(good)
    assert run(path, tmp_path / "work").returncode == 0
    assert values_of(tmp_path / "work")[1] == [(0.1, 0), (0.1, 1), (1.0, 0), (1.0, 1)]


def test_another_grid_in_the_same_study_is_refused(tmp_path):
    for values in ([0.1], [0.2]):
        what = {**GRID, "parameters": {"beta": values, "seed": [0]}}
        spec, _ = sweep.load(str(config_file(tmp_path, what)))
        if values == [0.1]:
            sweep.open_study(spec, f"sqlite:///{tmp_path / 'study.db'}", 60)
        else:
            with pytest.raises(ValueError, match="has other parameters"):
                sweep.open_study(spec, f"sqlite:///{tmp_path / 'study.db'}", 60)
    assert os.path.exists(tmp_path / "study.db")
