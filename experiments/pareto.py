"""Compares the fronts of finished runs: one table of indicators and one figure.

    python -m experiments.pareto --fronts=DIR,DIR,... --workdir=DIR [--reference=0,-1.5]

Reads WORKDIR/pareto.jsonl of each run (of `experiments.reinforce` with several rewards: its last evaluation; of
`experiments.soup`: all mixtures). WORKDIR receives pareto.jsonl, pareto.png and table.md with, for each run and for all
of them together: points on the front, hypervolume, expected utility, sparsity, R2 and coverage of the joint front.
`--reference` is the reference point of the hypervolume, to be fixed before the runs; without it the worst first
evaluation of the runs under each reward stands in for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags

from alignment import multi_objective
from alignment.training import figures
from experiments import command
from experiments.from_config import say

FRONTS = flags.DEFINE_list("fronts", [], "WORKDIRs with a pareto.jsonl, with commas between.")
REFERENCE = flags.DEFINE_list("reference", [], "Reference point: one number per reward, with commas between.")
COLUMNS = ("front", "hypervolume", "expected utility", "sparsity", "R2", "coverage")


def read(run: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(names of the rewards, points of the run's end [P, K], those of its first evaluation)."""
    path = Path(run) / "pareto.jsonl"
    if not path.is_file():
        raise ValueError(f"--fronts: there is no {path}; runs with several rewards and soups write it")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    if not lines:
        raise ValueError(f"--fronts: {path} is empty")
    names = list(lines[0]["rewards"])
    values = np.array([[line["rewards"][n] for n in names] for line in lines], np.float64)
    at = np.array([line.get("iteration", 0) for line in lines])
    return names, values[at == at.max()], values[at == at.min()]


def indicators(
    points: np.ndarray, reference: np.ndarray, ideal: np.ndarray, joint: np.ndarray, preferences: np.ndarray
) -> dict[str, float]:
    """The row of a table; everything in float64."""
    with jax.enable_x64(True):
        valid = np.ones(len(points), bool)
        best = np.asarray(multi_objective.non_dominated(points, valid)) > 0
        return {
            "front": float(best.sum()),
            "hypervolume": float(multi_objective.hypervolume(points, valid, reference)),
            "expected utility": float(multi_objective.expected_utility(points, valid, preferences)),
            "sparsity": float(multi_objective.sparsity(points, best)),
            "R2": float(multi_objective.r2_indicator(points, valid, preferences, ideal)),
            "coverage": float(multi_objective.coverage(points, valid, joint)),
        }


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    lines = [f"| run | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
    lines += [f"| {run} | {' | '.join(f'{row[c]:.4g}' for c in COLUMNS)} |" for run, row in rows.items()]
    return "\n".join(lines) + "\n"


def run(runs: Sequence[str], workdir: Path, reference: Sequence[float] = ()) -> dict[str, Any]:
    """Writes the comparison; returns the table's numbers by run, and `all`."""
    if not runs:
        raise ValueError("--fronts: names no run")
    command.check_writable(workdir)
    found = {r: read(r) for r in runs}
    names = found[runs[0]][0]
    for r, (others, *_) in found.items():
        if others != names:
            raise ValueError(f"--fronts: {r} has the rewards {', '.join(others)}, {runs[0]} has {', '.join(names)}")
    if len(reference) not in (0, len(names)):
        raise ValueError(f"--reference: must have one number for each of {', '.join(names)}, got {len(reference)}")
    everything = np.concatenate([points for _, points, _ in found.values()])
    firsts = np.concatenate([first for *_, first in found.values()])
    low = np.asarray(reference or firsts.min(axis=0), np.float64)
    best = np.asarray(multi_objective.non_dominated(everything.astype(np.float32), np.ones(len(everything), bool))) > 0
    preferences = np.random.default_rng(0).dirichlet(np.ones(len(names)), size=100)
    context = (low, everything.max(axis=0), everything[best], preferences)
    rows = {r: indicators(points, *context) for r, (_, points, _) in found.items()}
    rows["all"] = indicators(everything, *context)
    labels = [Path(r).name for r, (_, points, _) in found.items() for _ in points]
    lines = [
        {"run": label, "rewards": dict(zip(names, point.tolist(), strict=True))}
        for label, point in zip(labels, everything, strict=True)
    ]
    (workdir / "pareto.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    numbers = np.unique(labels, return_inverse=True)[1]
    figures.draw_front(
        everything, names, workdir / "pareto.png", colour=numbers, colour_label="run", labels=labels, reference=low
    )
    (workdir / "table.md").write_text(table(rows))
    say(table(rows))
    return rows


def main(_) -> None:
    with command.as_command():
        run(FRONTS.value, Path(command.WORKDIR.value), [float(x) for x in REFERENCE.value])


if __name__ == "__main__":
    flags.mark_flags_as_required(["fronts", "workdir"])
    app.run(main)
