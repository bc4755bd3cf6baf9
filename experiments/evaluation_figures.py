"""The figure of an evaluation: a panel for each metric, drawn by the kind of its result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alignment import evaluation
from alignment.evaluation.best_of_n import BestOfNCurve
from alignment.evaluation.calibration import Calibration
from alignment.evaluation.elo import Ratings
from alignment.evaluation.length_control import LengthControlledWinRates
from alignment.evaluation.mismatch import Mismatch
from alignment.evaluation.win_rates import WinRate, WinRateMatrix

_HIDDEN = {"n", "wins", "ties", "losses", "runs", "battles", "null_requests", "left_out", "claims_per_answer"}


class Finding(NamedTuple):
    """What one entry of config.metrics gave for one model ("" for all of them)."""

    entry: str
    model: str
    columns: dict[str, Any]
    result: Any
    left_out: int


def draw(findings: Sequence[Finding], path: Path) -> None:
    """Saves a PNG with the panels of all entries."""
    from matplotlib.figure import Figure

    panels = []
    for entry in dict.fromkeys(f.entry for f in findings):
        of_entry = [f for f in findings if f.entry == entry]
        panels += [(function, of_entry) for function in PANELS.get(type(of_entry[0].result), (bars,))]
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (function, of_entry) in zip(axes.flat, panels, strict=False):
        axis.set_title(of_entry[0].entry, fontsize=10)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        function(axis, of_entry)
    figure.savefig(path, dpi=110)


def points(axis, names: Sequence[str], values, low, high, label: str, reference: float | None = None) -> None:
    """A value with its interval for each model, from left to right; what is not finite is left out, with a note."""
    values, low, high = (np.asarray(x, np.float64) for x in (values, low, high))
    finite = np.isfinite(values)
    at = np.arange(len(names))
    axis.scatter(at[finite], values[finite], s=25)
    ends = np.where(np.isfinite(low), low, values), np.where(np.isfinite(high), high, values)
    axis.vlines(at[finite], ends[0][finite], ends[1][finite])
    for i in np.flatnonzero(~finite):
        axis.annotate(f"{values[i]:g}", (i, 0.5), xycoords=("data", "axes fraction"), ha="center", fontsize=8)
    axis.set_xticks(at, names, rotation=20, ha="right")
    axis.set_xlim(-0.5, len(names) - 0.5)
    if reference is not None:
        axis.axhline(reference, color="black", linewidth=0.8, linestyle=":")
    axis.set_ylabel(label, fontsize=8)


def win_rates(axis, findings: Sequence[Finding]) -> None:
    of = [f.result for f in findings]
    names = [f.model for f in findings]
    points(axis, names, [r.win_rate for r in of], [r.low for r in of], [r.high for r in of], "win rate", 0.5)


def controlled(axis, findings: Sequence[Finding]) -> None:
    for result in (f.result for f in findings):
        points(axis, result.model, result.win_rate, result.low, result.high, "win rate at equal lengths", 0.5)
        axis.scatter(range(len(result.model)), result.raw_win_rate, s=25, facecolors="none", edgecolors="tab:red",
                     label="raw")  # fmt: skip
    axis.legend(fontsize=8)


def ratings(axis, findings: Sequence[Finding]) -> None:
    for result in (f.result for f in findings):
        points(axis, result.model, result.rating, result.low, result.high, "Elo", 1000)


def matrix(axis, findings: Sequence[Finding]) -> None:
    for names, rates in (f.result for f in findings):
        axis.imshow(rates, vmin=0, vmax=1, cmap="RdYlGn")
        for i, j in np.argwhere(~np.isnan(rates)):
            axis.annotate(f"{rates[i, j]:.2f}", (j, i), ha="center", va="center", fontsize=8)
        axis.set_xticks(range(len(names)), names, rotation=20, ha="right")
        axis.set_yticks(range(len(names)), names)
        axis.set_xlabel("against", fontsize=8)
        axis.grid(visible=False)


def best_of_n(axis, findings: Sequence[Finding]) -> None:
    for f in findings:
        curve = f.result
        axis.plot(curve.kl, curve.proxy, "--", label=f"{f.model} proxy")
        axis.plot(curve.kl, curve.gold, "o-", markersize=3, label=f"{f.model} gold")
        axis.fill_between(
            curve.kl, curve.gold - 2 * curve.gold_standard_error, curve.gold + 2 * curve.gold_standard_error, alpha=0.2
        )
    axis.set_xlabel("KL of best of n, nats", fontsize=8)
    axis.legend(fontsize=8)


def reliability(axis, findings: Sequence[Finding]) -> None:
    axis.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":")
    for f in findings:
        confidence, accuracy, number = evaluation.reliability(f.columns["confidences"], f.columns["correct"])
        axis.plot(confidence[number > 0], accuracy[number > 0], "o-", markersize=3, label=f.model)
    axis.set_xlabel("confidence", fontsize=8)
    axis.set_ylabel("accuracy", fontsize=8)
    axis.legend(fontsize=8)


def risk_coverage(axis, findings: Sequence[Finding]) -> None:
    for f in findings:
        axis.plot(*evaluation.risk_coverage(f.columns["confidences"], f.columns["correct"]), label=f.model)
    axis.set_xlabel("coverage: share answered, most confident first", fontsize=8)
    axis.set_ylabel("share wrong of these", fontsize=8)
    axis.legend(fontsize=8)


def scatter(axis, findings: Sequence[Finding]) -> None:
    for f in findings:
        axis.scatter(f.columns["proxies"], f.columns["golds"], s=14, label=f.model)
    axis.set_xlabel("proxy", fontsize=8)
    axis.set_ylabel("gold", fontsize=8)
    axis.legend(fontsize=8)


def bars(axis, findings: Sequence[Finding]) -> None:
    """The single numbers of the result, side by side for each model."""
    for i, f in enumerate(findings):
        values = f.result._asdict() if hasattr(f.result, "_asdict") else {f.entry: f.result}
        for key in [key for key, value in values.items() if isinstance(value, dict)]:
            values |= values.pop(key)
        values = {k: v for k, v in values.items() if k not in _HIDDEN}
        width = 0.8 / len(findings)
        heights = [v if np.isfinite(v) else 0.0 for v in values.values()]
        axis.bar(np.arange(len(values)) + (i - (len(findings) - 1) / 2) * width, heights, width, label=f.model)
        axis.set_xticks(range(len(values)), values, rotation=30 if len(values) < 8 else 75, ha="right")
    axis.legend(fontsize=8)


PANELS = {
    WinRate: (win_rates,),
    WinRateMatrix: (matrix,),
    LengthControlledWinRates: (controlled,),
    Ratings: (ratings,),
    BestOfNCurve: (best_of_n,),
    Calibration: (reliability, risk_coverage),
    Mismatch: (scatter,),
}
