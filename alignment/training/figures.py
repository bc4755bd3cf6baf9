"""Figures at the end of a run, beside the curves of `logging`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

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
