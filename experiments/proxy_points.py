"""Finds the proxy points of several rewards: how much of each is best by a metric that is trusted, from finished runs.

    python -m experiments.proxy_points --trusted=gold --seen=DIR,DIR --workdir=DIR

`--seen` are WORKDIRs of online runs (experiments.reinforce) that nothing constrained and that passed the point: each
was rewarded by the rewards in question and looked at the trusted one with weight 0, for example
`config.rewards = {"helpful": {"checkpoint": ...}, "short": {"function": ...}, "gold": {"weight": 0.0, ...}}`. Every
evaluation is a point, and a quadratic of the rewards is fitted to the metric; more points come with a smaller
config.training.eval_every. WORKDIR receives proxy_points.json and proxy_points.png. The thresholds are printed as
configs/constrained_rlhf_mu.py and configs/constrained_rlhf_xi.py take them. Moskovitz et al., 2023, arXiv 2310.04373.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from alignment.multi_objective import proxy_points
from alignment.training import proxy_figures
from alignment.training.logging import read_metrics
from experiments import command
from experiments.from_config import say

RUNS = flags.DEFINE_list("seen", [], "WORKDIRs of finished online runs, with commas between.")
METRIC = flags.DEFINE_string("trusted", "", "The name of the trusted reward in config.rewards of these runs.")


def read(run: str, metric: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(names of the rewards, their means [P, N], the metric [P]) at the evaluations of a run."""
    path = Path(run)
    if not (path / "result.json").is_file():
        raise ValueError(f"--seen: {run} is not the WORKDIR of a finished run (it has no result.json)")
    rewards = json.loads((path / "result.json").read_text())["config"].get("rewards", {})
    if metric not in rewards:
        raise ValueError(f"--trusted: {run} has no reward {metric!r}; it has: {', '.join(sorted(rewards)) or 'none'}")
    if (weight := (rewards[metric] or {}).get("weight", 1.0)) != 0:
        raise ValueError(f"--trusted: {run} was trained on {metric} (weight {weight:g}); a trusted metric has weight 0")
    names = sorted(set(rewards) - {metric})
    if not names:
        raise ValueError(f"--seen: {run} has no reward beside {metric}")
    lines = [line for line in read_metrics(path / "metrics.jsonl") if line["split"] == "eval"]
    returns = np.array([[line[f"reward_{name}"] for name in names] for line in lines], np.float64)
    return names, returns.reshape(-1, len(names)), np.array([line[f"reward_{metric}"] for line in lines], np.float64)


def run(runs: Sequence[str], metric: str, workdir: Path) -> dict[str, Any]:
    """Writes the proxy points, and returns them."""
    if not runs:
        raise ValueError("--seen: names no run")
    command.check_writable(workdir)
    found = [read(directory, metric) for directory in runs]
    names = found[0][0]
    for directory, (others, *_) in zip(runs, found, strict=True):
        if others != names:
            raise ValueError(f"--seen: {directory} has the rewards {', '.join(others)}, {runs[0]} {', '.join(names)}")
    returns, values = (np.concatenate(x) for x in zip(*(f[1:] for f in found), strict=True))
    try:
        point = proxy_points.joint_proxy_point(returns, values)
    except ValueError as error:
        raise ValueError(f"--seen: {error}; an evaluation is a point, so lower config.training.eval_every") from None
    thresholds = dict(zip(names, point.tolist(), strict=True))
    ends = {name: bool(np.isclose(point[n], returns[:, n].max())) for n, name in enumerate(names)}
    result = {"metric": metric, "points": len(values), "thresholds": thresholds, "at_the_end_of_what_was_seen": ends}
    (workdir / "proxy_points.json").write_text(json.dumps(result, indent=1))
    proxy_figures.draw_metric_over_rewards(returns, values, point, names, metric, workdir / "proxy_points.png")
    shown = ", ".join(f"{name} {value:.4g}" for name, value in thresholds.items())
    say(f"proxy points of {len(values)} points: {shown}")
    if late := [name for name, at_end in ends.items() if at_end]:
        say(f"{', '.join(late)}: no run went beyond the point, and it may lie further out")
    say(f"thresholds, in the order of the rewards' names: ({', '.join(f'{x:.4g}' for x in point)})")
    return result


def main(_) -> None:
    with command.as_command():
        run(RUNS.value, METRIC.value, Path(command.WORKDIR.value))


if __name__ == "__main__":
    flags.mark_flags_as_required(["seen", "trusted", "workdir"])
    app.run(main)
