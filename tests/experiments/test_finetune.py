"""The fine-tuning script in this process, on a model of one layer: what it promises and how it refuses."""

import json
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

import alignment.losses
from alignment.training import checkpoints, mesh, preemption
from alignment.training.logging import read_metrics
from configs import common
from configs.dpo import get_config as dpo_config
from experiments import command, finetune, from_config


@pytest.fixture(autouse=True)
def _one_device(request, monkeypatch):
    if "eight" not in request.node.name:
        tiny_runs.one_device(monkeypatch)


def losses(workdir):
    return [(r["step"], r["split"], r["loss"], r.get("grad_norm")) for r in read_metrics(workdir / "metrics.jsonl")]


def final_params(config, workdir):
    """The bytes of the newest checkpoint's parameters, optimizer and method state."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as reader:
        tree = reader.restore(workdir / "checkpoints" / str(config.training.steps) / "state")
    return tiny_runs.digest(tree)


def stop_after(monkeypatch, step):
    """As if SIGTERM came during `step`."""
    seen = iter(range(1, 10_000))
    monkeypatch.setattr(preemption.StopOnSignal, "requested", lambda self: next(seen) == step)


# --- what it promises ------------------------------------------------------------------------------------------------


def test_same_config_twice_is_bit_identical(tmp_path):
    config = tiny_runs.dpo(4, {"lcpo": {"weight": 1.0, "num_annotators": 4}})
    for name in ("a", "b"):
        finetune.run(config, tmp_path / name)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert final_params(config, tmp_path / "a") == final_params(config, tmp_path / "b")


def test_another_seed_is_another_run(tmp_path):
    config = tiny_runs.dpo(2)
    finetune.run(config, tmp_path / "a")
    config.seed = 1
    finetune.run(config, tmp_path / "b")
    assert final_params(config, tmp_path / "a") != final_params(config, tmp_path / "b")


def test_stopped_and_resumed_is_bit_identical(tmp_path, monkeypatch, capsys):
    config = tiny_runs.dpo(5, {"lcpo": {"weight": 1.0, "num_annotators": 4}})
    finetune.run(config, tmp_path / "whole")
    with monkeypatch.context() as m:
        stop_after(m, 2)
        with pytest.raises(SystemExit) as stopped:
            finetune.run(config, tmp_path / "parts")
    assert stopped.value.code == 0
    assert "stopped by SIGTERM at step 2" in capsys.readouterr().out
    finetune.run(config, tmp_path / "parts")
    assert "going on from step 2" in capsys.readouterr().out
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert final_params(config, tmp_path / "parts") == final_params(config, tmp_path / "whole")
    # A third time there is nothing to do, and nothing changes.
    finetune.run(config, tmp_path / "parts")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_terms_that_are_active_in_turn_are_resumed_bit_identical(tmp_path, monkeypatch):
    spec = {"dpo": {"active": (0.0, 0.5)}, "sft": {"side": "chosen", "active": (0.5, 1.0)}}
    config = tiny_runs.dpo(4, spec)
    finetune.run(config, tmp_path / "whole")
    with monkeypatch.context() as m:
        stop_after(m, 3)
        with pytest.raises(SystemExit):
            finetune.run(config, tmp_path / "parts")
    finetune.run(config, tmp_path / "parts")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert final_params(config, tmp_path / "parts") == final_params(config, tmp_path / "whole")
    rows = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    (evaluation,) = [r for r in rows if r["split"] == "eval"]
    assert evaluation["loss"] == evaluation["sft"] != evaluation["dpo"]
    for row in rows:
        if row["split"] == "train":
            assert row["loss"] == row["loss/dpo" if row["step"] <= 2 else "loss/sft"]


def test_a_reference_that_moves_is_resumed_bit_identical(tmp_path, monkeypatch):
    """Stopped right after the first of three updates; the frozen start would give other losses."""
    config = tiny_runs.dpo(7)
    config.reference.update_every, config.reference.update_weight = 2, 0.7
    finetune.run(config, tmp_path / "whole")
    with monkeypatch.context() as m:
        stop_after(m, 3)
        with pytest.raises(SystemExit):
            finetune.run(config, tmp_path / "parts")
    finetune.run(config, tmp_path / "parts")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert final_params(config, tmp_path / "parts") == final_params(config, tmp_path / "whole")
    finetune.run(tiny_runs.dpo(7), tmp_path / "frozen")
    same = [a == b for a, b in zip(losses(tmp_path / "whole"), losses(tmp_path / "frozen"), strict=True)]
    assert same[:2] == [True, True] and not any(same[2:])


def test_a_reference_that_moves_by_nothing_is_dpo(tmp_path):
    config = tiny_runs.dpo(4)
    finetune.run(config, tmp_path / "dpo")
    config.reference.update_every, config.reference.update_weight = 1, 0.0
    finetune.run(config, tmp_path / "still")
    assert losses(tmp_path / "still") == losses(tmp_path / "dpo")


def test_evaluation_scores_against_the_reference_as_it_is_now(tmp_path):
    config = tiny_runs.dpo(3)
    config.optimizer.learning_rate = 1e-2
    config.reference.update_every, config.reference.update_weight = 3, 1.0
    result = finetune.run(config, tmp_path)
    assert result["evaluation"]["loss"] == pytest.approx(np.log(2), abs=1e-6)  # just replaced by the policy
    config.reference.update_every = 2
    assert finetune.run(config, tmp_path / "earlier")["evaluation"]["loss"] != pytest.approx(np.log(2), abs=1e-4)


def soup_run(tmp_path, name, soup, weight=0.5, precompute=False):
    config = tiny_runs.dpo(3)
    config.training.log_every = 1
    config.reference.soup, config.reference.soup_weight = tuple(str(s) for s in soup), weight
    config.precompute_reference = precompute
    finetune.run(config, tmp_path / name)
    return [r["loss"] for r in read_metrics(tmp_path / name / "metrics.jsonl")]


def test_a_soup_is_the_reference_that_its_parameters_say(tmp_path):
    """Against another model the first loss is not log 2; weight 0, and a soup of one model with itself, are DPO."""
    other = tiny_runs.dpo(3)
    other.seed, other.optimizer.learning_rate, other.checkpoints.export_hugging_face = 1, 1e-2, True
    finetune.run(other, tmp_path / "other")
    start = tiny_runs.dpo(1)
    start.optimizer.learning_rate = 0.0  # its end is the other runs' start
    finetune.run(start, tmp_path / "start")
    plain = soup_run(tmp_path, "dpo", ())
    assert plain[0] == pytest.approx(np.log(2), abs=1e-6)
    assert soup_run(tmp_path, "zero", [tmp_path / "other"], 0.0) == plain
    assert soup_run(tmp_path, "itself", [tmp_path / "start"], 0.3) == pytest.approx(plain, abs=1e-5)
    soup = soup_run(tmp_path, "soup", [tmp_path / "other"])
    assert abs(soup[0] - plain[0]) > 1e-3
    assert soup_run(tmp_path, "stored", [tmp_path / "other"], precompute=True) == pytest.approx(soup, rel=1e-4)
    # The mean of two that are the same, one of them read from its export, is that one.
    twice = soup_run(tmp_path, "twice", [tmp_path / "other", tmp_path / "other" / "hugging_face"])
    assert twice == pytest.approx(soup, rel=1e-5)


def test_run_stopped_on_one_mesh_goes_on_on_eight_devices(tmp_path, monkeypatch):
    config = tiny_runs.dpo(4, metrics={})
    config.reference.update_every = 1
    whole = finetune.run(config, tmp_path / "whole")
    with monkeypatch.context() as m:
        tiny_runs.one_device(m)
        stop_after(m, 2)
        with pytest.raises(SystemExit):
            finetune.run(config, tmp_path / "parts")
    config.mesh.update({"data": 2, "fsdp": 2, "tensor": 2})
    parts = finetune.run(config, tmp_path / "parts")
    np.testing.assert_allclose(parts["evaluation"]["loss"], whole["evaluation"]["loss"], rtol=1e-4)


def test_stored_reference_gives_the_losses_of_the_reference_in_the_step(tmp_path):
    config = tiny_runs.dpo(3)
    finetune.run(config, tmp_path / "in_step")
    config.precompute_reference = True
    finetune.run(config, tmp_path / "stored")
    for one, other in zip(losses(tmp_path / "in_step"), losses(tmp_path / "stored"), strict=True):
        assert one[:2] == other[:2]
        np.testing.assert_allclose(one[2], other[2], rtol=1e-5)
    assert (tmp_path / "stored" / "reference_train.npz").exists()


def test_a_finished_run_says_its_result_again_and_does_nothing(tmp_path, monkeypatch, capsys):
    config = tiny_runs.dpo(2)
    first = finetune.run(config, tmp_path)
    said = capsys.readouterr().out
    monkeypatch.setattr(from_config, "load_data", lambda config: pytest.fail("the run was done again"))
    assert finetune.run(config, tmp_path) == first
    assert capsys.readouterr().out in said
    config.optimizer.learning_rate = 1e-5  # another run; it must not be answered with this one's result
    with pytest.raises(pytest.fail.Exception, match="done again"):
        finetune.run(config, tmp_path)


def test_a_finished_stage_before_is_not_done_again_when_the_run_goes_on(tmp_path, monkeypatch):
    config = tiny_runs.shrink(dpo_config(), 4)
    stop_after(monkeypatch, 4 + 2)  # of the second stage
    with pytest.raises(SystemExit):
        finetune.run(config, tmp_path)
    monkeypatch.undo()
    tiny_runs.one_device(monkeypatch)
    loads = []
    monkeypatch.setattr(from_config, "load_data", lambda c, load=from_config.load_data: loads.append(c) or load(c))
    assert finetune.run(config, tmp_path)["steps"] == 4
    assert [c.data.kind for c in loads] == ["pairs"]


@pytest.mark.parametrize("kind", ["unpaired", "triples"])
def test_the_other_sides_train_and_deliver_what_kernels_ask_for(tmp_path, monkeypatch, kind):
    """A stand-in loss on these sides: it reads what they offer, and makes the completion (gold) likelier."""

    def unpaired(policy_logps, policy_mismatched_logps, reference_mismatched_logps, desirable, valid):
        shift = jnp.mean((policy_mismatched_logps - reference_mismatched_logps), where=valid)
        return jnp.where(desirable, -policy_logps, -0.9 * policy_logps) + 0 * shift

    def triples(policy_gold_logps, policy_chosen_logps, reference_rejected_logps, gold_mask):
        return -policy_gold_logps / gold_mask.sum(-1) + 0 * (policy_chosen_logps - reference_rejected_logps)

    monkeypatch.setattr(alignment.losses, kind, {"unpaired": unpaired, "triples": triples}[kind], raising=False)
    monkeypatch.setattr(alignment.losses, "__all__", [*alignment.losses.__all__, kind], raising=False)
    config = tiny_runs.dpo(6, {kind: {}}, {"token_nll": {"side": ""} if kind == "unpaired" else {"side": "gold"}})
    config.data.kind, config.optimizer.learning_rate = kind, 1e-2
    result = finetune.run(config, tmp_path)
    rows = [r for r in read_metrics(tmp_path / "metrics.jsonl") if r["split"] == "train"]
    assert result["skipped"] == 0 and rows[-1]["token_nll"] < rows[0]["token_nll"]


def test_micro_batches_give_the_losses_of_the_whole(tmp_path):
    config = tiny_runs.dpo(3, {"dpo": {"weight": 1.0, "beta": 0.5}, "sft": {"side": "chosen", "weight": 0.1}})
    finetune.run(config, tmp_path / "one")
    config.training.accumulate = 4
    finetune.run(config, tmp_path / "four")
    for one, four in zip(losses(tmp_path / "one"), losses(tmp_path / "four"), strict=True):
        np.testing.assert_allclose(one[2], four[2], rtol=1e-4)


def test_not_finite_steps_stop_the_run_and_name_their_examples(tmp_path, monkeypatch):
    """Poisoned from step 4 on: steps 1 to 3 train, two in a row are skipped, and the file names just those two."""
    config = tiny_runs.dpo(8)
    config.training.max_skipped_in_a_row = 2
    config.checkpoints.every = 3
    seen, put = [], mesh.put_batch

    def poisoned(device_mesh, batch):
        if "eval" not in phase:
            seen.append(batch["ids"].tolist())
        return put(device_mesh, batch)

    phase = []
    monkeypatch.setattr(mesh, "put_batch", poisoned)

    def dpo(policy_chosen_logps, ids, *, bad: float = 0.0):
        return jnp.where(jnp.isin(ids, bad_ids()), jnp.nan, -policy_chosen_logps)

    # Examples of batch 4 and 5 of the same seed: a first run says which.
    config.training.eval_every = 100
    bad: list[int] = []

    def bad_ids():
        return jnp.asarray(bad or [-2])

    monkeypatch.setattr(alignment.losses, "poison", dpo, raising=False)
    monkeypatch.setattr(alignment.losses, "__all__", [*alignment.losses.__all__, "poison"], raising=False)
    config.objective = {"poison": {}}
    config.metrics = {}
    good = config.copy_and_resolve_references()
    good.training.steps = 5
    finetune.run(good, tmp_path / "good")
    bad += seen[3] + seen[4]
    with pytest.raises(command.RunStopped) as error:
        finetune.run(config, tmp_path / "bad")
    report = json.loads((tmp_path / "bad" / "nonfinite.json").read_text())
    assert report["last_step"] == 5
    assert report["example_ids_by_step"] == {"4": seen[3], "5": seen[4]}
    assert all(w in str(error.value) for w in ["step 5", "2 steps in a row", str(tmp_path / "bad" / "nonfinite.json")])
    # What was saved before is still there, and is of before.
    assert checkpoints.open_manager(tmp_path / "bad" / "checkpoints").latest_step() == 3


def test_the_best_checkpoint_outlives_the_last(tmp_path):
    config = tiny_runs.dpo(6)
    config.training.eval_every = config.checkpoints.every = 2
    config.checkpoints.best_metric, config.checkpoints.best_mode = "loss", "max"
    finetune.run(config, tmp_path)
    evaluations = {r["step"]: r["loss"] for r in read_metrics(tmp_path / "metrics.jsonl") if r["split"] == "eval"}
    best = max(evaluations, key=evaluations.get)
    assert set(checkpoints.open_manager(tmp_path / "checkpoints").all_steps()) == {best, 6}


def test_files_a_person_opens(tmp_path):
    config = tiny_runs.dpo(3)
    config.checkpoints.export_hugging_face = True
    result = finetune.run(config, tmp_path)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "hugging_face" / "model.safetensors").exists()
    assert list((tmp_path / "tensorboard").iterdir())
    assert [r["step"] for r in read_metrics(tmp_path / "metrics.jsonl") if r["split"] == "train"] == [1, 2, 3]
    assert result["steps"] == 3 and result["skipped"] == 0
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".pkl", ".pickle")]


# --- bad input: one clear message, before anything is compiled ------------------------------------------------------


def jsonl(tmp_path, *lines):
    path = tmp_path / "data.jsonl"
    good = {"prompt": "p", "chosen": "yes", "rejected": "no"}
    whole = [good, good, *lines]
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in whole))
    return str(path)


GOOD = {"prompt": "p", "chosen": "yes", "rejected": "no"}
RECORDS = {
    "missing field": ({"prompt": "p", "chosen": "yes"}, ["rejected"]),
    "empty completion": (GOOD | {"chosen": " "}, ["chosen", "empty"]),
    "completion too long": (GOOD | {"chosen": "y" * 500}, ["too long", "completion_length="]),
    "prompt too long": (GOOD | {"prompt": "y" * 500}, ["too long", "prompt_length="]),
    "invalid JSON": ('{"prompt": "p", "chosen"', ["invalid JSON"]),
    "equal sides": (GOOD | {"rejected": "yes"}, ["chosen", "rejected"]),
    "not an object": ("[1, 2]", ["object"]),
}


@pytest.mark.parametrize("what", RECORDS)
def test_a_bad_record_is_named_by_file_and_line(tmp_path, what):
    record, words = RECORDS[what]
    config = tiny_runs.dpo()
    config.data.source = jsonl(tmp_path, record)
    with pytest.raises(ValueError) as error:
        finetune.run(config, tmp_path / "run")
    assert all(w in str(error.value) for w in [f"{config.data.source}:3", *words]), error.value


def change(**sections):
    def apply(config):
        for section, values in sections.items():
            if isinstance(values, dict):
                config[section] = {**(config[section] if section not in common.FREE else {}), **values}
            else:
                with config.ignore_type():
                    config[section] = values

    return apply


CONFIGS = {
    "unknown key": (change(trainng=3), ["config.trainng", "training"]),
    "unknown key in a section": (change(training={"stepz": 3}), ["config.training.stepz", "steps"]),
    "section that is none": (change(training=3), ["config.training", "section"]),
    "unknown kernel": (change(objective={"dpoo": {}}), ["config.objective.dpoo", "dpo"]),
    "unknown metric": (change(metrics={"accuracy": {}}), ["config.metrics.accuracy"]),
    "unknown hyperparameter": (change(objective={"dpo": {"betta": 0.1}}), ["config.objective.dpo.betta", "beta"]),
    "hyperparameter out of range": (change(objective={"dpo": {"beta": -1.0}}), ["config.objective.dpo", "beta"]),
    "unknown side": (change(objective={"sft": {"side": "best"}}), ["config.objective.sft.side", "best"]),
    "no side": (change(objective={"sft": {}}), ["sft", "side"]),
    "unknown reduction": (
        change(objective={"sft": {"side": "chosen", "reduction": "mean"}}),
        ["config.objective.sft.reduction", "token_mean"],
    ),
    "constant without length": (
        change(objective={"sft": {"side": "chosen", "reduction": "constant"}}),
        ["config.objective.sft.reduction_length"],
    ),
    "kernel of lists on pairs": (change(objective={"lipo_lambda": {}}), ["lipo_lambda", "responses"]),
    "reward kernel without a head": (change(objective={"bt_reward_loss": {}}), ["config.model.reward_heads"]),
    "no steps": (change(training={"steps": 0}), ["config.training.steps"]),
    "unknown kind": (change(data={"kind": "quadruples"}), ["config.data.kind", "pairs"]),
    "no such file": (change(data={"source": "/nowhere/x.jsonl"}), ["/nowhere/x.jsonl"]),
    "packed pairs": (change(data={"packed": True}), ["config.data.packed"]),
    "batch that does not divide": (
        change(training={"accumulate": 3}),
        ["config.data.batch_size", "8", "config.training.accumulate"],
    ),
    "mesh that does not divide": (change(mesh={"data": 3}), ["config.mesh", "device"]),
    "unknown mesh axis": (change(mesh={"model": 2}), ["config.mesh.model"]),
    "packed verdicts": (change(data={"kind": "unpaired", "packed": True}), ["config.data.packed", "2 sides"]),
    "stored reference that moves": (
        change(precompute_reference=True, reference={"update_every": 2}),
        ["config.reference.update_every", "config.precompute_reference", "stale"],
    ),
    "terms in turn whose gradients are combined": (
        change(objective={"dpo": {"active": (0.0, 1.0)}}, training={"gradient": "mgda"}),
        ["config.objective.dpo.active", "training.gradient='mgda'"],
    ),
    "terms in turn with a gap": (
        change(objective={"dpo": {"active": (0.3, 1.0)}}), ["config.objective", "no term is active at step 0 of 3"]
    ),
    "reference that moves backwards": (change(reference={"update_every": -1}), ["config.reference.update_every", "-1"]),
    "more than the whole policy": (change(reference={"update_weight": 1.5}), ["config.reference.update_weight", "1.5"]),
    "negative soup": (change(reference={"soup_weight": -0.5}), ["config.reference.soup_weight", "[0, 1]"]),
    "soup of nothing": (change(reference={"soup": ("/nowhere",)}), ["config.reference.soup", "/nowhere"]),
    "moving reference that nobody reads": (
        change(reference={"update_every": 2}, objective={"sft": {"side": "chosen"}}, metrics={}),
        ["config.reference", "no kernel"],
    ),
    "stored reference of mismatched completions": (
        change(precompute_reference=True, data={"kind": "unpaired"}),
        ["config.precompute_reference", "mismatched"],
    ),
    "unknown schedule": (change(optimizer={"schedule": "step"}), ["config.optimizer.schedule"]),
    "best metric between evaluations": (
        change(checkpoints={"best_metric": "loss", "every": 2}),
        ["config.checkpoints.every", "eval_every"],
    ),
    "best metric that is none": (change(checkpoints={"best_metric": "accuracy"}), ["config.checkpoints.best_metric"]),
    "stored reference for whole distributions": (
        change(precompute_reference=True, objective={"tdpo2": {}}),
        ["config.precompute_reference", "token_forward_kls"],
    ),
    "token rewards without prompts": (change(objective={"treg": {}}), ["treg", "config.data.revision_prompts"]),
    "token rewards with one prompt": (
        change(objective={"treg": {}}, data={"revision_prompts": {"better": "x"}}),
        ["config.data.revision_prompts.worse"],
    ),
    "token rewards that nobody reads": (
        change(data={"revision_prompts": {"better": "x", "worse": "y"}}),
        ["config.data.revision_prompts", "no kernel"],
    ),
    "revision prompts beyond the context": (
        change(objective={"treg": {}}, data={"revision_prompts": {"better": "x" * 600, "worse": "y"}}),
        ["config.data.revision_prompts", "512"],
    ),
    "stored reference that nobody reads": (
        change(precompute_reference=True, objective={"sft": {"side": "chosen"}}, metrics={}),
        ["config.precompute_reference", "no kernel"],
    ),
}


@pytest.mark.parametrize("what", CONFIGS)
def test_a_bad_config_is_named_by_its_key(tmp_path, what):
    config = tiny_runs.dpo()
    apply, words = CONFIGS[what]
    apply(config)
    with pytest.raises(ValueError) as error:
        finetune.run(config, tmp_path / "run")
    assert all(w in str(error.value) for w in words) and "\n" not in str(error.value), error.value
    assert not (tmp_path / "run" / "checkpoints" / "3").exists()


def test_a_missing_key_is_named(tmp_path):
    config = tiny_runs.dpo()
    del config.training["steps"]
    with pytest.raises(ValueError, match=r"config\.training\.steps: missing"):
        finetune.run(config, tmp_path)


def test_a_misspelt_statistic_is_named_with_the_nearest(tmp_path, monkeypatch):
    def misspelt(policy_choosen_logps, *, beta: float = 0.1):
        return beta * policy_choosen_logps

    monkeypatch.setattr(alignment.losses, "misspelt", misspelt, raising=False)
    monkeypatch.setattr(alignment.losses, "__all__", [*alignment.losses.__all__, "misspelt"], raising=False)
    with pytest.raises(ValueError) as error:
        finetune.run(tiny_runs.dpo(objective={"misspelt": {}}), tmp_path)
    assert all(w in str(error.value) for w in ["misspelt", "'policy_choosen_logps'", "policy_chosen_logps"])


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (change(model={"hidden_size": 32}), ["another model", "hidden_size is 16 there and 32 here"]),
        (change(objective={"dpo": {"beta": 0.2}}), ["another run", "terms"]),
        (change(seed=5), ["another run", "seed is 0 there and 5 here"]),
    ],
    ids=["model", "objective", "seed"],
)
def test_a_work_directory_of_another_run_is_refused(tmp_path, alter, words):
    finetune.run(tiny_runs.dpo(2), tmp_path)
    before = (tmp_path / "metrics.jsonl").read_text()
    config = tiny_runs.dpo(2)
    alter(config)
    with pytest.raises(checkpoints.CheckpointError) as error:
        finetune.run(config, tmp_path)
    assert all(w in str(error.value) for w in ["step 2", str(tmp_path), *words]), error.value
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_a_truncated_checkpoint_is_named_and_the_one_before_serves(tmp_path):
    config = tiny_runs.dpo(2)
    config.training.steps, config.checkpoints.keep_last = 4, 2
    finetune.run(config, tmp_path)
    for path in (tmp_path / "checkpoints" / "4" / "state").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            os.truncate(path, path.stat().st_size // 2)
    (tmp_path / "result.json").unlink()  # as if it had been killed just before it was through
    with pytest.raises(checkpoints.CheckpointError) as error:
        finetune.run(config, tmp_path)
    assert "step 4" in str(error.value) and str(tmp_path) in str(error.value) and "\n" not in str(error.value)
    subprocess.run(["rm", "-r", tmp_path / "checkpoints" / "4"], check=True)
    assert finetune.run(config, tmp_path)["steps"] == 4


def test_a_work_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(command.RunStopped, match="--workdir="):
        finetune.run(tiny_runs.dpo(), tmp_path / "file" / "run")


# --- as a command ----------------------------------------------------------------------------------------------------


def one_message(done, *words):
    """Exactly one line of ours, the exit code 1, and nobody's traceback."""
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip().startswith("error: ")]
    assert len(lines) == 1 and all(w in lines[0] for w in words), done.stderr
    assert "Traceback" not in done.stderr


def test_command_refuses_a_bad_record_in_one_line(tmp_path):
    source = jsonl(tmp_path, {"prompt": "p", "chosen": "yes"})
    done = tiny_runs.finetune("configs/dpo.py", tmp_path / "run", f"--config.data.source={source}")
    one_message(done, "error:", f"{source}:3", "rejected")


def test_command_refuses_an_unknown_key(tmp_path):
    done = tiny_runs.finetune("configs/dpo.py", tmp_path / "run", "--config.training.stepz=3")
    assert done.returncode not in (0, None)
    assert "stepz" in done.stderr.strip().splitlines()[-1] + done.stderr.strip().splitlines()[-2], done.stderr


def test_no_space_is_one_message_and_earlier_checkpoints_stay(tmp_path):
    """A limit on the size of files, which a checkpoint of a wider model goes over, stands in for a full disk."""
    program = (
        "import resource, sys, pathlib, tiny_runs\n"
        "from experiments import command, finetune\n"
        "from alignment.training import checkpoints\n"
        "config = tiny_runs.dpo(2)\n"
        "config.training.steps = 4\n"
        "save = checkpoints.save\n"
        "def full(manager, step, *a, **k):\n"
        "    if step == 4:\n"
        "        manager.wait_until_finished()\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "    return save(manager, step, *a, **k)\n"
        "checkpoints.save = full\n"
        "command.start(lambda c, w: finetune.run(config, w))\n"
    )
    environment = tiny_runs.environment()
    environment["PYTHONPATH"] += os.pathsep + str(tiny_runs.ROOT / "tests")
    done = subprocess.run(
        [sys.executable, "-c", program, "--config=configs/dpo.py", f"--workdir={tmp_path}"],
        env=environment, cwd=tiny_runs.ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    one_message(done, "error: could not write the checkpoint of step 4", str(tmp_path), "untouched")
    assert checkpoints.open_manager(tmp_path / "checkpoints").latest_step() == 2
