"""Figures at the end of a run, beside the curves of `logging`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def draw_difficulty(pairs: Sequence[Mapping], path: Path, *, beta: float) -> None:
    """Final DPO loss of each pair against the reference's log-ratio c, with the curve -log s(beta * c) between right
    and wrong (Chen et al., 2024, arXiv 2405.19534): a pair is ranked rightly exactly on and below it.

    `pairs` have the keys of a line of difficulty.jsonl. Saved as a PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    c = np.array([p["reference_log_ratio"] for p in pairs])
    loss = np.array([p["loss"] for p in pairs])
    right = np.array([p["ranked_right"] for p in pairs], bool)
    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    for chosen, colour, label in ((right, "tab:blue", "ranked right"), (~right, "tab:red", "ranked wrong")):
        axis.scatter(c[chosen], loss[chosen], s=8, color=colour, alpha=0.7, label=f"{label} ({int(chosen.sum())})")
    finite = c[np.isfinite(c)]
    if finite.size:
        grid = np.linspace(finite.min(), finite.max(), 200)
        axis.plot(grid, np.logaddexp(0, -beta * grid), color="black", linewidth=1, label="loss that flips the pair")
    axis.set_xlabel("log ref(rejected) - log ref(chosen), nats")
    axis.set_ylabel(f"DPO loss at beta = {beta:g}")
    axis.set_title("Difficulty of the evaluation pairs", fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_front(
    points: np.ndarray,
    names: Sequence[str],
    path: Path,
    *,
    colour: np.ndarray | None = None,
    colour_label: str = "",
    labels: Sequence[str] = (),
    reference: np.ndarray | None = None,
) -> None:
    """What policies earn under each objective: a panel for each pair of objectives, the non-dominated points ringed.

    Args:
      points: f[P, K], all maximised.
      names: of the K objectives.
      path: of the PNG.
      colour: a number for each point, e.g. the iteration.
      colour_label: what that number is.
      labels: a text for each point; empty: none.
      reference: reference point of the hypervolume.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    better = (points[None] >= points[:, None]).all(-1) & (points[None] > points[:, None]).any(-1)
    best = ~better.any(axis=1)
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    figure, axes = plt.subplots(
        1, len(pairs), figsize=(5.2 * len(pairs), 4.2), layout="constrained", squeeze=False
    )
    for axis, (i, j) in zip(axes[0], pairs, strict=True):
        drawn = axis.scatter(points[:, i], points[:, j], s=22, **({} if colour is None else {"c": colour}))
        axis.scatter(points[best, i], points[best, j], s=90, facecolors="none", edgecolors="tab:red", label="front")
        if len(names) == 2:
            order = np.flatnonzero(best)[np.argsort(points[best, 0])]
            axis.plot(points[order, 0], points[order, 1], color="tab:red", linewidth=0.8)
        if reference is not None:
            axis.scatter([reference[i]], [reference[j]], marker="x", color="black", label="reference point")
        for text, point in zip(labels, points, strict=False):
            axis.annotate(text, (point[i], point[j]), fontsize=7, xytext=(4, 4), textcoords="offset points")
        axis.set_xlabel(names[i])
        axis.set_ylabel(names[j])
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    if colour is not None and len(points):
        figure.colorbar(drawn, ax=axes[0].tolist(), label=colour_label)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_overoptimization(points: Sequence[Mapping], path: Path) -> None:
    """Gold (solid) and proxy scores (dashed) over sqrt(KL), a panel for each method and a colour for each reward.

    `points` have the keys of a line of curves.jsonl (`experiments.overoptimization`): thick lines are means over the
    seeds at the same n or iteration, thin ones the gold scores of each seed. Saved as a PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    methods = list(dict.fromkeys(p["method"] for p in points))
    rewards = list(dict.fromkeys(p["reward"] for p in points))
    figure, axes = plt.subplots(
        1, len(methods), figsize=(5.6 * len(methods), 4.2), layout="constrained", squeeze=False
    )
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
    plt.close(figure)


def draw_proxy_points(curves: Mapping[str, Any], thresholds: np.ndarray, path: Path) -> None:
    """Both rewards and the utility over the steps of a bandit, a line per method: mean and extremes of the seeds.

    `curves` are histories of `alignment.analysis.proxy_points`, `[seeds, steps, ...]`; `thresholds` are drawn dotted.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12.5, 3.6), layout="constrained")
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
    plt.close(figure)


def draw_metric_over_rewards(
    returns: np.ndarray, metric: np.ndarray, point: np.ndarray, names: Sequence[str], metric_name: str, path: Path
) -> None:
    """A trusted metric [P] over each of the rewards [P, N], with the proxy point [N]; saved as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(names), figsize=(4.6 * len(names), 3.6), layout="constrained", squeeze=False, sharey=True
    )
    for axis, values, at, name in zip(axes[0], returns.T, point, names, strict=True):
        axis.scatter(values, metric, s=14)
        axis.axvline(at, color="black", linewidth=1, linestyle=":", label="proxy point")
        axis.set_xlabel(f"mean {name}")
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel(f"mean {metric_name}")
    axes[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
