"""Figures at the end of a run, beside the curves of `logging`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from alignment.training import logging as metrics_log


def draw_difficulty(pairs: Sequence[Mapping], path: Path, *, beta: float) -> None:
    """Final DPO loss of each pair against the reference's log-ratio c, with the curve -log s(beta * c) between right
    and wrong (Chen et al., 2024, arXiv 2405.19534): a pair is ranked rightly exactly on and below it.

    `pairs` have the keys of a line of difficulty.jsonl. Saved as a PNG.
    """
    from matplotlib.figure import Figure

    c = np.array([p["reference_log_ratio"] for p in pairs])
    loss = np.array([p["loss"] for p in pairs])
    right = np.array([p["ranked_right"] for p in pairs], bool)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
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
    from matplotlib.figure import Figure

    better = (points[None] >= points[:, None]).all(-1) & (points[None] > points[:, None]).any(-1)
    best = ~better.any(axis=1)
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    figure = Figure(figsize=(5.2 * len(pairs), 4.2), layout="constrained")
    axes = figure.subplots(1, len(pairs), squeeze=False)
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


def kl_reward_points(path: Path, *, kl: str = "sequence_kl", reward: str = "reward") -> np.ndarray:
    """(KL, reward) f[n, 2] of every row of a metrics.jsonl that has both, in the order of the steps.

    ValueError that names what the file has, if no row does.
    """
    rows = metrics_log.read_metrics(path)
    points = [(r[kl], r[reward]) for r in rows if r.get(kl) is not None and r.get(reward) is not None]
    if not points:
        there = ", ".join(sorted({k for r in rows for k in r} - {"step", "split"})) or "nothing"
        raise ValueError(f"{path}: no row has both {kl!r} and {reward!r}; there are {there}")
    return np.array(points, float)


def draw_kl_reward_frontier(
    runs: Mapping[str, np.ndarray], path: Path, *, optimum: np.ndarray | None = None, kl_label: str = "KL, nats"
) -> None:
    """Reward against KL from the reference: a colour for each run, its points joined in their order.

    What no other point of any run beats is ringed.

    Args:
      runs: name -> (KL, reward) f[n, 2]; of a run, a decoder at several strengths, or one policy.
      path: of the PNG.
      optimum: (KL, reward) f[m, 2] of `analysis.kl_reward_frontier`, drawn as a line, if it is known.
      kl_label: of the axis.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axis = figure.subplots()
    for name, points in runs.items():
        axis.plot(points[:, 0], points[:, 1], "o-", markersize=3, linewidth=0.8, label=name)
    everything = np.concatenate([np.empty((0, 2)), *runs.values()])
    signed = everything * [-1, 1]
    better = (signed[None] >= signed[:, None]).all(-1) & (signed[None] > signed[:, None]).any(-1)
    best = everything[~better.any(axis=1)]
    axis.scatter(best[:, 0], best[:, 1], s=70, facecolors="none", edgecolors="black", label="not beaten")
    if optimum is not None:
        axis.plot(optimum[:, 0], optimum[:, 1], color="grey", linestyle="--", linewidth=1, label="best possible")
    axis.set_xlabel(kl_label)
    axis.set_ylabel("mean reward")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
