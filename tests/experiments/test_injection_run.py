"""The benchmark of prompt injection end to end on a tiny model, its table and its figure."""

import json

import pytest
import tiny_runs

from alignment.data import injections
from configs import common
from experiments import finetune, injection

METHODS = ("text", "delimiters+ise")


def test_the_benchmark_measures_a_run_and_a_second_call_only_reads(tmp_path, monkeypatch):
    tiny_runs.one_device(monkeypatch)
    arguments = ("delimiters+ise",), ("planted",), 1, tmp_path, tiny_runs.shrink, 4
    results = injection.run(*arguments)
    assert [r["method"] for r in results] == ["delimiters+ise"]
    for found in results:
        shares = {k: v for k, v in found.items() if k.endswith(("accuracy", "success"))}
        assert len(shares) == 2 + 2 * len(injections.ATTACKS) and all(0 <= v <= 1 for v in shares.values())
        assert found["robust_accuracy"] == min(found[f"{a}_accuracy"] for a in injections.ATTACKS)
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert len(lines) == 3 and all(line.count("|") == 11 for line in lines)
    assert (tmp_path / "figure.png").stat().st_size > 1000
    stored = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert stored == results

    monkeypatch.setattr(injection, "measure", None)
    assert injection.run(*arguments) == results


def test_the_methods_differ_in_levels_and_delimiters_alone():
    text, both = (injection.config_of(method, "clean", 3) for method in METHODS)
    assert (text.model.num_instruction_levels, both.model.num_instruction_levels) == (0, 4)
    assert text.data.delimiters.to_dict() == injections.PLAIN
    assert both.data.delimiters.to_dict() == injections.DELIMITERS
    assert text.data.source == both.data.source == "injections:clean" and text.seed == both.seed == 3
    both.model.num_instruction_levels, both.data.delimiters = 0, text.data.delimiters
    assert text == both


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((("magic",), ("clean",), 1), "--models"),
        ((METHODS, (), 1), "--training"),
        ((METHODS, ("clean",), 0), "--seeds"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path, arguments, word):
    with pytest.raises(ValueError, match=word):
        injection.run(*arguments, tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data.kind": "completion", "data.source": "corpus"}, "config.model.num_instruction_levels: goes with data"),
        (
            {"data.kind": "completion", "data.source": "corpus", "model.num_instruction_levels": 0},
            "config.data.delimiters: goes with data .* hierarchy_pairs",
        ),
        ({"data.source": "injections:dirty"}, "injections and injections:clean"),
        ({"checkpoints.export_hugging_face": True}, "config.checkpoints.export_hugging_face"),
        ({"adapter.rank": 2}, "config.adapter.rank: embeddings of instruction levels"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_before_anything_is_trained(tmp_path, changes, words):
    config = tiny_runs.shrink(common.instruction_hierarchy())
    config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=rf"{words}"):
        finetune.run(config, tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()
