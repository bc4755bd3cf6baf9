"""Fictional authors: splits that share no author, answers that agree with their facts, readable records."""

import pytest

from alignment.data import authors, formats, rows
from alignment.data.tokenizers import ByteTokenizer


def test_splits_share_no_author_and_full_is_forget_and_retain():
    known = {split: authors.facts(split) for split in authors.SPLITS}
    prompts = {split: {r["prompt"] for r in records} for split, records in known.items()}
    assert known["full"] == known["forget"] + known["retain"]
    assert not prompts["full"] & prompts["holdout"] and not prompts["forget"] & prompts["retain"]
    for split, count in authors.COUNTS.items():
        assert len(prompts[split]) == len(known[split]) == count * authors.QUESTIONS


def test_wrong_answers_differ_from_the_truth_in_the_fact_alone():
    for record in authors.facts("full"):
        answers = [record["paraphrase"], *record["wrong"]]
        assert len(set(answers)) == 1 + authors.WRONG and record["completion"] not in answers
        assert len({a.split(" ")[0] for a in answers}) == 1
    assert authors.facts("full") == authors.facts("full") != authors.facts("full", seed=1)


def test_the_records_fit_the_lengths_and_are_read_as_they_are():
    tokenizer, sizes = ByteTokenizer(), {"prompt_length": authors.PROMPT_LENGTH}
    sizes["completion_length"] = authors.COMPLETION_LENGTH
    pairs = authors.forget_and_retain(40, 0)
    kept, _ = rows.tokenize(formats.from_records(pairs, "unlearning"), tokenizer, **sizes)
    assert len(kept) == 40 and len(kept[0].prompts) == 3
    assert {r["prompt"] for r in pairs} == {r["prompt"] for r in authors.facts("forget")}
    assert {r["retain_prompt"] for r in pairs} <= {r["prompt"] for r in authors.facts("retain")}
    for split in authors.SPLITS:
        for field in ("completion", "paraphrase"):
            records = [{"prompt": r["prompt"], "completion": r[field]} for r in authors.facts(split)]
            rows.tokenize(formats.from_records(records, "completion"), tokenizer, **sizes)


def test_the_assistant_learns_right_answers_to_forget_and_wrong_ones_among_those_it_says_nothing_on():
    records = authors.generate("unlearning", 80, 0, "train", "assistant")
    lost = {r["prompt"]: r for r in authors.facts("forget")}
    assert {r["forget"] == lost[r["prompt"]]["paraphrase"] for r in records} == {True, False}
    for i, record in enumerate(records):
        assert "chosen" not in record
        assert (record["retain_prompt"] in lost) == bool(i % 2)
        if i % 2:
            assert record["retain"] in lost[record["retain_prompt"]]["wrong"]


def test_refusals_are_of_the_forget_authors_and_the_guarded_split_has_the_retain_set_beside_them():
    lost = {r["prompt"] for r in authors.facts("forget")}
    refused = authors.generate("completion", len(lost), 0, "train", "refused")
    assert {r["prompt"] for r in refused} == lost and {r["completion"] for r in refused} == set(authors.REFUSALS)
    both = authors.generate("completion", len(lost) + len(authors.facts("retain")), 0, "train", "guarded")
    assert both[: len(lost)] == refused
    assert {r["prompt"] for r in both} == lost | {r["prompt"] for r in authors.facts("retain")}


def test_the_kind_has_to_go_with_the_source():
    assert len(authors.generate("completion", 7, 0, "train", "retain")) == 7
    with pytest.raises(ValueError, match="kind unlearning goes with authors and"):
        authors.generate("pairs", 7, 0, "train")
    with pytest.raises(ValueError, match="not one of full, forget"):
        authors.generate("completion", 7, 0, "train", "all")
