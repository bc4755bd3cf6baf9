"""The script of masked diffusion in this process, on a model of one layer: what it promises and how it refuses."""

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny_runs

from alignment.decoding import unmasking
from alignment.policy_gradients import igpo_replacements
from alignment.training import preemption
from alignment.training.logging import read_metrics
from configs import bgpo, diffu_grpo, igpo, mdlm_elbo
from experiments import diffusion


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
    tiny_runs.one_device(monkeypatch)


def tiny(module, iterations=3, reward="tiny_runs:letters", **changes):
    config = tiny_runs.shrink_diffusion(module.get_config(), iterations)
    config.before = {}
    config.rewards = {"reward": {"function": reward}}
    config.optimizer.learning_rate = 1e-2
    config.training.minibatches = 1
    for key, value in changes.items():
        section, _, name = key.partition("__")
        config[section][name] = value
    return config


def curve(workdir):
    rows = [r for r in read_metrics(workdir / "metrics.jsonl") if r["split"] == "train"]
    return [(r["step"], r["loss"], r["grad_norm"], r.get("reward")) for r in rows]


def final_state(config, workdir):
    with ocp.StandardCheckpointer() as reader:
        return tiny_runs.digest(reader.restore(workdir / "checkpoints" / str(config.training.iterations) / "state"))


# --- what it promises ------------------------------------------------------------------------------------------------


def test_stopped_and_resumed_is_bit_identical(tmp_path, monkeypatch):
    config = tiny(bgpo, 4, checkpoints__every=2, training__minibatches=2, training__epochs=2)
    config.shaping = {"reward_normalization": {}}
    diffusion.run(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        seen = iter(range(1, 100))
        patch.setattr(preemption.StopOnSignal, "requested", lambda self: next(seen) == 3)
        with pytest.raises(SystemExit) as stopped:
            diffusion.run(config, tmp_path / "parts")
    assert stopped.value.code == 0
    diffusion.run(config, tmp_path / "parts")
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    assert final_state(config, tmp_path / "parts") == final_state(config, tmp_path / "whole")


def test_the_bound_of_demonstrations_goes_up(tmp_path):
    config = tiny(mdlm_elbo, 40, data__accuracy=1.0)
    config.rollout.prompts = 16
    diffusion.run(config, tmp_path)
    losses = [r["loss"] for r in read_metrics(tmp_path / "metrics.jsonl") if r["split"] == "eval"]
    assert losses[0] > 8 * np.log(320) - 1, "at the start every one of the eight tokens is as likely as any"
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("module", [bgpo, diffu_grpo])
def test_reward_goes_up(tmp_path, module):
    """A model that knows nothing writes any byte; half of them are ASCII, and to write more of those is soon learnt.

    Before the first update all ratios are one, whatever the masking: the loss is minus the mean advantage, which is 0.
    """
    config = tiny(module, 12, "test_diffusion:share_of_ascii", rollout__group_size=8, rollout__prompts=8)
    config.training.epochs = 1
    result = diffusion.run(config, tmp_path)
    assert curve(tmp_path)[0][1] == pytest.approx(0.0, abs=1e-5)
    assert result["reward_after"] > result["reward_before"] + 0.15, result


def share_of_ascii(prompt, completion, record):
    return sum(c < "\x80" for c in completion) / max(len(completion), 1)


def test_groups_that_are_all_wrong_get_in_painted_responses_that_are_right(tmp_path, monkeypatch):
    """Right is what holds a digit of the answer in its place, which a model that knows nothing never writes."""
    rounds = []

    def watched(rewards, in_painted_correct, *arguments, **settings):
        chosen = igpo_replacements(rewards, in_painted_correct, *arguments, **settings)
        rounds.append((np.asarray(in_painted_correct), np.asarray(chosen)))
        return chosen

    monkeypatch.setattr(diffusion, "igpo_replacements", watched)
    config = tiny(igpo, 1, "test_diffusion:holds_a_digit", training__epochs=1)
    diffusion.run(config, tmp_path)
    (row,) = [r for r in read_metrics(tmp_path / "metrics.jsonl") if r["split"] == "train"]
    assert row["groups_all_wrong"] == 1.0 and row["groups_still_wrong"] == 0.0 and row["reward"] == 0.0
    ((correct, chosen),) = rounds
    assert (correct.reshape(4, 4).sum(axis=1) >= 2).all()
    assert ((chosen >= 0).reshape(4, 4).sum(axis=1) == 2).all(), "half of each group of four"
    assert row["grad_norm"] > 0


def holds_a_digit(prompt, completion, record):
    return float(any(a == b for a, b in zip(completion, record["answer"], strict=False)))


def test_groups_with_a_right_response_are_not_in_painted(tmp_path, monkeypatch):
    calls = []
    sample = unmasking.sample
    monkeypatch.setattr(unmasking, "sample", lambda *a, **k: calls.append("given" in k) or sample(*a, **k))
    diffusion.run(tiny(igpo, 2, "test_diffusion:always_one"), tmp_path)
    assert calls and not any(calls)


def always_one(prompt, completion, record):
    return 1.0


# --- how it refuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module,change,words",
    [
        (bgpo, lambda c: c.objective.update({"ppo": {}}), "a run has one or the other"),
        (diffu_grpo, lambda c: c.masking.update(samples=2), "config.masking.samples: is of the bound"),
        (bgpo, lambda c: c.inpainting.update(largest_replaced=0.5), "config.inpainting.largest_replaced"),
        (bgpo, lambda c: c.masking.update(draw="both"), "config.masking.draw: 'both' is not one of"),
        (bgpo, lambda c: c.rollout.update(order="left"), "config.rollout.order: 'left'"),
        (bgpo, lambda c: c.rollout.update(steps=0), "config.rollout.steps: must be at least 1"),
        (bgpo, lambda c: c.model.update(hugging_face="x"), "config.model.hugging_face"),
        (bgpo, lambda c: c.masking.update(prompt_rate=1.5), r"config.masking.prompt_rate: must lie in \[0, 1\]"),
        (mdlm_elbo, lambda c: c.update(advantages={"grpo_advantages": {}}), "config.advantages: demonstrations"),
        (mdlm_elbo, lambda c: c.update(objective={"bgpo": {}}), "stores no behaviour log-probs|needs the column"),
        (mdlm_elbo, lambda c: c.data.update(completion_length=4), "a demonstration has"),
        (igpo, lambda c: c.inpainting.update(smallest_share=0.9), "is above config.inpainting.largest_share"),
    ],
)
def test_a_config_that_cannot_work_is_refused(tmp_path, module, change, words):
    config = tiny(module, 1)
    change(config)
    with pytest.raises(ValueError, match=words):
        diffusion.run(config, tmp_path)
    assert jax.device_count() >= 1
