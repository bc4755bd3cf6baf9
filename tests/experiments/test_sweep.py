"""The sweep: every value once, whoever dies on the way, and a table that says what came out."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import tiny_runs

from experiments import finetune, reinforce, sweep

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
    """On SQLite; on the server that ALIGNMENT_TEST_STORAGE names, an empty database, if it is set."""
    path = config_file(tmp_path, steps=30, every=5)
    workdir = tmp_path / "work"
    storage = [f"--storage={url}" for url in [os.environ.get("ALIGNMENT_TEST_STORAGE")] if url]

    def start():
        log = (tmp_path / "log").open("a")
        return subprocess.Popen(
            command(path, workdir, "--heartbeat=1", *storage), env=tiny_runs.environment(), cwd=tiny_runs.ROOT,
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


def rehearse(tmp_path, what, run):
    """The whole sweep in this process, `run` in the place of training; (study, sweep)."""
    spec, with_values = sweep.load(str(config_file(tmp_path, what)))
    study = sweep.open_study(spec, f"sqlite:///{tmp_path / 'study.db'}", "sweep", 60)
    sweep.work(spec, with_values, tiny_runs.dpo(1), tmp_path / "work", study, 60, run)
    (tmp_path / "work").mkdir(exist_ok=True)
    return study, sweep.report(spec, study, tmp_path / "work")


def test_several_goals_have_a_column_each_and_the_unbeaten_are_named(tmp_path):
    def run(config, directory, on_evaluation):
        beta = config.objective.dpo.beta
        return {"evaluation": {"accuracy": beta, "loss": 1.0 if beta == 2.0 else beta}}

    what = {"parameters": {"beta": [0.5, 1.0, 2.0]}, "maximize": ["accuracy"], "minimize": ["loss"]}
    study, text = rehearse(tmp_path, what, run)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert text.startswith("| beta | accuracy | loss |")
    assert "beta=0.5" in text and "beta=2.0" in text and "beta=1.0" not in text.partition("no other")[2]


def test_a_trial_that_looks_worse_than_the_others_is_ended_and_named(tmp_path):
    steps_run = []

    def run(config, directory, on_evaluation):
        beta = config.objective.dpo.beta
        for step in (1, 2, 3):
            steps_run.append((beta, step))
            on_evaluation(step, {"loss": beta})
        return {"evaluation": {"loss": beta}}

    grid = [0.1 * k for k in range(1, 7)] + [9.0]  # pruning begins after five trials; trials run in this order
    study, text = rehearse(tmp_path, {"parameters": {"beta": grid}, "minimize": ["loss"], "prune_on": "loss"}, run)
    states = {t.params["beta"]: t.state.name for t in study.trials}
    assert states[9.0] == "PRUNED" and states[0.1] == "COMPLETE"
    assert (9.0, 1) in steps_run and (9.0, 3) not in steps_run
    assert "pruned: {'beta': 9.0}" in text


@pytest.mark.parametrize("storage", ["no-such-scheme://host/db", "sqlite:////no/such/directory/study.db"])
def test_a_storage_that_cannot_be_opened_is_named(tmp_path, storage):
    spec, _ = sweep.load(str(config_file(tmp_path)))
    with pytest.raises(ValueError, match="--storage="):
        sweep.open_study(spec, storage, "sweep", 60)


def test_an_online_config_is_swept_too(tmp_path, monkeypatch):
    from configs import grpo

    tiny_runs.one_device(monkeypatch)
    config = tiny_runs.shrink_online(grpo.get_config(), 1)
    config.rewards = {"letters": {"function": "tiny_runs:letters"}}
    assert sweep.run_of(config) is reinforce.run and sweep.run_of(tiny_runs.dpo(1)) is finetune.run
    spec = {"parameters": {"rate": [1e-3]}, "sampler": "grid", "maximize": ("reward",), "minimize": (),
            "report": ("reward_after",), "repeat": "", "figure": {"line": "rate"}, "prune_on": "",
            "curves": ("eval/reward", "train/zero_gradient_groups")}  # fmt: skip

    def with_values(config, rate):
        config.optimizer.learning_rate = rate
        return config

    study = sweep.open_study(spec, f"sqlite:///{tmp_path / 'study.db'}", "sweep", 60)
    sweep.work(spec, with_values, config, tmp_path, study, 60, sweep.run_of(config))
    (row,) = sweep.finished_trials(study, ("reward", "reward_after"))
    assert row["rate"] == 1e-3 and row["reward"] == row["reward_after"]
    sweep.report(spec, study, tmp_path)
    assert (tmp_path / "curves.png").stat().st_size > 5000 and not (tmp_path / "figure.png").exists()
    with pytest.raises(ValueError, match="'eval/no_such', which no trial has logged"):
        sweep.report({**spec, "curves": ("eval/no_such",)}, study, tmp_path)
    assert len(list((tmp_path / "before").iterdir())) == 1, "the warm-up is kept where other trials find it"


def test_another_grid_in_the_same_study_is_refused(tmp_path):
    for values in ([0.1], [0.2]):
        what = {**GRID, "parameters": {"beta": values, "seed": [0]}}
        spec, _ = sweep.load(str(config_file(tmp_path, what)))
        if values == [0.1]:
            sweep.open_study(spec, f"sqlite:///{tmp_path / 'study.db'}", "sweep", 60)
        else:
            with pytest.raises(ValueError, match="has other parameters"):
                sweep.open_study(spec, f"sqlite:///{tmp_path / 'study.db'}", "sweep", 60)
    assert os.path.exists(tmp_path / "study.db")
