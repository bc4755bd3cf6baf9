"""`config.diagnostics` and `config.training.gradient` in whole runs: what they write, what they refuse."""

import json

import numpy as np
import pytest
import tiny_runs

from alignment.data import pipeline
from alignment.training.logging import read_metrics
from experiments import finetune

CASES = ("ideal", "both_up", "both_down", "reversed")


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
    tiny_runs.one_device(monkeypatch)


def config(**diagnostics):
    config = tiny_runs.dpo(2)
    config.diagnostics.update(diagnostics)
    return config


def evaluations(workdir):
    return [r for r in read_metrics(workdir / "metrics.jsonl") if r["split"] == "eval"]


def test_entanglement_of_some_pairs_is_logged_at_each_evaluation(tmp_path, monkeypatch):
    seen = []
    original = pipeline.evaluation_batches
    monkeypatch.setattr(
        pipeline, "evaluation_batches", lambda rows, **k: seen.append([r.id for r in rows]) or original(rows, **k)
    )
    settings = config(gradient_entanglement=3)
    settings.training.eval_every = 1
    finetune.run(settings, tmp_path)
    assert seen[-1] == seen[0][:3]
    rows = evaluations(tmp_path)
    assert [r["step"] for r in rows] == [1, 2]
    for row in rows:
        found = {k.removeprefix("entanglement/"): v for k, v in row.items() if k.startswith("entanglement/")}
        np.testing.assert_allclose(sum(found[c] for c in CASES), 1, rtol=1e-6)
        assert found["reversed"] == 0 and abs(found["cosine"]) <= 1
        assert found["chosen_norm"] > 0 and np.isfinite(list(found.values())).all()
        thirds = [3 * found[c] for c in CASES]
        np.testing.assert_allclose(thirds, np.round(thirds), atol=1e-5)


@pytest.mark.parametrize("precompute", [False, True])
def test_difficulty_has_every_evaluation_pair_with_its_theorem(tmp_path, precompute):
    settings = config(difficulty=True)
    settings.precompute_reference = precompute
    settings.optimizer.learning_rate = 1e-2
    settings.metrics.update({"ranking_accuracy": {}, "dpo_flip_loss": {"beta": 0.5}})
    result = finetune.run(settings, tmp_path)
    assert result["difficulty"] == str(tmp_path / "difficulty.png")
    assert (tmp_path / "difficulty.png").read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in (tmp_path / "difficulty.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == list(range(8))
    for line in lines:
        np.testing.assert_allclose(line["flip_loss"], np.logaddexp(0, -0.5 * line["reference_log_ratio"]), rtol=1e-5)
        if abs(line["loss"] - line["flip_loss"]) > 1e-5:
            assert line["ranked_right"] == (line["loss"] < line["flip_loss"])
    # The same pairs as the run's own evaluation saw.
    (row,) = evaluations(tmp_path)
    for key, name in (("loss", "loss"), ("flip_loss", "dpo_flip_loss"), ("ranked_right", "ranking_accuracy")):
        np.testing.assert_allclose(np.mean([line[key] for line in lines]), row[name], rtol=1e-5)


def test_difficulty_needs_the_beta_of_a_term(tmp_path):
    settings = config(difficulty=True)
    settings.objective = {"cross": {"kernel": "sft", "side": "chosen"}}
    with pytest.raises(ValueError, match=r"config\.diagnostics\.difficulty: no term of the objective has a beta"):
        finetune.run(settings, tmp_path)


def test_off_by_default(tmp_path):
    finetune.run(tiny_runs.dpo(1), tmp_path)
    assert not (tmp_path / "difficulty.jsonl").exists()
    assert not [k for r in evaluations(tmp_path) for k in r if k.startswith("entanglement/")]


def test_pairwise_normalised_training_works_on_micro_batches_and_is_another_run(tmp_path):
    losses = {}
    for name, gradient, accumulate in (
        ("a", "ordinary", 1),
        ("b", "pairwise_normalized", 1),
        ("c", "pairwise_normalized", 4),
    ):
        settings = tiny_runs.dpo(3)
        settings.optimizer.learning_rate = 1e-2
        settings.training.gradient, settings.training.accumulate = gradient, accumulate
        finetune.run(settings, tmp_path / name)
        rows = read_metrics(tmp_path / name / "metrics.jsonl")
        losses[name] = [r["loss"] for r in rows if r["split"] == "train"]
    np.testing.assert_allclose(losses["b"], losses["c"], rtol=1e-3)
    assert losses["a"][0] == losses["b"][0] and abs(losses["a"][-1] - losses["b"][-1]) > 1e-4


@pytest.mark.parametrize(
    "changes,words",
    [
        (
            {"training.gradient": "normalised"},
            "config.training.gradient: 'normalised' is not one of ordinary, pairwise",
        ),
        ({"diagnostics.gradient_entanglement": -1}, "config.diagnostics.gradient_entanglement: must be at least 0"),
        ({"training.gradient": "pairwise_normalized", "objective.sft": {"side": "chosen"}}, "'sft' trains"),
        ({"diagnostics.gradient_entanglement": 2, "objective.sft": {"side": "chosen"}}, "'sft' trains"),
        ({"diagnostics.difficulty": True, "data.kind": "lists"}, "is of pairs, but config.data.kind is 'lists'"),
    ],
)
def test_what_does_not_fit_is_refused_before_compilation(tmp_path, changes, words):
    settings = tiny_runs.dpo(1)
    for key, value in changes.items():
        section, name = key.split(".")
        settings[section][name] = value
    if settings.data.kind == "lists":
        settings.objective, settings.metrics = {"lipo_lambda": {}}, {}
    with pytest.raises(ValueError, match=words):
        finetune.run(settings, tmp_path)


def test_without_an_evaluation_set_there_is_nothing_to_diagnose(tmp_path):
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps({"prompt": "p", "chosen": f"a{i}", "rejected": "b"}) + "\n" for i in range(8)))
    settings = config(gradient_entanglement=2)
    settings.data.source = str(source)
    with pytest.raises(ValueError, match=r"gradient_entanglement: looks at the evaluation set"):
        finetune.run(settings, tmp_path / "run")
