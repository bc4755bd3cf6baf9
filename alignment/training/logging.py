"""Metrics for people: a JSONL file, TensorBoard event files, a progress bar (or lines), and a figure of the curves."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import tensorboardX
from tqdm import tqdm


class MetricsLog:
    """Appends to `metrics.jsonl` and to TensorBoard events; one writer per run, process 0 only."""

    def __init__(self, directory: Path, resume_step: int):
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "metrics.jsonl"
        forget_after(self.path, resume_step)
        self._file = self.path.open("a", buffering=1)
        self._events = tensorboardX.SummaryWriter(str(directory / "tensorboard"), purge_step=resume_step + 1)

    def write(self, step: int, values: Mapping[str, float], split: str = "train") -> None:
        # JSON has no NaN; null keeps the line readable by every parser.
        plain = {k: (float(v) if math.isfinite(v) else None) for k, v in values.items()}
        self._file.write(json.dumps({"step": step, "split": split, **plain}) + "\n")
        for key, value in values.items():
            self._events.add_scalar(f"{split}/{key}", float(value), step)

    def close(self) -> None:
        self._file.close()
        self._events.close()


def forget_after(path: Path, step: int, key: str = "step") -> None:
    """Drops what a killed run wrote after its last checkpoint (and a torn last line): those steps are run again.

    Without a checkpoint (step 0) that is everything, the lines about step 0 too.
    """
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break  # a line torn by the kill; nothing whole follows it
        if step and row[key] <= step:
            kept.append(line + "\n")
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept))
    temporary.replace(path)


def read_metrics(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class Progress:
    """A bar with loss, tokens/s and time left on a terminal; a plain line every `every` steps elsewhere."""

    def __init__(self, name: str, total: int, start: int, every: int):
        self.name, self.total, self.every = name, total, max(every, 1)
        self.began, self.first, self.tokens = time.monotonic(), start, 0
        self.bar = tqdm(total=total, initial=start, desc=name, unit="step") if sys.stderr.isatty() else None

    def advance(self, step: int, tokens: int, values: Mapping[str, float] | None) -> None:
        self.tokens += tokens
        elapsed = max(time.monotonic() - self.began, 1e-9)
        rate = self.tokens / elapsed
        if self.bar is not None:
            if values:
                self.bar.set_postfix({"loss": f"{values['loss']:.4f}", "tokens/s": f"{rate:,.0f}"}, refresh=False)
            self.bar.update(1)
        elif values and (step % self.every == 0 or step == self.total):
            left = elapsed / (step - self.first) * (self.total - step)
            print(
                f"{self.name} step {step}/{self.total} loss {values['loss']:.4f} {rate:,.0f} tokens/s "
                f"{left:.0f} s left",
                flush=True,
            )

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def draw_curves(rows: Iterable[Mapping], path: Path, title: str) -> None:
    """One panel per metric, train and evaluation over steps, saved as a PNG."""
    from matplotlib.figure import Figure

    rows = list(rows)
    hidden = {"step", "split", "skipped", "skipped_in_a_row", "seconds", "tokens_per_second"}
    names = [k for k in dict.fromkeys(k for r in rows for k in r) if k not in hidden]
    names = [k for k in names if sum(r.get(k) is not None for r in rows) > 1]
    if not names:
        return
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(4 * columns, 2.8 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, names, strict=False):
        for split, style in (("train", "-"), ("eval", "o--")):
            points = [(r["step"], r[name]) for r in rows if r["split"] == split and r.get(name) is not None]
            if points:
                axis.plot(*zip(*points, strict=True), style, label=split, linewidth=1.2, markersize=3)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    axes.flat[0].legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=110)
