"""Runs a grid or a search over one config's values, as an Optuna study that any number of workers share.

    python -m experiments.sweep --config=configs/sweeps/noisy_labels.py --workdir=DIR [--storage=URL] [--config.k=v]

The config file has, beside `get_config()`, two functions:

* `get_sweep()` returns a dictionary: `parameters` (a name -> a list of choices, or {"low", "high"[, "log"][, "step"]}),
  `sampler` (grid | random | tpe), `trials` (how many; not for a grid), `maximize` and `minimize` (keys of a run's
  result or of its evaluation), `report` (more such keys, for the table), `repeat` (the parameter to average over in the
  table, normally the seed), `figure` ({"x", "line", "panel"}: parameters), `curves` (logged metrics such as
  "eval/reward": drawn over the steps in curves.png, a line per value of the figure's `line`), `prune_on` (an evaluation
  metric; trials that look worse than the median of the others are ended);
* `with_values(config, **values)` returns the config of one trial.

Start the same command several times, on one machine or on several that see the same WORKDIR and storage: each takes the
next trial. A trial whose worker was killed is taken up again and goes on from its last checkpoint; a finished one is
never run again. The storage is WORKDIR/study.db (SQLite) unless --storage names a database server, such as
postgresql+psycopg2://USER@HOST/DATABASE (whose driver has to be installed). At the end WORKDIR holds trials.jsonl,
table.md, figure.png and curves.png. A config of experiments.reinforce is run by that script, any other by
experiments.finetune. With several goals each is a column of the table, and the trials that no other
beats in all of them are named below it.
"""

from __future__ import annotations

import fcntl
import importlib.util
import itertools
import json
import os
import re
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from alignment.training import checkpoints, logging
from experiments import command, finetune, reinforce, stages

KEYS = ("parameters", "sampler", "trials", "maximize", "minimize", "report", "repeat", "figure", "curves", "prune_on")
SAMPLERS = ("grid", "random", "tpe")


# --- what the config file says ---------------------------------------------------------------------------------------


def load(path: str) -> tuple[dict[str, Any], Callable[..., ConfigDict]]:
    """(`get_sweep()` with every key, `with_values`) of a config file; ValueError names what is wrong in it."""
    spec = importlib.util.spec_from_file_location("sweep_config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("get_sweep", "with_values"):
        if not hasattr(module, name):
            raise ValueError(f"{path}: no function {name}(); experiments/sweep.py says what it returns")
    sweep = {"sampler": "grid", "trials": 0, "maximize": (), "minimize": (), "report": (), "repeat": "", "figure": {},
             "curves": (), "prune_on": "", **module.get_sweep()}  # fmt: skip
    if unknown := sorted(set(sweep) - set(KEYS)):
        raise ValueError(f"{path}: get_sweep() has the unknown key {unknown[0]!r}; allowed: {', '.join(KEYS)}")
    if not sweep.get("parameters"):
        raise ValueError(f"{path}: get_sweep() names no parameters")
    if sweep["sampler"] not in SAMPLERS:
        raise ValueError(f"{path}: sampler {sweep['sampler']!r} is not one of {', '.join(SAMPLERS)}")
    if not (*sweep["maximize"], *sweep["minimize"]):
        raise ValueError(f"{path}: get_sweep() says neither what to maximize nor what to minimize")
    if sweep["sampler"] == "grid":
        if ranges := [k for k, v in sweep["parameters"].items() if isinstance(v, Mapping)]:
            raise ValueError(f"{path}: a grid needs a list of choices for {ranges[0]!r}, not a range")
    elif sweep["trials"] < 1:
        raise ValueError(f"{path}: the sampler {sweep['sampler']!r} needs `trials`, how many to run")
    named = [sweep["repeat"], *sweep["figure"].values()]
    if missing := [n for n in named if n and n not in sweep["parameters"]]:
        raise ValueError(f"{path}: {missing[0]!r} is not among the parameters {', '.join(sweep['parameters'])}")
    if sweep["prune_on"] and len((*sweep["maximize"], *sweep["minimize"])) > 1:
        raise ValueError(f"{path}: prune_on works with one objective only")
    return sweep, module.with_values


# --- the study -------------------------------------------------------------------------------------------------------


def open_study(sweep: Mapping[str, Any], storage: str, name: str, heartbeat: int) -> optuna.Study:
    """Creates the study or joins it; the whole grid (or number of trials) is queued by whoever comes first."""
    shown = re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", storage)  # a password belongs in no log
    try:
        database = optuna.storages.RDBStorage(
            storage,
            heartbeat_interval=heartbeat,
            grace_period=3 * heartbeat,
            heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
            engine_kwargs={"connect_args": {"timeout": 60}} if storage.startswith("sqlite") else None,
        )
    except ImportError as error:
        raise ValueError(f"--storage={shown}: the driver of that database is not installed: {error}") from None
    except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.OperationalError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"--storage={shown}: cannot be opened: {reason}") from None
    choices = sweep["parameters"]
    samplers = {
        "grid": optuna.samplers.RandomSampler,  # every trial of a grid is queued with its values
        "random": optuna.samplers.RandomSampler,
        "tpe": optuna.samplers.TPESampler,
    }
    study = optuna.create_study(
        study_name=name,
        storage=database,
        load_if_exists=True,
        directions=["maximize"] * len(sweep["maximize"]) + ["minimize"] * len(sweep["minimize"]),
        sampler=samplers[sweep["sampler"]](seed=os.getpid() if sweep["sampler"] == "tpe" else 0),
        pruner=optuna.pruners.MedianPruner() if sweep["prune_on"] else optuna.pruners.NopPruner(),
    )
    described = checkpoints.as_json({k: sweep[k] for k in ("parameters", "sampler", "maximize", "minimize")})
    there = study.user_attrs.get("sweep")
    if there is None:
        study.set_user_attr("sweep", described)
    elif there != described:
        differing = [k for k in described if described[k] != there.get(k)]
        raise ValueError(
            f"the study {name!r} in {shown} has other {', '.join(differing)} than the config; choose another "
            "--workdir, or on a server another --study"
        )
    if sweep["sampler"] == "grid":
        # What failed with an error is tried again by the next call, whose user has seen the error.
        trials = [t for t in study.get_trials(deepcopy=False) if t.state != optuna.trial.TrialState.FAIL]
        there = [t.params or t.system_attrs.get("fixed_params") for t in trials]
        for values in itertools.product(*choices.values()):
            if (params := dict(zip(choices, values, strict=True))) not in there:
                study.enqueue_trial(params)
    return study


def suggest(trial: optuna.Trial, parameters: Mapping[str, Any]) -> dict[str, Any]:
    values = {}
    for name, choices in parameters.items():
        if not isinstance(choices, Mapping):
            values[name] = trial.suggest_categorical(name, list(choices))
        elif all(isinstance(choices[end], int) for end in ("low", "high")):
            values[name] = trial.suggest_int(name, **choices)
        else:
            values[name] = trial.suggest_float(name, **choices)
    return values


def run_of(config: ConfigDict) -> Callable[..., dict[str, Any]]:
    """The script that a config is for: one with rollouts is an online run."""
    return reinforce.run if "rollout" in config else finetune.run


def directory_of(workdir: Path, values: Mapping[str, Any]) -> Path:
    """The trial's own directory, by its values, so that a trial taken up again finds its checkpoints."""
    return workdir / "trials" / ",".join(f"{k}={v}" for k, v in values.items()).replace(os.sep, "_")


def outcome(result: Mapping[str, Any], key: str) -> float:
    both = {**result["evaluation"], **{k: v for k, v in result.items() if isinstance(v, int | float)}}
    if key not in both:
        raise ValueError(f"get_sweep() asks for {key!r}, but a run's result has: {', '.join(sorted(both))}")
    return float(both[key])


def work(sweep, with_values, config: ConfigDict, workdir: Path, study: optuna.Study, heartbeat: int, run) -> None:
    """Takes trials until none is left, waiting for those that other workers (or the dead) still hold."""
    goals = (*sweep["maximize"], *sweep["minimize"])

    def objective(trial: optuna.Trial):
        values = suggest(trial, sweep["parameters"])
        own = with_values(ConfigDict(config.to_dict()), **values)
        if own.before and not own.before_workdir:  # trials that begin alike share their beginning
            stages.begin_in(own, workdir / "before")

        def on_evaluation(step: int, metrics: Mapping[str, float]) -> None:
            if sweep["prune_on"]:
                trial.report(metrics[sweep["prune_on"]], step)
                if trial.should_prune():
                    raise optuna.TrialPruned(f"at step {step}")

        print(f"trial {trial.number}: {', '.join(f'{k}={v}' for k, v in values.items())}", flush=True)
        result = run(own, directory_of(workdir, values), on_evaluation)
        for key in (*goals, *sweep["report"]):
            trial.set_user_attr(key, outcome(result, key))
        return tuple(outcome(result, key) for key in goals)

    states = optuna.trial.TrialState
    while True:
        optuna.storages.fail_stale_trials(study)
        trials = study.get_trials(deepcopy=False)
        counts = {s: sum(t.state == s for t in trials) for s in states}
        # A trial taken up again is a new entry; what it replaces has failed.
        begun = len(trials) - counts[states.WAITING] - counts[states.FAIL]
        if counts[states.WAITING] or (sweep["sampler"] != "grid" and begun < sweep["trials"]):
            study.optimize(objective, n_trials=1, catch=(command.RunStopped,))
        elif counts[states.RUNNING]:
            time.sleep(heartbeat)
        else:
            return


# --- what came out ---------------------------------------------------------------------------------------------------


def finished_trials(study: optuna.Study, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    done = [t for t in study.get_trials(deepcopy=False) if t.state == optuna.trial.TrialState.COMPLETE]
    return [{**t.params, **{k: t.user_attrs[k] for k in columns}} for t in sorted(done, key=lambda t: t.number)]


def spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def unbeaten(study: optuna.Study) -> set[int]:
    """Numbers of the trials than which no other is better in one goal and as good in the rest."""
    return {t.number for t in study.best_trials} if len(study.directions) > 1 else set()


def table(rows: list[dict[str, Any]], parameters: list[str], columns: tuple[str, ...], repeat: str) -> str:
    """Markdown: one line per combination of parameters, mean ± standard deviation over `repeat`."""
    keys = [p for p in parameters if p != repeat]
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row[k] for k in keys), []).append(row)
    head = [*keys, *(["runs"] if repeat else []), *columns]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for key, group in sorted(groups.items(), key=lambda item: [str(k) for k in item[0]]):
        cells = [*map(str, key), *([str(len(group))] if repeat else [])]
        lines.append("| " + " | ".join([*cells, *(spread([r[c] for r in group]) for c in columns)]) + " |")
    return "\n".join(lines) + "\n"


def draw(rows: list[dict[str, Any]], figure: Mapping[str, str], goal: str, path: Path) -> None:
    """`goal` over one parameter, a line per value of another and a panel per value of a third; bars: one deviation."""
    from matplotlib.figure import Figure

    def values(parameter: str) -> list:
        return list(dict.fromkeys(r[parameter] for r in rows)) if parameter else [None]

    x, line, panel = (figure.get(k, "") for k in ("x", "line", "panel"))
    panels = values(panel)
    drawing = Figure(figsize=(4.2 * len(panels), 3.4), layout="constrained")
    axes = drawing.subplots(1, len(panels), squeeze=False, sharey=True)
    for axis, here in zip(axes.flat, panels, strict=True):
        for name in values(line):
            chosen = [r for r in rows if (not panel or r[panel] == here) and (not line or r[line] == name)]
            places = sorted({r[x] for r in chosen})
            at = [[r[goal] for r in chosen if r[x] == place] for place in places]
            deviations = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in at]
            axis.errorbar(places, [statistics.mean(v) for v in at], deviations, marker="o", capsize=3, label=name)
        axis.set_xlabel(x)
        axis.set_title(f"{panel} = {here}" if panel else "")
        numbers = values(x)
        if all(isinstance(v, int | float) and v > 0 for v in numbers) and max(numbers) > 5 * min(numbers):
            axis.set_xscale("log")
    axes[0, 0].set_ylabel(goal)
    if line:
        axes[0, -1].legend(title=line, fontsize="small")
    drawing.savefig(path, dpi=120)


def draw_curves(rows: list[dict[str, Any]], sweep: Mapping[str, Any], workdir: Path, path: Path) -> None:
    """A panel per logged metric over the steps: the mean of the trials of each line, between their extremes."""
    from matplotlib.figure import Figure

    line = sweep["figure"].get("line", "")
    panels = sweep["curves"]
    drawing = Figure(figsize=(5.2 * len(panels), 3.6), layout="constrained")
    axes = drawing.subplots(1, len(panels), squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=True):
        split, _, metric = panel.partition("/")
        lines: dict[Any, dict[int, list[float]]] = {}
        for row in rows:
            directory = directory_of(workdir, {p: row[p] for p in sweep["parameters"]})
            for entry in logging.read_metrics(directory / "metrics.jsonl"):
                if entry["split"] == split and entry.get(metric) is not None:
                    lines.setdefault(row.get(line), {}).setdefault(entry["step"], []).append(entry[metric])
        if not lines:
            raise ValueError(f"get_sweep() asks for the curve {panel!r}, which no trial has logged")
        for name, points in lines.items():
            steps = sorted(points)
            (drawn,) = axis.plot(steps, [statistics.mean(points[s]) for s in steps], label=name)
            axis.fill_between(
                steps, [min(points[s]) for s in steps], [max(points[s]) for s in steps],
                alpha=0.12, color=drawn.get_color(), linewidth=0,
            )  # fmt: skip
        axis.set_xlabel("step")
        axis.set_ylabel(f"{metric} ({split})")
    if line:
        axes[0, -1].legend(title=line, fontsize="small")
    drawing.savefig(path, dpi=120)


def report(sweep: Mapping[str, Any], study: optuna.Study, workdir: Path) -> str:
    goals = (*sweep["maximize"], *sweep["minimize"])
    columns = (*goals, *sweep["report"])
    rows = finished_trials(study, columns)
    states = optuna.trial.TrialState
    replaced = {t.system_attrs.get("failed_trial") for t in study.get_trials(deepcopy=False)}
    others = [
        t for t in study.get_trials(deepcopy=False)
        if t.state in (states.FAIL, states.PRUNED) and t.number not in replaced
    ]  # fmt: skip
    text = table(rows, list(sweep["parameters"]), columns, sweep["repeat"])
    (workdir / "trials.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (workdir / "table.md").write_text(text)
    if rows and sweep["curves"]:
        draw_curves(rows, sweep, workdir, workdir / "curves.png")
    if rows and sweep["figure"].get("x"):
        draw(rows, sweep["figure"], goals[0], workdir / "figure.png")
    if best := unbeaten(study):
        text += "no other trial is better in every goal than: " + "; ".join(
            f"trial {t.number} ({', '.join(f'{k}={v}' for k, v in t.params.items())})"
            for t in study.get_trials(deepcopy=False) if t.number in best
        ) + "\n"  # fmt: skip
    for trial in others:
        text += f"trial {trial.number} {trial.state.name.lower()}: {trial.params}\n"
    return text


# --config and --workdir are defined by the script that every trial runs.
_STORAGE = flags.DEFINE_string("storage", "", "Database URL of the study; WORKDIR/study.db by default.")
_STUDY = flags.DEFINE_string("study", "sweep", "Name of the study: a server may hold several.")
_HEARTBEAT = flags.DEFINE_integer("heartbeat", 60, "Seconds between signs of life; after three without, it is dead.")


def main(_) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats, since version 2.8
    with command.as_command():
        workdir = Path(command.WORKDIR.value)
        command.check_writable(workdir)
        sweep, with_values = load(config_flags.get_config_filename(flags.FLAGS["config"]))
        storage = _STORAGE.value or f"sqlite:///{workdir / 'study.db'}"
        with (workdir / ".lock").open("w") as lock:  # one worker queues the grid
            fcntl.flock(lock, fcntl.LOCK_EX)
            study = open_study(sweep, storage, _STUDY.value, _HEARTBEAT.value)
        work(sweep, with_values, command.CONFIG.value, workdir, study, _HEARTBEAT.value, run_of(command.CONFIG.value))
        print(report(sweep, study, workdir))
        for name in ("table.md", "figure.png", "curves.png", "trials.jsonl"):
            if (workdir / name).exists():
                print(workdir / name)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
