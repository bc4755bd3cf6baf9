"""The figure of reward against KL, from runs and from points."""

import json

import numpy as np
import pytest

from experiments import frontier


def test_runs_and_points_share_a_figure_and_its_data_lies_beside_it(tmp_path):
    work = tmp_path / "run"
    work.mkdir()
    rows = [{"step": i, "split": "train", "loss": 0.0, "sequence_kl": 0.1 * i, "reward": 0.2 * i} for i in range(3)]
    rows.append({"step": 3, "split": "eval", "reward": 0.9})  # without a KL: not a point
    (work / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    points = tmp_path / "best_of_n.jsonl"
    points.write_text('{"kl": 0.5, "reward": 0.6}\n{"kl": 1.0, "reward": 0.7}\n')
    found = frontier.run([str(work), str(points)], str(tmp_path / "frontier.png"))
    np.testing.assert_allclose(found[str(work)], [[0, 0], [0.1, 0.2], [0.2, 0.4]])
    assert (tmp_path / "frontier.png").stat().st_size > 1000
    lines = [json.loads(line) for line in (tmp_path / "frontier.jsonl").read_text().splitlines()]
    assert [line["kl"] for line in lines] == [0, 0.1, 0.2, 0.5, 1.0]


def test_bad_input_says_where(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "split": "train", "loss": 0.5}\n')
    with pytest.raises(ValueError, match=r"no row has both 'sequence_kl' and 'reward'; there are loss"):
        frontier.points_of(str(tmp_path), "sequence_kl", "reward")
    points = tmp_path / "points.jsonl"
    points.write_text('{"kl": 0.5, "reward": 0.6}\n{"kl": 0.5}\n')
    with pytest.raises(ValueError, match=r"points.jsonl:2: not a line"):
        frontier.points_of(str(points), "kl", "reward")
    with pytest.raises(ValueError, match="neither a WORKDIR nor a file"):
        frontier.points_of(str(tmp_path / "nothing"), "kl", "reward")
