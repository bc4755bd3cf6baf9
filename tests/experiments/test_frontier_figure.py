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
    assert len((tmp_path / "frontier.md").read_text().splitlines()) == 2 + 5


def write_outputs(work, outputs):
    work.mkdir()
    (work / "outputs.jsonl").write_text("".join(json.dumps(x) + "\n" for x in outputs))
    return str(work)


def test_decoders_are_points_and_those_of_one_kind_a_series(tmp_path):
    outputs = [
        {"model": name, "prompt": "p", "output": "", "kl": kl + d, "reward": 2 * kl + d}
        for name, kl in (("rlg/two", 2.0), ("rlg/one", 1.0), ("plain", 0.0), ("run/20", 1.0), ("run/5", 3.0))
        for d in (-0.5, 0.5)
    ]
    run = write_outputs(tmp_path / "outputs", outputs)
    found = frontier.run([run], str(tmp_path / "f.png"))
    np.testing.assert_allclose(found["rlg"], [[1, 2], [2, 4]])
    np.testing.assert_allclose(found["plain"], [[0, 0]], atol=1e-12)
    np.testing.assert_allclose(found["run"], [[3, 6], [1, 2]])  # a run in the order of its steps
    lines = [json.loads(line) for line in (tmp_path / "f.jsonl").read_text().splitlines()]
    assert [line["decoder"] for line in lines] == ["rlg/one", "rlg/two", "plain", "run/5", "run/20"]
    np.testing.assert_allclose([line["kl_error"] for line in lines], 0.5)  # deviation sqrt(1/2), two outputs
    assert "| rlg | rlg/one | 1.00 ± 0.50 | 2.00 ± 0.50 |" in (tmp_path / "f.md").read_text()
    with pytest.raises(ValueError, match="has a series 'rlg', and so has another run"):
        frontier.run([run, run], str(tmp_path / "f.png"))
    del outputs[0]["kl"]
    with pytest.raises(ValueError, match=r"outputs of rlg/two have no 'kl'; set config\.reference"):
        frontier.points_of(write_outputs(tmp_path / "other", outputs), "kl", "reward")


def test_the_best_possible_bounds_every_tilt_of_the_samples(tmp_path):
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(3, 200))
    outputs = [
        {"model": "sampled", "prompt": f"p{i}", "output": "", "reward": r} for i, row in enumerate(rewards) for r in row
    ]
    best = frontier.optimum_of(write_outputs(tmp_path / "pool", outputs))
    assert (np.diff(best[:, 0]) < 0).all() or (np.diff(best[:, 0]) > 0).all()
    assert best[:, 0].max() <= np.log(200) - 2 and abs(best[:, 1].min() - rewards.mean()) < 0.05
    # Best of 4 of the samples lies below: mean of the maximum, at no more KL than log 4 - 3/4.
    four = np.mean([rewards[:, rng.integers(200, size=4)].max(axis=1) for _ in range(2000)])
    order = np.argsort(best[:, 0])
    assert four < np.interp(np.log(4) - 0.75, best[order, 0], best[order, 1])
    with pytest.raises(ValueError, match="must be of one decoder"):
        frontier.optimum_of(write_outputs(tmp_path / "two", [*outputs, outputs[0] | {"model": "x"}]))
    with pytest.raises(ValueError, match="as many samples of every prompt"):
        frontier.optimum_of(write_outputs(tmp_path / "uneven", outputs[1:]))
    with pytest.raises(ValueError, match=r"is no WORKDIR of experiments\.generate"):
        frontier.optimum_of(str(tmp_path))


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
