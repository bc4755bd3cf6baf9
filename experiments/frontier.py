"""Draws reward against KL from the reference for any set of runs: who gets more reward for the same KL.

    python -m experiments.frontier --runs=runs/grpo,runs/f_dpg --output=frontier.png [--kl=NAME] [--reward=NAME]

`--runs` are WORKDIRs whose metrics.jsonl have both (a config logs the KL with config.metrics.sequence_kl={}), or files
of lines {"kl": .., "reward": ..}. Beside the figure stands its data, OUTPUT with the ending .jsonl.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alignment.training import figures


def points_of(run: str, kl: str, reward: str) -> np.ndarray:
    """(KL, reward) f[n, 2] of a WORKDIR or of a file of points."""
    path = Path(run)
    if path.is_dir():
        return figures.kl_reward_points(path / "metrics.jsonl", kl=kl, reward=reward)
    if not path.is_file():
        raise ValueError(f"--runs: {run} is neither a WORKDIR nor a file")
    points = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
            points.append((float(record["kl"]), float(record["reward"])))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{path}:{number}: not a line {{"kl": .., "reward": ..}}: {error!r}') from None
    if not points:
        raise ValueError(f"{path}: empty")
    return np.array(points)


def run(runs: Sequence[str], output: str, *, kl: str = "sequence_kl", reward: str = "reward") -> dict[str, np.ndarray]:
    """Draws the figure, writes its data beside it, and returns them by name."""
    if not runs:
        raise ValueError("--runs: names no run")
    found = {name: points_of(name, kl, reward) for name in runs}
    figures.draw_kl_reward_frontier(found, Path(output))
    lines = [{"run": name, "kl": x, "reward": y} for name, points in found.items() for x, y in points.tolist()]
    Path(output).with_suffix(".jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"{len(lines)} points of {len(found)} runs in {output}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="experiments.frontier", description=__doc__.split("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--runs", required=True, help="WORKDIRs of runs, or files of points, with commas between")
    parser.add_argument("--output", required=True, help="the PNG to write")
    parser.add_argument("--kl", default="sequence_kl", help="the metric that is the KL, in nats per sequence")
    parser.add_argument("--reward", default="reward", help="the metric that is the reward")
    args = parser.parse_args()
    try:
        run([name for name in args.runs.split(",") if name], args.output, kl=args.kl, reward=args.reward)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
