"""Decoding from finished runs: files that others read, tables that people read, and what is refused."""

import json

import jax
import numpy as np
import pytest
import tiny_runs
from ml_collections import ConfigDict

from alignment.data import corpus
from alignment.decoding import sampler
from configs import generate as generate_config
from experiments import generate


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
    tiny_runs.one_device(monkeypatch)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tiny_runs.finished_runs(tmp_path_factory.mktemp("runs"))


def config_of(runs, decoders, **models):
    config = generate_config.base()
    config.models = ConfigDict({name: str(runs[run]) for name, run in (models or {"policy": "policy"}).items()})
    config.decoders = ConfigDict(decoders)
    config.rewards = ConfigDict({"letters": {"function": "tiny_runs:letters"}})
    config.data.prompts, config.data.completion_length, config.timing = 3, 6, False
    return config


def outputs(workdir):
    return [json.loads(line) for line in (workdir / "outputs.jsonl").read_text().splitlines()]


def test_outputs_stand_in_a_file_and_side_by_side(runs, tmp_path, capsys):
    best = {"decoder": "best_of_n", "model": "policy", "n": 8, "temperature": 1.5, "top_p": 1.0}
    config = config_of(runs, {"greedy": {"decoder": "sample", "model": "policy", "temperature": 0.0}, "best": best})
    result = generate.run(config, tmp_path)
    lines = outputs(tmp_path)
    assert [x["model"] for x in lines] == ["best"] * 3 + ["greedy"] * 3  # a config keeps names in alphabetical order
    assert [x["prompt"] for x in lines[:3]] == corpus.prompts("test")[:3]
    for x in lines:
        assert x["reward"] == pytest.approx(tiny_runs.letters(x["prompt"], x["output"], {}))
    for x in lines[:3]:
        assert len(x["scores"]) == 8 and x["reward"] == pytest.approx(max(x["scores"]))
    shown = capsys.readouterr().out
    assert "tokens/s (with compilation)" in shown and "prompt" in shown and " | greedy" in shown
    table = (tmp_path / "table.md").read_text()
    assert table.splitlines()[0] == "| prompt | best | greedy |" and len(table.splitlines()) == 2 + 3 + 1
    means = {name: np.mean([x["reward"] for x in lines if x["model"] == name]) for name in ("best", "greedy")}
    for name, mean in means.items():
        assert result["decoders"][name]["mean_reward"] == pytest.approx(mean)
    again = tmp_path / "again"
    generate.run(config, again)
    assert outputs(again) == lines


def test_outputs_say_their_kl_from_the_reference_where_it_is_known(runs, tmp_path):
    """Of the reference it is 0, of a guided model what its two ends say; a checkpoint may be named by its step."""
    guided = {"decoder": "rlg", "base": "policy", "tuned": "tuned"}
    best = {"decoder": "best_of_n", "model": "policy", "n": 3, "temperature": 1.0, "top_p": 1.0}
    config = config_of(
        runs,
        {
            "own": {"decoder": "sample", "model": "policy"}, "tuned": {"decoder": "sample", "model": "tuned"},
            "none": {**guided, "scale": 0.0}, "one": {**guided, "scale": 1.0}, "best": best,
            "best of tuned": {**best, "model": "tuned"}, "greedy": {"decoder": "sample", "model": "policy",
            "temperature": 0.0},
        },
        policy="policy", tuned="tuned",
    )  # fmt: skip
    config.models.tuned = f"{config.models.tuned}/checkpoints/1"
    config.reference, config.data.samples = "policy", 2
    result = generate.run(config, tmp_path)
    kls = {}
    for x in outputs(tmp_path):
        kls.setdefault(x["model"], []).append(x.get("kl"))
    assert all(len(v) == 3 * 2 for v in kls.values())
    for name in ("own", "none"):
        np.testing.assert_allclose(kls[name], 0, atol=1e-4)
    np.testing.assert_allclose(kls["one"], kls["tuned"], atol=1e-4)
    assert np.abs(kls["tuned"]).max() > 1e-3
    np.testing.assert_allclose(kls["best"], np.log(3) - 2 / 3)
    assert set(kls["best of tuned"]) == set(kls["greedy"]) == {None}
    assert result["decoders"]["tuned"]["kl"] == pytest.approx(np.mean(kls["tuned"]))
    assert "kl" not in result["decoders"]["greedy"]
    config.reference = "other"
    with pytest.raises(ValueError, match=r"config\.reference: 'other' is not one of config\.models: policy, tuned"):
        generate.run(config, tmp_path / "refused")


def test_a_table_shows_any_text_as_it_is():
    w = generate.Written("a|b\n<i>`\\", 3, {"reward": 1.0})
    prompt = generate.Prompt(0, [{"role": "user", "content": "x|y"}], [], {})
    result = {"m": {"tokens_per_second": 1.0, "mean_reward": 1.0}}
    row = generate.markdown([prompt], {"m": [w]}, result).splitlines()[2]
    assert row == "| user: x\\|y | a\\|b<br>&lt;i>\\`\\\\ *(1.00)* |"
    shown = generate.side_by_side([prompt], {"m": [generate.Written("\x1b[31mred\x07 " * 9, 3)]}, 20)
    assert "\x1b" not in shown and "\x07" not in shown
    assert all(len(line) <= 2 * 20 + 3 for line in shown.splitlines())


def test_prompts_come_from_files_with_their_other_fields(runs, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"say {i} ", "answer": str(i)}) + "\n" for i in range(4)))
    config = config_of(runs, {"majority": {"decoder": "self_consistency", "model": "policy", "n": 4}})
    config.data.source, config.data.prompts = str(path), 0
    generate.run(config, tmp_path)
    assert [x["prompt"] for x in outputs(tmp_path)] == [f"say {i} " for i in range(4)]
    assert all(1 <= x["votes"] <= 4 for x in outputs(tmp_path))


@pytest.mark.parametrize(
    ("decoders", "message"),
    [
        ({"a": {"decoder": "smaple", "model": "policy"}}, "config.decoders.a.decoder: 'smaple' is not one of args, "),
        ({"a": {"decoder": "sample", "model": "policy", "n": 3}}, "config.decoders.a.n: the decoder sample has no"),
        ({"a": {"decoder": "sample"}}, "config.decoders.a.model: missing"),
        ({"a": {"decoder": "sample", "model": "other"}}, "config.decoders.a: model: 'other' is not one of config.mod"),
        ({"a": {"decoder": "best_of_n", "model": "policy", "n": 0}}, "config.decoders.a: n: must be at least 1, got 0"),
        ({"a": {"decoder": "mcts", "model": "policy", "simulations": 0, "block": 2}}, "simulations must be an integer"),
        ({"a": {"decoder": "step_search", "model": "policy", "block": 7}}, "block: must be between 1 and 6"),
        ({"a": {"decoder": "self_refine", "model": "policy", "rounds": 0}}, "rounds must be an integer"),
        ({"a": {"decoder": "speculate", "target": "policy", "draft": "policy", "proposals": 0}}, "proposals must be"),
        ({"a": {"decoder": "args", "base": "policy", "reward": "policy"}}, "no reward_head"),
        ({"a": {"decoder": "genarm", "base": "policy", "guides": ("policy",), "alphas": (1.0, 2.0)}}, "alphas: 2 num"),
        ({"a": {"decoder": "uld", "target": "policy", "assistant": "policy", "alpha": -1.0}}, "alpha must lie in"),
        ({}, "config.decoders: empty"),
    ],
)
def test_what_cannot_be_decoded_is_named(runs, tmp_path, decoders, message):
    with pytest.raises(ValueError, match=message):
        generate.run(config_of(runs, decoders), tmp_path)


def test_a_search_without_anything_to_look_for_and_a_missing_run_are_named(runs, tmp_path):
    config = config_of(runs, {"a": {"decoder": "best_of_n", "model": "policy", "n": 2}})
    config.rewards = ConfigDict()
    with pytest.raises(ValueError, match=r"config\.decoders\.a: it looks for the best by config\.scores"):
        generate.run(config, tmp_path)
    config.models.policy = str(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"config\.models\.policy: .*nowhere is neither"):
        generate.run(config, tmp_path)


class OtherWords:
    vocab_size, eos_id, pad_id = 320, 258, 256

    def encode(self, text):
        return [7] * len(text)

    def prefix_ids(self, chat):
        return []


def test_a_guide_of_another_tokenizer_is_refused():
    bytes_ = generate.from_config.load_tokenizer(generate_config_of_bytes())
    prompt = generate.Prompt(0, "abc", [1], {})
    generate.check_tokenizers({"base": bytes_, "guide": bytes_}, [prompt])
    with pytest.raises(ValueError, match="base and guide have different tokenizers"):
        generate.check_tokenizers({"base": bytes_, "guide": OtherWords()}, [prompt])


def generate_config_of_bytes():
    return ConfigDict({"data": {"tokenizer": ""}, "model": {"hugging_face": ""}})


def test_a_row_with_nothing_left_to_draw_is_an_error(runs, tmp_path, monkeypatch):
    nothing = lambda logits, **_: logits["model"] - np.inf  # noqa: E731
    monkeypatch.setattr(sampler, "only", nothing)
    config = config_of(runs, {"a": {"decoder": "sample", "model": "policy"}})
    with jax.debug_nans(False), pytest.raises(ValueError, match="left no token to draw in row 0"):
        generate.run(config, tmp_path)
