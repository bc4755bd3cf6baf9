"""Reward models through the scripts: what a checkpoint scores is what was trained, and any run can name it."""

from pathlib import Path

import numpy as np
import pytest
import tiny_runs

from alignment.data import corpus
from alignment.training import mesh
from alignment.training.logging import read_metrics
from configs import common, denoised_bt_loss, online
from experiments import finetune, from_config, prompt_sets, reinforce, reward_models


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
    tiny_runs.one_device(monkeypatch)


def device_mesh():
    return mesh.make_mesh({"data": 1})


def tiny(objective, metrics=None, heads=1, kind="pairs"):
    config = tiny_runs.dpo(3, objective, metrics or {})
    config.model.reward_heads, config.data.kind = heads, kind
    config.optimizer.learning_rate = 1e-2
    return config


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs of a model of three heads, of one and of steps: {name: WORKDIR}."""
    configs = {
        "heads": tiny({"bt_reward_heads_loss": {}}, {"reward_heads_accuracy": {}, "reward_model_accuracy": {}}, 3),
        "one": tiny({"bt_reward_loss": {}}, {"reward_model_accuracy": {}}),
        "steps": tiny({"prm_step_loss": {}}, {"step_accuracy": {}}, 2, "steps"),
    }
    workdirs = {name: tmp_path_factory.mktemp(name) for name in configs}
    with pytest.MonkeyPatch.context() as patch:
        tiny_runs.one_device(patch)
        for name, config in configs.items():
            finetune.run(config, workdirs[name])
    return workdirs


def evaluation_pairs():
    return corpus.generate("pairs", 8, 0, split="test")


def test_scores_of_texts_are_those_of_the_run_that_trained_the_model(runs):
    """The accuracy that the run logged comes out of the texts again, pair by pair, and so does every head's."""
    score = reward_models.load_scorer("key", [str(runs["heads"])], device_mesh())
    pairs = evaluation_pairs()
    prompts = [p["prompt"] for p in pairs]
    chosen, rejected = (score(prompts, [p[side] for p in pairs]) for side in ("chosen", "rejected"))
    logged = [r for r in read_metrics(runs["heads"] / "metrics.jsonl") if r["split"] == "eval"][-1]
    assert chosen.shape == (8, 3)
    assert np.mean(chosen > rejected) == pytest.approx(logged["reward_heads_accuracy"])
    assert np.mean(chosen[:, 0] > rejected[:, 0]) == pytest.approx(logged["reward_model_accuracy"])


def test_a_score_does_not_depend_on_the_texts_beside_it(runs):
    score = reward_models.load_scorer("key", [str(runs["one"]), str(runs["heads"])], device_mesh())
    pairs = evaluation_pairs()
    prompts, texts = [p["prompt"] for p in pairs], [p["chosen"] for p in pairs]
    whole = score(prompts, texts)
    assert whole.shape == (8, 4)  # the two models side by side
    np.testing.assert_allclose(score(prompts[3:4], texts[3:4]), whole[3:4], rtol=1e-4, atol=1e-5)
    longer = score([*prompts, prompts[0]], [*texts, "the cat is kind. " * 5])  # longer than anything in training
    np.testing.assert_allclose(longer[:8], whole, rtol=1e-4, atol=1e-5)
    assert np.isfinite(score(["a"], [""])).all()


def test_standardised_heads_have_mean_zero_and_deviation_one_on_the_evaluation_set(runs):
    score = reward_models.load_scorer("key", [str(runs["heads"])], device_mesh(), standardise=True)
    pairs = evaluation_pairs()
    texts = [p[side] for p in pairs for side in ("chosen", "rejected")]
    values = score([p["prompt"] for p in pairs for _ in range(2)], texts)
    np.testing.assert_allclose(values.mean(axis=0), 0.0, atol=1e-3)
    np.testing.assert_allclose(values.std(axis=0), 1.0, rtol=1e-3)


def test_heads_become_one_reward_by_the_function_that_the_config_names(runs):
    plain = reward_models.load_scorer("key", [str(runs["heads"])], device_mesh())(["a"], ["b"])
    entry = {"checkpoint": str(runs["heads"]), "weight": 2.0}
    worst = reward_models.load_reward("key", {**entry, "combine": "worst_case"}, device_mesh())
    second = reward_models.load_reward("key", {**entry, "combine": "one_head", "index": 1}, device_mesh())
    np.testing.assert_allclose(worst(["a"], ["b"]), plain.min(axis=-1), rtol=1e-5)
    np.testing.assert_allclose(second(["a"], ["b"]), plain[:, 1], rtol=1e-5)


def test_a_model_of_steps_scores_lines_and_their_aggregate(runs):
    steps = reward_models.load_step_scorer("key", str(runs["steps"]), device_mesh())
    values, mask = steps(["a", "a"], ["the cat\nis kind", ""])
    assert mask.sum(axis=1).tolist() == [2, 0] and ((values[mask] > 0) & (values[mask] < 1)).all()
    entry = {"checkpoint": str(runs["steps"]), "combine": "step_min"}
    reward = reward_models.load_reward("key", entry, device_mesh())(["a", "a"], ["the cat\nis kind", ""])
    np.testing.assert_allclose(reward, [values[0][mask[0]].min(), 0.0], rtol=1e-5)


@pytest.mark.parametrize(
    "entry,said",
    [
        ({"checkpoint": "nowhere"}, "not the WORKDIR of a finished run.*train a reward model"),
        ({"checkpoint": "heads"}, "combine: missing; the checkpoints give 3 scores"),
        ({"checkpoint": "heads", "combine": "worst_cse"}, "no such function 'worst_cse'; nearest: worst_case"),
        ({"checkpoint": "heads", "combine": "entropic", "gamma": 1}, "gamma: unknown key; allowed:.*beta"),
        ({"checkpoint": "heads", "combine": "step_min"}, "trained on 'pairs', not on 'steps'"),
        ({"checkpoint": ()}, "names no run"),
    ],
)
def test_what_a_reward_entry_gets_wrong_is_said_before_the_first_rollout(runs, entry, said):
    named = entry["checkpoint"]
    entry = {**entry, "checkpoint": str(runs.get(named, named)) if named else named}
    with pytest.raises(ValueError, match=f"config.rewards.x.*{said}|config.rewards.x: {said}"):
        reward_models.load_reward("config.rewards.x", entry, device_mesh())


def online_run(rewards):
    config = tiny_runs.shrink_online(online.base(), 2)
    config.data.source, config.data.completion_length = "corpus", 8
    config.rewards = rewards
    config.advantages, config.objective = {"grpo_advantages": {}}, {"ppo": {"reduction": "token_mean"}}
    return config


def test_a_run_is_rewarded_by_a_checkpoint_and_a_function_together(runs, tmp_path):
    rewards = {
        "model": {"checkpoint": str(runs["heads"]), "combine": "uncertainty_weighted", "penalty": 0.1, "weight": 2.0},
        "letters": {"function": "tiny_runs:letters", "weight": 0.5},
    }
    config = online_run(rewards)
    result = reinforce.run(config, tmp_path)
    assert result["iterations"] == 2 and result["rewards_failed"] == 0
    functions, weights = prompt_sets.rewards(config.rewards)
    models = reward_models.bind(config.rewards, device_mesh())
    prompts, texts = ["Describe the cat: "] * 2, ["the cat is kind.", "x"]
    with reward_models.rewarder(functions, weights, models, config.reward_runner) as rewarder:
        got = rewarder(prompts, texts, [{}, {}])
    own = np.array([tiny_runs.letters(p, t, {}) for p, t in zip(prompts, texts, strict=True)])
    np.testing.assert_allclose(got.rewards, 0.5 * own + 2.0 * models[0][2](prompts, texts), rtol=1e-4)
    assert got.by_function.shape == (2, 2) and not got.failed.any()


def test_a_score_that_is_not_finite_is_a_failure_and_worth_what_the_config_says():
    config = online.base()
    config.reward_runner.on_failure = -3.0
    models = [reward_models.ModelReward("broken", 2.0, lambda prompts, texts: np.array([1.0, np.nan]))]
    with reward_models.rewarder([], [], models, config.reward_runner) as rewarder:
        got = rewarder(["p", "p"], ["a", "b"], [{}, {}])
    assert got.rewards.tolist() == [2.0, -6.0] and got.failed.tolist() == [False, True]
    assert got.report.counts == {"not_finite": 1} and "broken, completion 1" in got.report.first["not_finite"]


def test_what_a_model_reads_may_be_made_of_the_prompts_record():
    seen = []

    def score(prompts, texts):
        seen.extend(zip(prompts, texts, strict=True))
        return np.zeros(len(prompts))

    config = {"gap": {"checkpoint": "here", "reads": "alignment.data.recipes.pit:gap_input"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reward_models, "load_reward", lambda key, entry, device_mesh: score)
        models = reward_models.bind(config, None)
        with pytest.raises(ValueError, match=r"config\.rewards\.gap\.reads: no function 'x:y'"):
            reward_models.bind({"gap": {"checkpoint": "here", "reads": "x:y"}}, None)
    records = [{"question": "q? ", "shown": "old"}, {"question": "r? ", "shown": "older"}]
    with reward_models.rewarder([], [], models, online.base().reward_runner) as rewarder:
        rewarder(["q? old\n", "r? older\n"], ["new", "newer"], records)
    assert seen == [("q? ", "new\nold"), ("r? ", "newer\nolder")]


@pytest.mark.parametrize("scores", [np.ones(1), np.ones(3), np.ones((2, 1)), np.float32(1.0)])
def test_scores_of_the_wrong_length_are_an_error_that_names_the_reward(scores):
    models = [reward_models.ModelReward("short", 1.0, lambda prompts, texts: scores)]
    with (
        reward_models.rewarder([], [], models, online.base().reward_runner) as rewarder,
        pytest.raises(ValueError, match=r"config\.rewards\.short: gave scores of shape \(.*\) for 2 completions"),
    ):
        rewarder(["p", "p"], ["a", "b"], [{}, {}])


# --- voters, heads that are handed on, parameters that stay ----------------------------------------------------------


def test_voters_are_trained_first_and_their_mean_gap_is_the_label(tmp_path):
    config = tiny({"denoised_bt_margin_loss": {}})
    config.voters = tiny({"bt_reward_heads_loss": {}}, heads=4)
    finetune.run(config, tmp_path)
    with np.load(tmp_path / "strength_means_train.npz") as stored:
        votes = dict(zip(stored["ids"].tolist(), stored["values"].tolist(), strict=True))
    score = reward_models.load_scorer("key", [str(tmp_path / "voters")], device_mesh())
    records = corpus.generate("pairs", config.data.corpus_size, config.seed)
    prompts = [r["prompt"] for r in records]
    gaps = score(prompts, [r["chosen"] for r in records]) - score(prompts, [r["rejected"] for r in records])
    np.testing.assert_allclose([votes[i] for i in range(len(records))], gaps.mean(axis=1), rtol=1e-3, atol=1e-4)


def test_voters_start_from_where_the_run_starts_if_both_begin_alike():
    config = denoised_bt_loss.get_config()
    config.lock()  # as the command line does
    assert reward_models.voters_config(config, Path("there")).before_workdir == "there"
    config.voters.seed = 5
    assert reward_models.voters_config(config, Path("there")).before_workdir == ""


def test_voters_of_other_pairs_and_voters_that_nobody_reads_are_errors(tmp_path):
    config = tiny({"denoised_bt_loss": {}})
    config.voters = tiny({"bt_reward_heads_loss": {}}, heads=4)
    config.voters.data.label_noise = 0.5
    with pytest.raises(ValueError, match=r"config\.voters\.data\.label_noise"):
        finetune.run(config, tmp_path)
    config.voters.data.label_noise, config.voters.model.reward_heads = 0.0, 1
    with pytest.raises(ValueError, match="a vote takes two"):
        finetune.run(config, tmp_path)
    config.objective = {"bt_reward_loss": {}}
    with pytest.raises(ValueError, match="no kernel of this objective asks for strength_means"):
        finetune.run(config, tmp_path)


def test_heads_are_handed_on_and_only_what_is_named_is_trained(tmp_path):
    before = tiny({"multi_label_reward_regression": {}}, heads=3, kind="ratings")
    config = common.starting_from(tiny({"armo_gate_loss": {"temperature": 1.0}}, heads=6), before)
    config.before_heads, config.optimizer.only = 3, ("reward_head",)
    finetune.run(config, tmp_path)
    *_, start = from_config.load_run("key", str(tmp_path / "before"), device_mesh())
    *_, end = from_config.load_run("key", str(tmp_path), device_mesh())
    start, end = tiny_runs.leaves(start), tiny_runs.leaves(end)
    head = next(name for name in end if "reward_head" in name)
    np.testing.assert_array_equal(end[head][:, :3], start[head])  # the ratings are held fixed
    assert np.abs(end[head][:, 3:]).max() > 1e-4  # the gate has left 0
    for name in start:
        if name != head:
            np.testing.assert_array_equal(end[name], start[name], err_msg=name)


@pytest.mark.parametrize(
    "change,said",
    [
        ({"before_heads": 9}, r"config\.before_heads: 9 heads do not fit"),
        ({"only": ("reward_haed",)}, r"config\.optimizer\.only: no parameter is called 'reward_haed'"),
        ({"heads": 4}, "armo_gate_loss|multi_label_reward_regression"),
    ],
)
def test_heads_and_names_that_do_not_fit_are_errors(tmp_path, change, said):
    if "heads" in change:
        config = tiny({"multi_label_reward_regression": {}}, heads=change["heads"], kind="ratings")
    else:
        config = common.starting_from(tiny({"armo_gate_loss": {}}, heads=6), tiny({"bt_reward_loss": {}}))
        config.before_heads = change.get("before_heads", 1)
        config.optimizer.only = change.get("only", ())
    with pytest.raises(ValueError, match=said):
        finetune.run(config, tmp_path)
