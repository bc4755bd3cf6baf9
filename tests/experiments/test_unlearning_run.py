"""The benchmark of unlearning end to end on a tiny model, and its table."""

import json

import numpy as np
import pytest
import tiny_runs

from experiments import unlearning


def test_the_benchmark_measures_every_model_and_a_second_call_only_reads(tmp_path, monkeypatch, capsys):
    tiny_runs.one_device(monkeypatch)

    def tiny(config):
        config = tiny_runs.shrink(config)
        config.data.packed_length = 256
        return config

    results = unlearning.run(("grad_diff",), tmp_path, 2, tiny)
    assert list(results) == ["never taught", "before", "grad_diff"]
    for found in results.values():
        assert all(np.isfinite(v).all() for v in found.values())
        assert 0 < found["forget_probability"] < 1 and 0 <= found["p_value"] <= 1
        assert found["others_relearned"] > found["others_before"]  # any training teaches a fresh model its letters
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert len(lines) == 5 and all(line.count("|") == 11 for line in lines if "---" not in line)
    stored = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [r["model"] for r in stored] == list(results)

    monkeypatch.setattr(unlearning, "measure", None)
    again = unlearning.run(("grad_diff",), tmp_path, 2, tiny)
    assert again["grad_diff"] == results["grad_diff"]
    with pytest.raises(ValueError, match="--methods: empty"):
        unlearning.run((), tmp_path, 2, tiny)
