"""Runs whose sides are more than answers to one prompt: halves by confidence (SFTMix), control tokens (MEET)."""

import re

import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny_runs

from alignment.models import control_tokens
from alignment.training import mesh, preemption
from alignment.training.logging import read_metrics
from configs import common, grpo, meet, meet_controls, online, sftmix
from experiments import finetune, from_config, stages


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
    tiny_runs.one_device(monkeypatch)


def saved(workdir, part="params"):
    with ocp.StandardCheckpointer() as reader:
        return tiny_runs.leaves(reader.restore(workdir / "checkpoints" / "3" / "state")[part])


def losses(workdir):
    return [(r["step"], r["split"], r["loss"]) for r in read_metrics(workdir / "metrics.jsonl")]


def test_stage_one_of_meet_moves_control_tokens_alone_and_stage_two_begins_with_them(tmp_path):
    config = tiny_runs.shrink(meet_controls.get_config())
    config.gold.samples = 4
    result = finetune.run(config, tmp_path / "controls")
    assert {"win_rate_before", "win_rate_after", "kl_to_start"} <= set(result)
    before, after = saved(tmp_path / "controls" / "before"), saved(tmp_path / "controls")
    controls = after.pop(f"['{control_tokens.NAME}']")
    assert controls.shape == (2, meet_controls.TOKENS, 16)
    assert after.keys() == before.keys()
    for name, array in after.items():
        np.testing.assert_array_equal(array.view(np.uint32), before[name].view(np.uint32), err_msg=name)

    config, device_mesh = tiny_runs.shrink(meet.get_config()), mesh.make_mesh({"data": 1})
    config.before_workdir = str(tmp_path / "controls")
    model, _ = from_config.build_model(config, 320, device_mesh)
    start = tiny_runs.leaves(stages.params_before(config, tmp_path, model, device_mesh))
    np.testing.assert_array_equal(start.pop(f"['{control_tokens.NAME}']"), controls)
    assert all(np.array_equal(start[name], after[name]) for name in after)
    assert np.abs(controls[0] - controls[1]).max() > 1e-3

    _, tokenizer, model, params = from_config.load_run("it", str(tmp_path / "controls"), device_mesh)
    assert tokenizer.prefix_ids(False) == [257, *range(320, 320 + meet_controls.TOKENS)]
    assert model.head(params).shape[0] == 320 and control_tokens.NAME in params


def test_rows_of_both_halves_are_stopped_and_resumed_bit_identical(tmp_path, monkeypatch, capsys):
    """And a teacher that was trained before gives the halves that one trained on the way gives."""
    config = tiny_runs.shrink(sftmix.get_config())
    config.teacher.run.checkpoints.every, config.teacher.run.checkpoints.keep_last = 1, 2
    config.data.corpus_size = 63
    finetune.run(config, tmp_path / "whole")
    pattern = r"train: (\d) .* ([\d.]+) in the confident half, ([\d.]+) in the other; (\d+) pairs, (\d) example"
    said = re.findall(pattern, capsys.readouterr().out)
    ((checkpoints, confident, unconfident, pairs, left_out),) = said
    assert (checkpoints, pairs, left_out) == ("2", "31", "1") and float(confident) < float(unconfident)
    assert {p.name for p in (tmp_path / "whole").glob("nlls_train_*")} == {"nlls_train_2.npz", "nlls_train_3.npz"}

    config.teacher.run, config.teacher.checkpoint = {}, str(tmp_path / "whole" / "teacher")
    steps = iter(range(1, 100))
    with monkeypatch.context() as m:
        m.setattr(preemption.StopOnSignal, "requested", lambda self: next(steps) == 2)
        with pytest.raises(SystemExit):
            finetune.run(config, tmp_path / "parts")
    finetune.run(config, tmp_path / "parts")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    for part in ("params", "opt_state"):
        whole, parts = (tiny_runs.digest(saved(tmp_path / name, part)) for name in ("whole", "parts"))
        assert whole == parts


def confident(**changes):
    config = tiny_runs.shrink(sftmix.get_config())
    for key, value in changes.items():
        config.data[key] = value
    return config


def controlled(kind):
    config = tiny_runs.dpo()
    config.model.control_tokens, config.data.kind, config.data.prompt_length = 2, kind, 34
    return config


def without_a_teacher():
    config = confident()
    config.teacher.run = {}
    return config


def unread_teacher():
    return confident(by_confidence=False, corruption={})


BAD = {
    "packed rows": (lambda: confident(packed=True), "config.data.by_confidence: is of demonstrations, one to a row"),
    "pairs": (lambda: confident(kind="pairs"), "config.data.by_confidence: is of demonstrations, one to a row"),
    "no teacher": (without_a_teacher, "config.teacher: config.data.by_confidence asks for it; set either"),
    "no halves": (unread_teacher, "kernel 'sftmix' needs 'policy_confident_token_logps', but the data set offers"),
    "lists with control tokens": (lambda: controlled("lists"), "data of kind 'lists' have no set of them for each"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_does_not_fit_is_named_before_anything_is_trained(what, tmp_path, monkeypatch):
    make, words = BAD[what]
    with pytest.raises(ValueError, match=re.escape(words)):
        finetune.run(make(), tmp_path)
    assert not (tmp_path / "teacher" / "checkpoints").exists()


def test_numbers_that_do_not_fit_are_refused():
    config = tiny_runs.dpo()
    config.before_controls = True
    with pytest.raises(ValueError, match=r"config.model.control_tokens: must be at least 1, got 0 \(config.before_con"):
        common.check_numbers(config)
    config.model.control_tokens, config.adapter.rank = 2, 4
    with pytest.raises(ValueError, match=r"config.adapter.rank: control tokens are trained beside the model"):
        common.check_numbers(config)
    config = grpo.get_config()
    config.model.control_tokens = 2
    with pytest.raises(ValueError, match=r"config.model.control_tokens: they are trained on pairs"):
        online.check_numbers(config)
