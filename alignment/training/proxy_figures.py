"""Figures of over-optimisation: what proxies and the truth do as a policy moves, and where the proxy points lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def draw_overoptimization(points: Sequence[Mapping], path: Path) -> None:
    """Gold (solid) and proxy scores (dashed) over sqrt(KL), a panel for each method and a colour for each reward.

    `points` have the keys of a line of curves.jsonl (`experiments.overoptimization`): thick lines are means over the
    seeds at the same n or iteration, thin ones the gold scores of each seed. Saved as a PNG.
    """
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(p["method"] for p in points))
    rewards = list(dict.fromkeys(p["reward"] for p in points))
    figure = Figure(figsize=(5.6 * len(methods), 4.2), layout="constrained")
    axes = figure.subplots(1, len(methods), squeeze=False)
    for axis, method in zip(axes[0], methods, strict=True):
        for number, reward in enumerate(rewards):
            colour = f"C{number}"
            curves: dict[int, list[list[float]]] = {}
            for p in points:
                if (p["method"], p["reward"]) == (method, reward):
                    curves.setdefault(p["seed"], []).append([p["kl"] ** 0.5, p["gold"], p["proxy"]])
            if not curves:
                continue
            for curve in curves.values():
                axis.plot(*np.array(curve)[:, :2].T, color=colour, linewidth=0.6, alpha=0.5)
            distance, gold, proxy = np.array(list(curves.values())).mean(axis=0).T
            axis.plot(distance, gold, color=colour, linewidth=2, label=f"{reward}: gold")
            axis.plot(distance, proxy, color=colour, linewidth=1.2, linestyle="--", label=f"{reward}: proxy")
        axis.set_title(method.replace("_", " "))
        axis.set_xlabel("sqrt(KL to the start), nats")
        axis.set_ylabel("gain over the start, in its deviations")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def draw_proxy_points(curves: Mapping[str, Any], thresholds: np.ndarray, path: Path) -> None:
    """Both rewards and the utility over the steps of a bandit, a line per method: mean and extremes of the seeds.

    `curves` are histories of `alignment.analysis.proxy_points`, `[seeds, steps, ...]`; `thresholds` are drawn dotted.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    for name, history in curves.items():
        for axis, values in zip(axes, (*np.moveaxis(history.returns, -1, 0), history.utilities), strict=True):
            steps = np.arange(1, values.shape[1] + 1)
            (line,) = axis.plot(steps, values.mean(axis=0), label=name)
            axis.fill_between(
                steps, values.min(axis=0), values.max(axis=0), color=line.get_color(), alpha=0.15, linewidth=0
            )
    for axis, threshold in zip(axes, thresholds, strict=False):
        axis.axhline(threshold, color="black", linewidth=1, linestyle=":", label="proxy point (mean)")
    for axis, label in zip(axes, ("mean reward 1", "mean reward 2", "mean utility"), strict=True):
        axis.set_ylabel(label)
        axis.set_xlabel("step")
        axis.set_xscale("log")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def draw_metric_over_rewards(
    returns: np.ndarray, metric: np.ndarray, point: np.ndarray, names: Sequence[str], metric_name: str, path: Path
) -> None:
    """A trusted metric [P] over each of the rewards [P, N], with the proxy point [N]; saved as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(names), 3.6), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False, sharey=True)
    for axis, values, at, name in zip(axes[0], returns.T, point, names, strict=True):
        axis.scatter(values, metric, s=14)
        axis.axvline(at, color="black", linewidth=1, linestyle=":", label="proxy point")
        axis.set_xlabel(f"mean {name}")
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel(f"mean {metric_name}")
    axes[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
