"""Files for people: metrics.jsonl that survives a kill, progress lines, a figure."""

import json
import re
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from alignment.training import logging as metrics_log


def write(path, *steps):
    path.write_text("".join(json.dumps({"step": s, "split": "train", "loss": 1.0 / s}) + "\n" for s in steps))


def test_steps_after_the_resume_point_are_forgotten(tmp_path):
    write(tmp_path / "metrics.jsonl", 1, 2, 3, 4)
    log = metrics_log.MetricsLog(tmp_path, 2)
    log.write(3, {"loss": 0.25})
    log.close()
    rows = metrics_log.read_metrics(tmp_path / "metrics.jsonl")
    assert [r["step"] for r in rows] == [1, 2, 3] and rows[-1]["loss"] == 0.25


@pytest.mark.parametrize("torn", ['{"step": 3, "split": "tr', "{", '{"step": 3, "split": "train", "loss": 0.5}'])
def test_a_torn_line_is_forgotten(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    write(path, 1, 2)
    path.write_text(path.read_text() + torn)  # no end of line: the kill came in between
    log = metrics_log.MetricsLog(tmp_path, 2)
    log.write(3, {"loss": 0.25})
    log.close()
    assert [(r["step"], r["loss"]) for r in metrics_log.read_metrics(path)] == [(1, 1.0), (2, 0.5), (3, 0.25)]


def test_a_whole_last_line_without_its_end_is_kept_whole(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, 1, 2)
    path.write_text(path.read_text().rstrip("\n"))
    log = metrics_log.MetricsLog(tmp_path, 2)
    log.write(3, {"loss": 0.25})
    log.close()
    assert [r["step"] for r in metrics_log.read_metrics(path)] == [1, 2, 3]


def test_what_is_not_finite_becomes_null(tmp_path):
    log = metrics_log.MetricsLog(tmp_path, 0)
    log.write(1, {"loss": float("nan"), "grad_norm": float("inf"), "good": np.float32(2.0)})
    log.close()

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=refuse) == {
        "step": 1, "split": "train", "loss": None, "grad_norm": None, "good": 2.0,
    }  # fmt: skip


def test_tensorboard_gets_the_same_numbers(tmp_path):
    log = metrics_log.MetricsLog(tmp_path, 0)
    log.write(1, {"loss": 0.5})
    log.close()
    files = list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))
    assert len(files) == 1 and b"train/loss" in files[0].read_bytes()


def test_curves_are_drawn(tmp_path):
    rows = [{"step": s, "split": "train", "loss": 1.0 / s, "grad_norm": None} for s in range(1, 9)]
    rows += [{"step": s, "split": "eval", "loss": 1.1 / s, "accuracy": 0.1 * s} for s in (4, 8)]
    metrics_log.draw_curves(rows, tmp_path / "curves.png", "a run")
    image = matplotlib.image.imread(tmp_path / "curves.png")
    assert image.shape[0] > 100 and image.std() > 0.01
    metrics_log.draw_curves(rows[:1], tmp_path / "none.png", "one point is no curve")
    assert not (tmp_path / "none.png").exists()


def test_plain_lines_where_there_is_no_terminal(tmp_path, capsys):
    progress = metrics_log.Progress("dpo", 4, 0, 2)
    for step in range(1, 5):
        progress.advance(step, 100, {"loss": 0.5})
    progress.close()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" loss")[0] for line in lines] == ["dpo step 2/4", "dpo step 4/4"]
    assert all("tokens/s" in line and "left" in line for line in lines)


def test_what_a_run_draws_leaves_the_callers_backend_alone():
    """pyplot chooses a backend for the whole process; only the figures of notebooks may use it."""
    root = Path(metrics_log.__file__).resolve().parents[2]
    sources = [p for folder in ("alignment", "experiments") for p in sorted((root / folder).rglob("*.py"))]
    drawing = [p for p in sources if "import matplotlib" in p.read_text() or "from matplotlib" in p.read_text()]
    assert len(drawing) > 5
    users = {p.relative_to(root).parts[:2] for p in drawing if re.search(r"pyplot|matplotlib\.use\(", p.read_text())}
    assert users == {("experiments", "reproductions")}
