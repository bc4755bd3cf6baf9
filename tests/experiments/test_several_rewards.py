"""Runs with several rewards: their front, soups of them, their comparison, preferences, judges, and what is refused."""

import importlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_runs
from ml_collections import ConfigDict

from alignment.data.tokenizers import ByteTokenizer
from alignment.models import multi_head
from alignment.rewards.runner import RewardReport, Rewards
from alignment.training import mesh
from configs import online
from configs.sweeps import hpo_morl
from experiments import from_config, pareto, prompt_sets, reinforce, several_rewards, soup

TWO = {"letters": {"function": "tiny_runs:letters"}, "short": {"function": "tiny_runs:shortness", "weight": 0.5}}


def config_of(seed=0, **objective):
    shape = {"shaping": {"linear_scalarization": {"weights": (0.5, 0.5)}}, "advantages": {"grpo_advantages": {}}}
    config = online.two_objectives(**shape, objective=objective or {"ppo": {"weight": 1.0}})
    config = tiny_runs.shrink_online(config)
    config.before = ConfigDict()
    config.seed, config.rewards, config.optimizer.learning_rate = seed, TWO, 1e-2
    return config


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished runs of one model with different data orders, and their results."""
    with pytest.MonkeyPatch.context() as patch:
        tiny_runs.one_device(patch)
        directories = [tmp_path_factory.mktemp(f"run{n}") for n in (0, 1)]
        results = [reinforce.run(config_of(n), d) for n, d in enumerate(directories)]
        yield [str(d) for d in directories], results


def points_of(directory):
    return [json.loads(line) for line in Path(directory, "pareto.jsonl").read_text().splitlines()]


def test_a_run_writes_its_front_and_its_hypervolume(runs):
    directories, results = runs
    for directory, result in zip(directories, results, strict=True):
        lines = points_of(directory)
        assert [line["iteration"] for line in lines] == [0, 3]
        assert set(lines[0]["rewards"]) == {"letters", "short"}
        assert (Path(directory) / "pareto.png").stat().st_size > 5000
        gain = np.array(list(lines[1]["rewards"].values())) - list(lines[0]["rewards"].values())
        np.testing.assert_allclose(result["hypervolume"], np.prod(np.maximum(gain, 0)), rtol=1e-3, atol=1e-6)
        assert result["evaluation"]["reward_short"] == pytest.approx(lines[1]["rewards"]["short"])


def test_a_soup_meets_its_runs_at_both_ends(runs, tmp_path, monkeypatch):
    tiny_runs.one_device(monkeypatch)
    directories, _ = runs
    result = soup.run(config_of(), directories, tmp_path, points=3)
    assert [m["weights"] for m in result["mixtures"]] == [(1.0, 0.0), (0.5, 0.5), (0.0, 1.0)]
    for mixture, directory in ((result["mixtures"][0], directories[0]),):
        evaluated = points_of(directory)[-1]["rewards"]
        assert mixture["rewards"] == pytest.approx(evaluated, abs=1e-6)
    compared = pareto.run([*directories, str(tmp_path)], tmp_path / "compared", reference=(0.0, 0.0))
    assert compared["all"]["hypervolume"] >= max(compared[d]["hypervolume"] for d in directories) - 1e-9
    assert compared["all"]["coverage"] == 1
    assert "hypervolume" in (tmp_path / "compared" / "table.md").read_text()
    assert (tmp_path / "compared" / "pareto.png").is_file()


def test_an_evaluation_that_is_repeated_after_a_kill_stands_once(tmp_path):
    point = [several_rewards.Point(None, [1.0, 2.0])]
    for at in (0, 3, 6, 3):
        several_rewards.write_points(tmp_path, config_of(), at, point)
    assert [line["iteration"] for line in points_of(tmp_path)] == [0, 3]


def test_a_reward_of_negative_weight_is_minimised_on_the_front():
    config = config_of()
    config.rewards.short.weight = -1.0
    names, signs = several_rewards.maximised(config)
    assert names == ["letters", "-short"] and signs.tolist() == [1, -1]


def test_the_grid_of_weights_is_the_simplex():
    assert soup.grid(2, 3) == [(1.0, 0.0), (0.5, 0.5), (0.0, 1.0)]
    three = soup.grid(3, 3)
    assert len(three) == len(set(three)) == 6 and all(sum(w) == 1 for w in three)


# --- preferences


def test_preferences_are_unit_vectors_in_whole_hundredths():
    arc = several_rewards.draw("arc", 200, 2, [1, 2])
    np.testing.assert_allclose(np.linalg.norm(arc, axis=1), 1, atol=0.01)
    assert (arc[:, 0] >= 0.70).all() and (np.abs(arc[:, 1]) <= 0.71).all()
    simplex = several_rewards.draw("simplex", 200, 3, [1, 2])
    np.testing.assert_allclose(simplex.sum(axis=1), 1, atol=0.02)
    np.testing.assert_array_equal(simplex, several_rewards.draw("simplex", 200, 3, [1, 2]))


def test_minus_fifteen_degrees_are_told_as_97_and_minus_26():
    tokenizer = ByteTokenizer()
    angle = np.deg2rad(-15)
    preference = several_rewards.rounded([np.cos(angle), np.sin(angle)])
    told = several_rewards.told(prompt_sets.Prompt(0, "sort 21: ", [], {}), preference, tokenizer)
    assert tokenizer.decode(told.tokens[1:]) == "97 -26 sort 21: "
    assert told.prompt == "sort 21: "  # what rewards see
    chat = prompt_sets.Prompt(0, [{"role": "user", "content": "hi"}], [], {})
    assert "97 -26" in tokenizer.decode(several_rewards.told(chat, preference, tokenizer).tokens)


def test_held_out_prompts_are_told_a_fan_and_give_a_point_for_each():
    fan = several_rewards.fan("arc", 2)
    np.testing.assert_allclose(fan[[0, 2, 4]], [[0.71, -0.71], [1, 0], [0.71, 0.71]])
    assert len(several_rewards.fan("simplex", 3)) == 9
    values = np.arange(20.0).reshape(10, 1, 2)
    points = several_rewards.points(values, fan[np.arange(10) % 5])
    assert len(points) == 5 and all(len(p.preference) == 2 for p in points)
    np.testing.assert_allclose(np.mean([p.rewards for p in points], axis=0), values.mean(axis=(0, 1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rollout.preferences": "ark"}, "config.rollout.preferences: 'ark' is not one of"),
        ({"rewards": {"letters": TWO["letters"]}, "rollout.preferences": "arc"}, "'arc' is of two rewards"),
        ({"evaluation.reference_point": (0.0,)}, "config.evaluation.reference_point: must have one number for each"),
        ({"rollout.preferences": "arc", "data.prompt_length": 14}, "config.data.prompt_length: with a preference"),
    ],
)
def test_what_does_not_fit_the_rewards_is_an_error_before_anything_is_compiled(change, message):
    config = config_of()
    for key, value in change.items():
        section, _, name = key.rpartition(".")
        if section:
            config[section][name] = value
        else:
            config[key] = value
    tokenizer = ByteTokenizer()
    prompts = [prompt_sets.Prompt(0, "sort 21: ", tokenizer.encode("sort 21: "), {})]
    with pytest.raises(ValueError, match=message):
        several_rewards.check(config, prompts, tokenizer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shaping": {"linear_scalarization": {"weights": (1.0,)}}}, "weights must have one number for each of the 2"),
        ({"model.output_heads": 2}, "config.model.output_heads"),
        ({"judges": {"j": {"function": "tiny_runs:even", "weight": 2.0}}}, "config.judges.j.weight: a judge has none"),
        ({"training.gradient": "pairwise_normalized"}, "config.training.gradient: 'pairwise_normalized' is not one of"),
        ({"objective": {"cgpo_codpo": {}}}, "'judgements'; the data set has"),
    ],
)
def test_a_run_that_cannot_work_stops_with_the_key(change, message, tmp_path, monkeypatch):
    tiny_runs.one_device(monkeypatch)
    config = config_of()
    for key, value in change.items():
        section, _, name = key.rpartition(".")
        if section:
            config[section][name] = value
        else:
            config[key] = ConfigDict(value)
    with pytest.raises(ValueError, match=message):
        reinforce.run(config, tmp_path)


def test_judges_say_true_or_false_and_one_that_failed_is_not_satisfied():
    config = config_of()
    config.judges = {"first": {"function": "tiny_runs:even"}, "second": {"function": "tiny_runs:even"}}
    functions, weights = several_rewards.functions(config)
    assert len(functions) == 4 and weights == [1.0, 0.5, 0.0, 0.0]
    values, failed = np.float32([[7, 8, 1, 0], [7, 8, 1, 1]]), np.zeros((2, 4), bool)
    got = Rewards(values.sum(1), values, failed.any(1), RewardReport(), failed)
    np.testing.assert_array_equal(several_rewards.verdicts(config, got), [[True, False], [True, True]])
    np.testing.assert_array_equal(several_rewards.by_objective(config, got), [[7, 8], [7, 8]])
    failed[1, 3] = True  # whatever a failure is worth to a reward
    np.testing.assert_array_equal(several_rewards.verdicts(config, got), [[True, False], [True, False]])
    values[0, 3] = 0.5
    with pytest.raises(ValueError, match=r"config.judges.second: gave 0.5 for completion 0; a judge says"):
        several_rewards.verdicts(config, got)


# --- fronts and soups that cannot be


def test_fronts_of_different_rewards_are_not_compared(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        config = config_of()
        config.rewards = {name: TWO["letters"], "x": TWO["short"]}
        several_rewards.write_points(tmp_path / name, config, 0, [several_rewards.Point(None, [1.0, 2.0])])
    with pytest.raises(ValueError, match="has the rewards b, x"):
        pareto.run([str(tmp_path / "a"), str(tmp_path / "b")], tmp_path)
    with pytest.raises(ValueError, match="--fronts: there is no"):
        pareto.run([str(tmp_path / "c")], tmp_path)
    with pytest.raises(ValueError, match="--reference: must have one number for each of a, x"):
        pareto.run([str(tmp_path / "a")], tmp_path, reference=(0.0,))


def test_one_run_without_heads_is_no_soup(runs, tmp_path, monkeypatch):
    tiny_runs.one_device(monkeypatch)
    with pytest.raises(ValueError, match=r"--runs: needs two runs or more, or one with config.model.output_heads"):
        soup.run(config_of(), runs[0][:1], tmp_path)


def test_the_heads_of_one_run_are_mixed(runs, monkeypatch):
    """A run with output heads is loaded with them, and every mixture is a plain model."""
    tiny_runs.one_device(monkeypatch)
    loaded = from_config.load_run("--runs", runs[0][0], mesh.make_mesh({"data": 1}))

    def with_heads(key, directory, device_mesh):
        config, tokenizer, model, params = loaded
        return config, tokenizer, multi_head.wrap(model, 2), multi_head.add_heads(model, params, 2, jax.random.key(0))

    monkeypatch.setattr(from_config, "load_run", with_heads)
    _, mixed = soup.mixtures(["run"], 3, None)
    found = list(mixed)
    assert [w for w, *_ in found] == soup.grid(2, 3)
    assert all("lm_head" in params and multi_head.NAME not in params for *_, params in found)


def test_the_search_over_hypervolume_names_what_a_run_gives():
    sweep = hpo_morl.get_sweep()
    config = hpo_morl.with_values(hpo_morl.get_config(), **{k: v[0] for k, v in sweep["parameters"].items()})
    online.check_numbers(config)
    assert config.seed == 10 and sweep["maximize"] == ["hypervolume"]
    assert set(sweep["report"]) == {f"reward_{name}" for name in config.rewards}
    assert len(config.evaluation.reference_point) == len(config.rewards)


def test_objectives_stand_in_the_order_that_the_configs_mean():
    """A config sorts the names of its rewards; what is said by number has to agree."""
    for name, first in (("safe_rlhf", "sorting"), ("c_morl", "sorting"), ("mgda", "sorting"), ("ppo", "sorting")):
        config = importlib.import_module(f"configs.{name}").get_config()
        assert next(iter(config.rewards)) == first
    assert list(importlib.import_module("configs.safe_rlhf").get_config().rewards) == ["sorting", "unsafe"]
