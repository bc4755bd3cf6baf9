"""The online script in this process, on a model of one layer: what it promises and how it refuses."""

import json
import math

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny_runs

from alignment.data import formats
from alignment.training import preemption, rollouts
from alignment.training.logging import read_metrics
from configs import online
from experiments import command, prompt_sets, reinforce

GRPO = {"ppo": {"weight": 1.0, "reduction": "sequence_mean"}, "kl_k3": {"weight": 0.04, "reduction": "sequence_mean"}}


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
    tiny_runs.one_device(monkeypatch)


def tiny(iterations=4, reward="tiny_runs:letters", **changes):
    config = tiny_runs.shrink_online(online.base(), iterations)
    config.rewards = {"reward": {"function": reward}}
    config.advantages = {"grpo_advantages": {}}
    config.objective = GRPO
    config.optimizer.learning_rate = 1e-2
    for key, value in changes.items():
        section, _, name = key.partition("__")
        config[section][name] = value
    return config


def curve(workdir):
    rows = [r for r in read_metrics(workdir / "metrics.jsonl") if r["split"] == "train"]
    return [(r["step"], r["loss"], r["grad_norm"], r["reward"]) for r in rows]


def final_state(config, workdir):
    with ocp.StandardCheckpointer() as reader:
        return tiny_runs.digest(reader.restore(workdir / "checkpoints" / str(config.training.iterations) / "state"))


# --- what it promises ------------------------------------------------------------------------------------------------


def test_same_config_twice_is_bit_identical_and_another_seed_is_not(tmp_path):
    config = tiny(3)
    for name in ("a", "b"):
        reinforce.run(config, tmp_path / name)
    assert curve(tmp_path / "a") == curve(tmp_path / "b")
    assert final_state(config, tmp_path / "a") == final_state(config, tmp_path / "b")
    config.seed = 1
    reinforce.run(config, tmp_path / "c")
    assert curve(tmp_path / "a") != curve(tmp_path / "c")


def test_stopped_and_resumed_is_bit_identical_with_trackers_too(tmp_path, monkeypatch):
    config = tiny(6, checkpoints__every=2, training__minibatches=2, training__epochs=2)
    config.shaping = {"reward_normalization": {}, "hapo": {"num_prompts": 32, "order": 1}}
    reinforce.run(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        seen = iter(range(1, 100))
        patch.setattr(preemption.StopOnSignal, "requested", lambda self: next(seen) == 3)
        with pytest.raises(SystemExit) as stopped:
            reinforce.run(config, tmp_path / "parts")
    assert stopped.value.code == 0
    reinforce.run(config, tmp_path / "parts")
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    assert final_state(config, tmp_path / "parts") == final_state(config, tmp_path / "whole")


def test_an_engines_memory_is_part_of_what_is_resumed(tmp_path, monkeypatch):
    """NLPO's older policy is renewed at iteration 2 and 4, and the run stopped between."""
    config = tiny(5, checkpoints__every=10, training__minibatches=1, rollout__engine="experiments.engines:nlpo")
    config.rollout.engine_settings = {"p": 0.5, "min_tokens": 3, "refresh_every": 2}
    reinforce.run(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        seen = iter(range(1, 100))
        patch.setattr(preemption.StopOnSignal, "requested", lambda self: next(seen) == 3)
        with pytest.raises(SystemExit):
            reinforce.run(config, tmp_path / "parts")
    reinforce.run(config, tmp_path / "parts")
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    assert final_state(config, tmp_path / "parts") == final_state(config, tmp_path / "whole")


def test_reward_goes_up(tmp_path):
    """A model that knows nothing writes any byte; half of them are ASCII, and to write more of those is soon learnt."""
    config = tiny(20, "test_reinforce:share_of_ascii", training__eval_every=20, checkpoints__every=20)
    config.rollout.prompts, config.rollout.group_size = 8, 8
    result = reinforce.run(config, tmp_path)
    assert result["reward_after"] > result["reward_before"] + 0.15, result


def share_of_ascii(prompt, completion, record):
    return sum(c < "\x80" for c in completion) / max(len(completion), 1)


def test_first_update_is_on_policy_so_its_surrogate_is_minus_the_mean_advantage(tmp_path):
    config = tiny(1, training__minibatches=1)
    config.objective = {"ppo": {"weight": 1.0, "reduction": "sequence_mean"}}
    reinforce.run(config, tmp_path)
    assert curve(tmp_path)[0][1] == pytest.approx(0.0, abs=1e-5), "group-normalised advantages have mean 0"


def test_groups_that_are_all_alike_give_no_gradient(tmp_path):
    config = tiny(1, "test_reinforce:always_one", training__minibatches=1)
    config.objective = {"ppo": {"weight": 1.0, "reduction": "sequence_mean"}}
    reinforce.run(config, tmp_path)
    row = next(r for r in read_metrics(tmp_path / "metrics.jsonl") if r["split"] == "train")
    assert row["groups_alike"] == 1.0 and row["grad_norm"] == 0.0 and row["reward"] == 1.0


def always_one(prompt, completion, record):
    return 1.0


def test_dynamic_sampling_draws_anew_for_groups_that_are_all_alike_and_gives_up_in_time(tmp_path, monkeypatch):
    calls = []
    chosen = prompt_sets.next_prompts
    monkeypatch.setattr(prompt_sets, "next_prompts", lambda *a: calls.append(a[-1]) or chosen(*a))
    config = tiny(2, "test_reinforce:always_one", rollout__dynamic_sampling=True, rollout__max_rounds=3)
    config.training.minibatches = 1
    reinforce.run(config, tmp_path)
    assert calls == [0, 1, 2, 0, 1, 2]
    rows = [r for r in read_metrics(tmp_path / "metrics.jsonl") if r["split"] == "train"]
    assert all(r["grad_norm"] == 0.0 for r in rows), "what is missing counts for nothing"
    calls.clear()
    config = tiny(2, "test_reinforce:by_place", rollout__dynamic_sampling=True)
    reinforce.run(config, tmp_path / "mixed")
    assert all(math.isfinite(r["loss"]) for r in read_metrics(tmp_path / "mixed" / "metrics.jsonl") if "loss" in r)


def by_place(prompt, completion, record):
    """All alike for about half of the prompts."""
    return 1.0 if hash(prompt) % 2 else float(len(completion) % 2)


def off_engine(config, model, tokenizer):
    """Samples as the model does but reports log-probs that are 0.3 too low, as an engine of other kernels might."""
    engine = rollouts.sampling_engine(
        model, group_size=config.rollout.group_size, completion_length=config.data.completion_length,
        eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id,
    )  # fmt: skip

    def off(*arguments):
        rollout = engine(*arguments)
        return rollout._replace(logps=rollout.logps - 0.3)

    return off


def test_an_engine_whose_log_probs_are_off_is_corrected_up_to_the_cap(tmp_path):
    """The trainer's own log-probs serve as the behaviour's, and every gradient is weighed by min(e^0.3, cap)."""
    norms = {}
    for name, engine, cap in (
        ("own", "", 0.0), ("off", "test_reinforce:off_engine", 10.0), ("capped", "test_reinforce:off_engine", 1.0),
    ):  # fmt: skip
        config = tiny(1, rollout__engine=engine, rollout__importance_cap=cap, training__minibatches=1)
        config.objective = {"ppo": {"weight": 1.0, "reduction": "sequence_mean"}}
        reinforce.run(config, tmp_path / name)
        norms[name] = curve(tmp_path / name)[0][2]
    assert norms["off"] == pytest.approx(norms["own"] * math.exp(0.3), rel=1e-3)
    assert norms["capped"] == pytest.approx(norms["own"], rel=1e-3)


def test_truncated_sampling_trains_on_ratios_of_one(tmp_path):
    config = tiny(1, rollout__top_p=0.5, training__minibatches=1)
    config.objective = {"ppo": {"weight": 1.0, "reduction": "sequence_mean"}}
    reinforce.run(config, tmp_path)
    assert curve(tmp_path)[0][1] == pytest.approx(0.0, abs=1e-5)


# --- how it refuses --------------------------------------------------------------------------------------------------


def broken(prompt, completion, record):
    kinds = [None, float("nan"), "two", 1.0]
    if len(completion) % 5 == 4:
        raise RuntimeError("no such answer")
    return kinds[len(completion) % 4]


def test_rewards_that_fail_are_counted_shown_and_never_kill_the_run(tmp_path, capsys):
    result = reinforce.run(tiny(2, "test_reinforce:broken"), tmp_path)
    assert result["rewards_failed"] > 0
    said = capsys.readouterr().out
    assert "failed" in said and "none" in said
    assert all(r["rewards_failed"] > 0 for r in read_metrics(tmp_path / "metrics.jsonl") if r["split"] == "train")


def test_a_reward_that_hangs_costs_its_time_limit_and_not_the_run(tmp_path):
    config = tiny(1, "test_reinforce:hangs")
    config.reward_runner.workers, config.reward_runner.time_limit = 1, 0.2
    config.rollout.prompts, config.rollout.group_size, config.training.minibatches = 1, 2, 1
    config.data.eval_size = 1
    config.evaluation.samples = 1
    assert reinforce.run(config, tmp_path)["rewards_failed"] > 0


def hangs(prompt, completion, record):
    while True:
        pass


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda c: c.rollout.update(prompts=3), "config.training.minibatches: 2 does not divide the 3"),
        (lambda c: c.reference.update(update_every=3), "update_every: 3 is no multiple of the 2 steps of an iteration"),
        (lambda c: c.training.update(auxiliary=True), "config.training.epochs: 1 cannot be halved"),
        (lambda c: (c.training.update(auxiliary=True, epochs=2), c.reference.update(update_every=2)), "must be 0 with"),
        (lambda c: c.rollout.update(group_size=0), "config.rollout.group_size: must be at least 1"),
        (lambda c: c.rollout.update(temperature=0.0), "config.rollout.temperature: must be above 0"),
        (lambda c: c.data.update(source="task:juggling"), "no task 'juggling'"),
        (lambda c: c.data.update(prompt_length=4), "raise config.data.prompt_length"),
        (lambda c: setattr(c, "rewards", {"juggling": {}}), "config.rewards.juggling: no such task"),
        (lambda c: setattr(c, "rewards", {"x": {"function": "no.such:thing"}}), "no.such"),
        (lambda c: setattr(c, "advantages", {"grpo_advantage": {}}), "nearest: grpo_advantages"),
        (lambda c: setattr(c, "advantages", {}), "needs 'token_advantages'"),
        (lambda c: setattr(c, "shaping", {"hapo": {"weight": -1.0}}), "weight"),
        (lambda c: setattr(c, "advantages", {"gae": {}}), "needs 'token_rewards'"),
        (lambda c: c.rollout.update(engine="nowhere:engine"), "config.rollout.engine"),
        (lambda c: c.rollout.update(engine="test_reinforce:no_such_engine"), "cannot make an engine by 'test_rein"),
        (lambda c: setattr(c, "rewards", {"x": {"function": "test_reinforce:no_such_reward"}}), "no_such_reward"),
        (lambda c: setattr(c, "rewards", {}), "config.rewards: empty"),
        (
            lambda c: c.rollout.update(group_size=1),
            r"group_size: 1, at which every .*\(grpo_advantages\); set it to at",
        ),
        (lambda c: (c.rollout.update(group_size=1), alone(c, {}, "disco_log_likelihood")), "'disco_log_likelihood' of"),
        (lambda c: (c.rollout.update(group_size=1), few_prompts_with_a_memory(c)), r"group_size: 1, at which"),
        (lambda c: c.rollout.update(group_size=1, dynamic_sampling=True), "dynamic_sampling: a group of one"),
    ],
)
def test_a_config_that_cannot_work_is_refused_before_anything_is_sampled(tmp_path, change, words, monkeypatch):
    monkeypatch.setattr(rollouts, "to_rows", lambda *a: pytest.fail("it was sampled from"))
    config = tiny(2)
    change(config)
    with pytest.raises(ValueError, match=words):
        reinforce.run(config, tmp_path)


def few_prompts_with_a_memory(config):
    config.data.size, config.shaping = 4, {"hapo": {}}


def alone(config, advantages, kernel):
    config.advantages, config.objective = advantages, {kernel: {"weight": 1.0}}


@pytest.mark.parametrize("advantages", ["rloo_advantages", "ngrpo_advantages"])
def test_groups_of_one_are_fine_for_methods_that_have_an_advantage_for_them(tmp_path, advantages):
    config = tiny(1, "test_reinforce:share_of_ascii", training__minibatches=1)
    config.rollout.group_size, config.advantages = 1, {advantages: {}}
    config.objective = {"ppo": {"weight": 1.0}}
    reinforce.run(config, tmp_path)
    assert curve(tmp_path)[0][2] > 0


def never_stops(config, model, tokenizer):
    """An engine to whose model the end token never occurs."""
    shape = (config.rollout.prompts * config.rollout.group_size, config.data.completion_length)

    def engine(params, prompts, prompt_mask, rng):
        tokens = np.full(shape, ord("x"), np.int32)
        return rollouts.Rollout(tokens, np.ones(shape, bool), np.full(shape, -1.0, np.float32))

    return engine


def test_a_stop_token_that_never_comes_is_said_once_and_logged(tmp_path, capsys):
    reinforce.run(tiny(2, "test_reinforce:by_place", rollout__engine="test_reinforce:never_stops"), tmp_path)
    said = "no completion of iteration 1 ended by itself, all were cut at config.data.completion_length = 16"
    out = capsys.readouterr().out
    assert out.count("ended by itself") == 1 and said in out
    rows = [r for r in read_metrics(tmp_path / "metrics.jsonl") if r["split"] == "train"]
    assert [r["truncated"] for r in rows] == [1.0, 1.0] and all(math.isfinite(r["loss"]) for r in rows)


@pytest.mark.parametrize(
    ("lines", "changes", "words"),
    [
        ('{"prompt": "a"}\n{"prompt": \n', {}, r"p\.jsonl:2: .*JSON"),
        ('{"prompt": "a"}\n{"question": "b"}\n', {}, r"p\.jsonl:2: .*prompt"),
        ('{"prompt": "a"}\n{"prompt": 3}\n', {}, r"p\.jsonl:2: .*prompt"),
        ('{"prompt": "abc"}\n{"prompt": "abcdef"}\n', {"prompt_length": 5}, r"p\.jsonl:2: the prompt has . tokens"),
        ('{"prompt": "abcdef"}\n' * 2, {"prompt_length": 4, "too_long": "drop"}, "no prompt is left of 2, 2 were too"),
        ("", {}, r"p\.jsonl"),
    ],
    ids=["bad JSON", "no prompt", "a number", "too long", "all too long", "empty"],
)
def test_prompts_that_cannot_be_used_are_named_with_file_and_line(tmp_path, lines, changes, words):
    (tmp_path / "p.jsonl").write_text(lines)
    config = tiny(1)
    config.data.update(source=str(tmp_path / "p.jsonl"), **changes)
    with pytest.raises(formats.DataError, match=words):
        reinforce.run(config, tmp_path / "run")


def test_prompts_of_a_file_reach_rewards_with_their_fields(tmp_path):
    lines = [{"prompt": f"say {w}: ", "word": w} for w in ("one", "two", "three")]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = tiny(1, "test_reinforce:knows_its_word")
    config.data.source = str(tmp_path / "p.jsonl")
    result = reinforce.run(config, tmp_path / "run")
    assert result["rewards_failed"] == 0


def knows_its_word(prompt, completion, record):
    assert record["word"] in prompt
    return float(len(completion) % 2)


def test_a_finished_run_says_its_result_again(tmp_path, monkeypatch):
    first = reinforce.run(tiny(1, training__minibatches=1), tmp_path)
    monkeypatch.setattr(reinforce, "_run", lambda *a: pytest.fail("done again"))
    assert reinforce.run(tiny(1, training__minibatches=1), tmp_path) == first


def test_losses_that_are_not_finite_stop_the_run_and_name_the_prompts(tmp_path, monkeypatch):
    config = tiny(4, training__max_skipped_in_a_row=2, training__minibatches=1)
    make = rollouts.to_rows

    def poisoned(*arguments):
        batch = make(*arguments)
        batch["behaviour_token_logps"] = np.full_like(batch["behaviour_token_logps"], np.nan)
        return batch

    monkeypatch.setattr(rollouts, "to_rows", poisoned)
    with pytest.raises(command.RunStopped, match="iteration 2"):
        reinforce.run(config, tmp_path)
    assert len(json.loads((tmp_path / "nonfinite.json").read_text())["prompt_ids"]) == 4
    assert jax.device_count() >= 1
