"""Draws reward against KL from the reference for any set of runs: who gets more reward for the same KL.

    python -m experiments.frontier --runs=runs/grpo,runs/f_dpg --output=frontier.png [--kl=NAME] [--reward=NAME]

`--runs` are WORKDIRs whose metrics.jsonl have both (a config logs the KL with config.metrics.sequence_kl={}), WORKDIRs
of `experiments.generate` with config.reference and rewards, or files of lines {"kl": .., "reward": ..}. A decoder is a
point; those whose names are alike before a slash ("rlg/1", "rlg/2") are one series. `--optimum` is a WORKDIR of
`experiments.generate` whose only decoder samples the reference, many times for each prompt (config.data.samples): the
best that tilting these samples reaches is drawn as a line, as far as they are enough. Beside the figure stand its data,
OUTPUT with the ending .jsonl, and .md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignment import analysis
from alignment.training import figures

_SPARE = 2.0  # nats: S samples of a prompt say nothing of policies that are log S away, and little from here on


def points_of(run: str, kl: str, reward: str) -> dict[str, list[dict[str, Any]]]:
    """Name of a series -> its points {"kl", "reward", ..}, of a WORKDIR or of a file of points."""
    path = Path(run)
    if (path / "outputs.jsonl").is_file():
        return of_decoders(path / "outputs.jsonl")
    if path.is_dir():
        found = figures.kl_reward_points(path / "metrics.jsonl", kl=kl, reward=reward)
        return {run: [{"kl": x, "reward": y} for x, y in found.tolist()]}
    if not path.is_file():
        raise ValueError(f"--runs: {run} is neither a WORKDIR nor a file")
    points = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
            points.append({"kl": float(record["kl"]), "reward": float(record["reward"])})
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{path}:{number}: not a line {{"kl": .., "reward": ..}}: {error!r}') from None
    if not points:
        raise ValueError(f"{path}: empty")
    return {run: points}


def of_decoders(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The decoders of an outputs.jsonl by series; standard errors are of the mean over outputs.

    A series stands in the order of the numbers after the slashes (steps of a run), or of the KL if they are no numbers.
    """
    outputs: dict[str, list[Mapping[str, Any]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        outputs.setdefault(record["model"], []).append(record)
    series: dict[str, list[dict[str, Any]]] = {}
    for name, records in outputs.items():
        if missing := [key for key in ("kl", "reward") if any(key not in r for r in records)]:
            raise ValueError(
                f"{path}: outputs of {name} have no {missing[0]!r}; set config.reference and config.rewards, and leave "
                "out decoders whose distribution is not known"
            )
        point: dict[str, Any] = {"decoder": name}
        for key in ("kl", "reward"):
            values = np.array([r[key] for r in records], float)
            point[key] = float(values.mean())
            point[f"{key}_error"] = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
        series.setdefault(name.split("/")[0], []).append(point)
    for points in series.values():
        numbers = [point["decoder"].partition("/")[2] for point in points]
        keys = [int(n) for n in numbers] if all(map(str.isdigit, numbers)) else [point["kl"] for point in points]
        points[:] = [point for _, point in sorted(zip(keys, points, strict=True), key=lambda pair: pair[0])]
    return series


def optimum_of(run: str) -> np.ndarray:
    """(KL, reward) f[n, 2] of the tilted samples of the reference, the mean over the prompts at each beta."""
    path = Path(run) / "outputs.jsonl"
    if not path.is_file():
        raise ValueError(f"--optimum: {run} is no WORKDIR of experiments.generate")
    rewards: dict[str, list[float]] = {}
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if len({r["model"] for r in records}) > 1 or any("reward" not in r for r in records):
        raise ValueError(f"--optimum: {path} must be of one decoder, samples of the reference, with rewards")
    for record in records:
        rewards.setdefault(json.dumps(record["prompt"]), []).append(record["reward"])
    if len({len(of_prompt) for of_prompt in rewards.values()}) > 1:
        raise ValueError(f"--optimum: {path} must have as many samples of every prompt")
    table = np.array(list(rewards.values()), np.float32)
    found = analysis.kl_reward_frontier(np.zeros_like(table), table, betas=np.logspace(-1.5, 2, 80).tolist())
    kls, means = np.asarray(found.kls).mean(axis=0), np.asarray(found.rewards).mean(axis=0)
    near = kls <= np.log(table.shape[1]) - _SPARE
    return np.stack([kls, means], axis=1)[near][::-1]


def table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Markdown, a row for each point."""
    lines = ["| run | point | KL | reward |", "|---|---|---|---|"]
    for name, points in found.items():
        for number, point in enumerate(points, 1):
            cells = [
                f"{point[key]:.2f}" + (f" ± {point[f'{key}_error']:.2f}" if f"{key}_error" in point else "")
                for key in ("kl", "reward")
            ]
            lines.append(f"| {name} | {point.get('decoder', number)} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def run(
    runs: Sequence[str], output: str, *, kl: str = "sequence_kl", reward: str = "reward", optimum: str = ""
) -> dict[str, np.ndarray]:
    """Draws the figure, writes its data beside it, and returns (KL, reward) f[n, 2] by name."""
    if not runs:
        raise ValueError("--runs: names no run")
    found: dict[str, list[dict[str, Any]]] = {}
    for name in runs:
        for series, points in points_of(name, kl, reward).items():
            if series in found:
                raise ValueError(f"--runs: {name} has a series {series!r}, and so has another run")
            found[series] = points
    arrays = {name: np.array([[p["kl"], p["reward"]] for p in points]) for name, points in found.items()}
    figures.draw_kl_reward_frontier(arrays, Path(output), optimum=optimum_of(optimum) if optimum else None)
    lines = [{"run": name, **point} for name, points in found.items() for point in points]
    Path(output).with_suffix(".jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path(output).with_suffix(".md").write_text(table(found))
    print(f"{len(lines)} points of {len(found)} runs in {output}")
    return arrays


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="experiments.frontier", description=__doc__.split("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--runs", required=True, help="WORKDIRs of runs, or files of points, with commas between")
    parser.add_argument("--output", required=True, help="the PNG to write")
    parser.add_argument("--kl", default="sequence_kl", help="the metric that is the KL, in nats per sequence")
    parser.add_argument("--reward", default="reward", help="the metric that is the reward")
    parser.add_argument("--optimum", default="", help="WORKDIR of experiments.generate with samples of the reference")
    args = parser.parse_args()
    runs = [name for name in args.runs.split(",") if name]
    try:
        run(runs, args.output, kl=args.kl, reward=args.reward, optimum=args.optimum)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
