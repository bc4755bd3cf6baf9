"""The generated corpus: a strict gold reward, exact noise, splits that do not meet."""

import json

import numpy as np
import pytest

from alignment.data import corpus, formats, rows
from alignment.data.tokenizers import ByteTokenizer

CAT = "Describe the cat: "


@pytest.mark.parametrize(
    ("completion", "quality"),
    [
        ("the cat is kind.", 2),
        ("the cat is kind and quick.", 3),
        ("the cat is kind, quick and calm.", 4),
        ("the dog is kind and quick.", 1),
        ("the cat is kind and rude.", 1),
        ("the dog is rude, slow and mean.", -4),
        ("the cat is kind and quick as we know.", 3),
        ("", -5),
        ("the cat is kind and quick", -5),
        ("The cat is kind.", -5),
        (" the cat is kind.", -5),
        ("the cat is kind and kind.", -5),
        ("the cat is kind, kind and quick.", -5),
        ("the cat is kind and quick and calm.", -5),
        ("the cat is kind, quick, calm and brave.", -5),
        ("the cat is purple.", -5),
        ("the cat is kind.\n", -5),
        ("the cat is kind. the cat is quick.", -5),
        ("__import__('os').abort()", -5),
    ],
)
def test_gold_reward_is_quality_minus_length(completion, quality):
    assert corpus.gold_reward(CAT, completion) == pytest.approx(quality - 0.02 * len(completion))


def test_gold_reward_refuses_a_foreign_prompt():
    with pytest.raises(ValueError, match="not of the corpus"):
        corpus.gold_reward("Describe the zebra: ", "the cat is kind.")


def test_splits_share_no_prompt_and_both_have_every_noun_and_template():
    train, test = corpus.prompts("train"), corpus.prompts("test")
    assert not set(train) & set(test) and (len(train), len(test)) == (48, 12)
    for split in (train, test):
        assert {noun for noun in corpus.NOUNS if any(f" {noun}" in p for p in split)} == set(corpus.NOUNS)
        assert all(any(p.startswith(t.split("{")[0]) for p in split) for t in corpus.TEMPLATES)


@pytest.mark.parametrize("kind", corpus.KINDS)
def test_every_kind_is_deterministic_readable_and_fits(kind):
    records = corpus.generate(kind, 200, 3)
    assert records == corpus.generate(kind, 200, 3) != corpus.generate(kind, 200, 4)
    examples = formats.from_records(records, kind)
    if kind == "chat":
        assert {m.role for e in examples for m in e.prompt} == {"user"}
        return
    rows.tokenize(
        examples, ByteTokenizer(), prompt_length=corpus.PROMPT_LENGTH, completion_length=corpus.COMPLETION_LENGTH
    )


def test_longest_possible_texts_fit():
    adjective = max(corpus.POSITIVE + corpus.NEGATIVE, key=len)
    noun, clause = max(corpus.NOUNS, key=len), max(corpus.CLAUSES, key=len)
    endings = (f"{adjective} and {adjective}{clause}.", f"{adjective}, {adjective} and {adjective}.")
    longest = [f"the {noun} is {ending}" for ending in endings]
    assert max(map(len, longest)) < corpus.COMPLETION_LENGTH
    assert max(len(p) for s in corpus.SPLITS for p in corpus.prompts(s)) < corpus.PROMPT_LENGTH


@pytest.mark.parametrize("noise", [0.0, 0.2, 1.0])
def test_share_of_swapped_pairs_is_the_label_noise(noise):
    records = corpus.generate("pairs", 2000, 0, noise)
    gold = {side: [corpus.gold_reward(r["prompt"], r[side]) for r in records] for side in ("chosen", "rejected")}
    gaps = np.subtract(gold["chosen"], gold["rejected"])
    assert np.all(np.abs(gaps) > 0.01)
    assert np.mean(gaps < 0) == pytest.approx(noise, abs=3 * np.sqrt(noise * (1 - noise) / 2000))
    np.testing.assert_allclose([r["margin"] for r in records], np.abs(gaps), atol=1e-6)
    np.testing.assert_allclose([r["preference_proportion"] for r in records], 1 / (1 + np.exp(-gaps)), atol=1e-6)


def test_demonstrations_are_mixed_as_documented():
    records = corpus.generate("completion", 4000, 1)
    right = [corpus._PROMPT_NOUN[r["prompt"]] in r["completion"].split()[1] for r in records]
    rewards = np.array([corpus.gold_reward(r["prompt"], r["completion"]) for r in records])
    assert np.mean(right) == pytest.approx(0.75, abs=0.03)
    assert rewards.min() > corpus.MALFORMED  # no demonstration is malformed
    # 0.5 for the noun, 0 for balanced adjectives, about 31 bytes of length
    assert rewards.mean() == pytest.approx(0.5 - 0.02 * np.mean([len(r["completion"]) for r in records]), abs=0.1)


def test_list_labels_order_the_rewards_and_span_zero_to_one():
    for record in corpus.generate("lists", 100, 0, responses=5):
        rewards = [corpus.gold_reward(record["prompt"], text) for text in record["responses"]]
        assert min(record["labels"]) == 0 and max(record["labels"]) == 1 and len(rewards) == 5
        np.testing.assert_allclose(
            np.interp(rewards, [min(rewards), max(rewards)], [0, 1]), record["labels"], atol=1e-6
        )


@pytest.mark.parametrize("noise", [0.0, 0.2, 1.0])
def test_verdicts_tell_gold_reward_above_the_threshold_but_for_the_noise(noise):
    records = corpus.generate("unpaired", 2000, 0, noise)
    truth = np.array([corpus.gold_reward(r["prompt"], r["completion"]) > corpus.DESIRABLE for r in records])
    wrong = truth != np.array([r["label"] for r in records])
    assert np.mean(wrong) == pytest.approx(noise, abs=3 * np.sqrt(noise * (1 - noise) / 2000))
    assert np.mean(truth) == pytest.approx(0.6, abs=0.04)  # as documented; both verdicts must be common


def test_gold_of_a_triple_is_another_and_mostly_better_answer_and_noise_swaps_the_pair():
    for noise in (0.0, 1.0):
        records = corpus.generate("triples", 300, 0, noise)
        gold, chosen, rejected = (
            np.array([corpus.gold_reward(r["prompt"], r[s]) for r in records]) for s in ("gold", "chosen", "rejected")
        )
        assert np.all(chosen > rejected) if noise == 0 else np.all(chosen < rejected)
        assert np.mean(gold > np.maximum(chosen, rejected)) > 0.75
        assert all(r["gold"] not in (r["chosen"], r["rejected"]) for r in records)


def test_streams_of_the_older_kinds_are_what_they_were():
    """Measured results stand in the configs: a new kind must not change the records of another."""
    assert corpus.KINDS[:6] == ("completion", "chat", "pairs", "lists", "unpaired", "triples")


def test_arguments_out_of_range_are_errors():
    for bad in (
        lambda: corpus.generate("dpo", 1, 0),
        lambda: corpus.generate("pairs", 0, 0),
        lambda: corpus.generate("pairs", 1, 0, 1.5),
        lambda: corpus.generate("completion", 1, 0, 0.1),
        lambda: corpus.generate("pairs", 1, 0, split="dev"),
        lambda: corpus.generate("lists", 1, 0, responses=1),
    ):
        with pytest.raises(ValueError, match=r"not one of|must be|needs labels"):
            bad()


def test_written_files_read_back(tmp_path):
    paths = corpus.write(tmp_path, size=20, test_size=5, label_noise=0.5)
    for (kind, split), path in paths.items():
        noise = 0.5 if split == "train" and kind not in corpus.UNLABELLED else 0.0
        records = corpus.generate(kind, 20 if split == "train" else 5, 0, noise, split)
        assert [json.loads(line) for line in path.read_text().splitlines()] == records
        assert formats.read(path, kind) == formats.from_records(records, kind)


def test_ratings_say_what_the_gold_reward_adds_up():
    for record in corpus.generate("ratings", 200, 0):
        noun, adjectives, verbosity = record["ratings"]
        if None not in record["ratings"]:
            expected = noun + adjectives - corpus.LENGTH_PENALTY * 20 * verbosity
            assert record["reward"] == pytest.approx(expected, abs=1e-5)
            gold = corpus.gold_reward(record["prompt"], record["completion"])
            assert gold == pytest.approx(record["reward"], abs=1e-5)


def test_steps_are_the_demonstrations_parts_with_their_own_labels():
    for record in corpus.generate("steps", 200, 0):
        (named, *said), (right, *kind) = record["steps"], record["labels"]
        assert right == float(named.split()[-1] == corpus._PROMPT_NOUN[record["prompt"]])
        assert kind == [float(step.split()[-1] in corpus.POSITIVE) for step in said] and said


def test_samples_are_better_than_the_pairs_beside_them():
    records = corpus.generate("sampled_pairs", 200, 0)
    mean = {
        key: np.mean([corpus.gold_reward(r["prompt"], t) for r in records for t in np.atleast_1d(r[key]).tolist()])
        for key in ("chosen", "samples")
    }
    assert mean["samples"] > mean["chosen"] + 0.5


def test_a_tie_is_a_pair_that_differs_in_length_alone():
    for record in corpus.generate("pairs", 300, 0, 0.5):
        assert record["tie"] == (record["margin"] < corpus.TIE)
