"""The script of the data recipes, end to end on tiny models: sample, score, make pairs, train on them."""

import json

import numpy as np
import pytest
import tiny_runs

from alignment.data import corpus, formats
from configs import common
from experiments import finetune, make_data


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A model that has learnt to end its sentences."""
    workdir = tmp_path_factory.mktemp("policy")
    config = tiny_runs.shrink(common.sft(), 150)
    config.data.packed, config.data.corpus_size = False, 256
    config.optimizer.learning_rate = 1e-2
    with pytest.MonkeyPatch.context() as patch:
        tiny_runs.one_device(patch)
        finetune.run(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("reward")
    config = tiny_runs.dpo(2, {"bt_reward_loss": {}}, {})
    config.model.reward_heads = 1
    with pytest.MonkeyPatch.context() as patch:
        tiny_runs.one_device(patch)
        finetune.run(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def candidates(policy, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "candidates.jsonl"
    counts = make_data.run(["candidates", f"--policy={policy}", "--samples=8", f"--output={path}"])
    return path, counts


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_candidates_are_scored_and_every_sample_is_accounted_for(candidates, policy, tmp_path):
    path, counts = candidates
    records = lines(path)
    assert counts["prompts"] == 48 and counts["samples"] == 48 * 8
    assert counts["samples"] == counts["kept"] + counts["dropped_unfinished"] + counts["dropped_blank"]
    assert counts["prompts"] == len(records) + counts["prompts_without_a_usable_sample"]
    assert counts["kept"] == sum(len(r["responses"]) for r in records) > 100
    for r in records:
        assert r["rewards"] == [corpus.gold_reward(r["prompt"], text) for text in r["responses"]]
    make_data.run(["candidates", f"--policy={policy}", "--samples=8", f"--output={tmp_path / 'again.jsonl'}"])
    assert (tmp_path / "again.jsonl").read_text() == path.read_text()


def test_every_usable_sample_of_a_teacher_is_a_demonstration(candidates, policy, tmp_path):
    path, counts = candidates
    output = tmp_path / "seq_kd.jsonl"
    got = make_data.run(["seq_kd", f"--policy={policy}", "--samples=8", f"--output={output}"])
    assert got == counts  # the same draws as those of `candidates`
    records, by_prompt = lines(output), {}
    for record in records:
        by_prompt.setdefault(record["prompt"], []).append(record["completion"])
    sampled = {r["prompt"]: r["responses"] for r in lines(path)}
    assert by_prompt == sampled and len(formats.read(str(output), "completion")) == len(records)


def test_rejection_sampling_gives_pairs_that_train(candidates, tmp_path, monkeypatch):
    path, _ = candidates
    output = tmp_path / "rso.jsonl"
    command = ["statistical_rejection_sampling", f"--input={path}", f"--output={output}", "--k=4"]
    counts = make_data.run(command)
    examples = formats.read(output, "pairs")
    assert len(examples) == counts["pairs"] > 20
    for e in examples:
        gap = corpus.gold_reward(e.prompt, e.chosen) - corpus.gold_reward(e.prompt, e.rejected)
        assert e.margin == pytest.approx(gap) and gap > 0
    assert make_data.run([*command, "--seed=1"]) and formats.read(output, "pairs") != examples
    tiny_runs.one_device(monkeypatch)
    config = tiny_runs.dpo(3)
    config.data.source, config.data.eval_source, config.gold.samples = str(output), "corpus", 4
    result = finetune.run(config, tmp_path / "run")
    assert np.isfinite(result["evaluation"]["loss"]) and "win_rate_after" in result


def test_a_reward_model_scores_prompts_of_a_file(policy, reward_model, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in ("zebra? ", "zebra? ", "yak? ")))
    counts = make_data.run(
        ["candidates", f"--policy={policy}", f"--reward_model={reward_model}", f"--input={prompts}", "--samples=6",
         f"--output={tmp_path / 'c.jsonl'}"]
    )  # fmt: skip
    assert counts["prompts"] == 2 and counts["samples"] == 12
    texts = [(r["prompt"], t) for r in lines(tmp_path / "c.jsonl") for t in r["responses"]]
    rewards = [x for r in lines(tmp_path / "c.jsonl") for x in r["rewards"]]
    one_by_one = [make_data.Model("--reward_model", str(reward_model)).of_each([text])[0] for text in texts[:3]]
    np.testing.assert_allclose(one_by_one, rewards[:3], rtol=1e-4, atol=1e-5)
    assert len(set(rewards)) > 1


def test_reward_augmented_pairs_ask_for_the_score_of_their_chosen_side(tmp_path):
    output = tmp_path / "augmented.jsonl"
    counts = make_data.run(["reward_augmented_dpo", "--size=50", f"--output={output}"])
    assert counts["pairs_read"] == 50 and counts["dropped_contradictions"] == 0
    examples = formats.read(output, "pairs")
    assert len(examples) == 2 * (50 - counts["dropped_ties"])
    for one, other in zip(examples[::2], examples[1::2], strict=True):
        (high, prompt), (low, same) = (e.prompt.removeprefix("[").split("] ") for e in (one, other))
        assert prompt == same and (one.chosen, one.rejected) == (other.rejected, other.chosen)
        assert 10 >= int(high) > int(low) >= 1
        assert corpus.gold_reward(prompt, one.chosen) > corpus.gold_reward(prompt, one.rejected)
    make_data.run(["reward_augmented_dpo", "--size=50", "--prompt=system", f"--output={output}"])
    assert formats.read(output, "pairs")[0].prompt[0].role == "system"


def test_mixed_preference_optimization_writes_both_halves(tmp_path):
    output, prompts = tmp_path / "easy.jsonl", tmp_path / "hard.jsonl"
    counts = make_data.run(
        ["mixed_preference_optimization", "--size=60", "--gamma=2.5", f"--output={output}", f"--prompts={prompts}"]
    )
    assert counts["easy_pairs"] + counts["difficult_pairs"] == 60 and counts["difficult_pairs"] > 0
    assert all(e.margin > 2.5 for e in formats.read(output, "pairs"))
    assert len(lines(prompts)) == counts["difficult_prompts"] <= counts["difficult_pairs"]


def test_scores_of_the_file_are_used_and_else_the_reward_model(reward_model, tmp_path):
    source, output = tmp_path / "pairs.jsonl", tmp_path / "easy.jsonl"
    base = {"prompt": "p ", "chosen": "a", "rejected": "b"}
    given = [base | {"chosen_score": 3.0, "rejected_score": 0.0}, base | {"chosen_score": 0.2, "rejected_score": 0.0}]
    source.write_text("".join(json.dumps(r) + "\n" for r in given))
    split = ["mixed_preference_optimization", f"--input={source}", f"--output={output}"]
    split += [f"--prompts={tmp_path / 'hard.jsonl'}"]
    assert make_data.run([*split, "--gamma=1"])["easy_pairs"] == 1
    assert lines(output) == [base]
    source.write_text(json.dumps(base) + "\n")
    assert make_data.run([*split, "--gamma=0", f"--reward_model={reward_model}"])["easy_pairs"] == 1
    with pytest.raises(ValueError, match="not of the corpus"):
        make_data.run([*split, "--gamma=0"])


def test_tree_search_gives_whole_pairs_of_hard_prompts(policy, tmp_path):
    output = tmp_path / "itool.jsonl"
    command = ["itool_preference", f"--policy={policy}", "--size=64", "--share=0.2", "--accept_value=-99"]
    command += ["--temperature=1", "--value_threshold=0.1", f"--output={output}"]
    counts = make_data.run(command)
    examples = formats.read(output, "pairs")
    assert counts["pairs"] == len(examples) > 0 and counts["hard_prompts"] == -(-counts["prompts"] // 5)
    assert counts["branchings"] == (
        counts["pairs"] + counts["dropped_by_limits"] + counts["dropped_unfinished_or_equal"]
    )
    assert len({e.prompt for e in examples}) <= counts["hard_prompts"]
    first = output.read_text()
    make_data.run(command)
    assert output.read_text() == first


def test_pieces_of_a_sample_own_their_tokens_and_priors():
    from alignment.data.tokenizers import ByteTokenizer
    from experiments.sampling import Drawn

    sample = Drawn("ab cd", list(b"ab cd"), [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0], True)
    first, last = make_data._steps(ByteTokenizer(), ["ab ", "cd"], sample, True)
    assert bytes(first.tokens) == b"ab " and bytes(last.tokens) == b"cd" and (first.ends, last.ends) == (False, True)
    np.testing.assert_allclose([first.prior, last.prior], np.exp([-2.0, -5.0]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["candidates", "--policy=/nowhere"], ["--policy", "/nowhere"]),
        (["statistical_rejection_sampling", "--input=BAD"], ["BAD:2", "'rewards'", "missing"]),
        (["statistical_rejection_sampling", "--input=/nowhere.jsonl"], ["/nowhere.jsonl", "no such file"]),
        (["statistical_rejection_sampling", "--input=GOOD", "--beta=0"], ["beta must lie in"]),
        (["statistical_rejection_sampling", "--input=GOOD"], ["nothing is left"]),
        (["mixed_preference_optimization", "--gamma=-1", "--prompts=P"], ["gamma must lie in"]),
    ],
)
def test_what_is_wrong_is_one_message(tmp_path, monkeypatch, arguments, words):
    good = {"prompt": "p", "responses": ["a"], "rewards": [1.0]}
    (tmp_path / "GOOD").with_suffix(".jsonl").write_text(json.dumps(good) + "\n")
    (tmp_path / "BAD.jsonl").write_text(json.dumps(good) + '\n{"prompt": "p", "responses": []}\n')
    arguments = [a.replace("BAD", str(tmp_path / "BAD.jsonl")).replace("GOOD", str(tmp_path / "GOOD.jsonl"))
                 .replace("=P", f"={tmp_path / 'p.jsonl'}") for a in arguments]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["make_data", *arguments, f"--output={tmp_path / 'out.jsonl'}"])
    with pytest.raises(SystemExit) as error:
        make_data.main()
    message = str(error.value)
    assert message.startswith("error: ") and "\n" not in message
    assert all(w.replace("BAD", str(tmp_path / "BAD.jsonl")) in message for w in words), message
    assert not (tmp_path / "out.jsonl").exists()


def test_contexts_and_trees_make_pairs_that_can_be_read(tmp_path):
    counts = make_data.run(["context_conditioned_bt", "--size=5", f"--output={tmp_path / 'contexts.jsonl'}"])
    assert counts == {"pairs": 5, "records": 10}
    examples = formats.read(tmp_path / "contexts.jsonl", "pairs")
    assert [e.prompt.split("!")[0] for e in examples[:2]] == ["Praise", "Blame"]
    assert (examples[0].chosen, examples[0].rejected) == (examples[1].rejected, examples[1].chosen)
    counts = make_data.run(["tree_preference_data", "--pairs=4", f"--output={tmp_path / 'trees.jsonl'}"])
    assert counts["drawn"] == 4 * len(corpus.prompts()) == counts["kept"] + counts["equal"]
    assert len(formats.read(tmp_path / "trees.jsonl", "pairs")) == counts["kept"]
