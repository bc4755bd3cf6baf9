"""Critiques, judging tasks and revealed answers of generated tasks."""

import itertools

import numpy as np
import pytest

from alignment.data.tokenizers import ByteTokenizer
from alignment.rewards import feedback, spans, tasks
from experiments import sampling

RECORD = {"prompt": "sort 52731: ", "answer": "12357", "task": "sorting"}


def labelled(completion):
    found = feedback.critique(RECORD["prompt"], completion, RECORD)
    return spans.character_labels(completion, spans.byte_offsets(completion), found).tolist()


def test_the_critique_praises_what_agrees_in_its_place_and_blames_the_rest():
    assert labelled("12357.") == [1] * 6
    assert labelled("12537.") == [1, 1, -1, -1, -1, -1]
    assert labelled("x") == [-1]
    assert labelled("") == []
    assert labelled("12357.7") == [1] * 6 + [-1]


def test_a_repeated_digit_is_judged_where_it_stands():
    record = RECORD | {"answer": "112"}
    assert feedback.critique("", "121", record) == [(0, 1, 1), (1, 3, -1)]


@pytest.mark.parametrize("text", ["12537.", "1é2", "", "😀7"])
@pytest.mark.parametrize("ended", [True, False])
def test_tokens_stand_where_decoding_their_beginnings_puts_them(text, ended):
    tokenizer = ByteTokenizer()
    ids = np.array([*tokenizer.encode(text), *([tokenizer.eos_id] if ended else [])], np.int32)
    offsets = sampling.offsets(tokenizer, ids)
    assert offsets[: len(ids) - ended] == spans.byte_offsets(text)
    assert not ended or offsets[-1] == (len(text), len(text))


def test_bytes_that_are_no_text_have_places_inside_the_text():
    tokenizer = ByteTokenizer()
    ids = np.array([0xFF, 0xC3, 0x28, 49, 0xE2, 0x82], np.int32)
    text = tokenizer.decode(ids)
    offsets = sampling.offsets(tokenizer, ids)
    assert all(0 <= a <= b <= len(text) for a, b in offsets)
    assert [a for a, _ in offsets] == sorted(a for a, _ in offsets)
    feedback_spans = feedback.critique("", text, RECORD)
    assert (spans.character_labels(text, offsets, feedback_spans) == -1).all()


# --- judging tasks (SPARK) --------------------------------------------------------------------------------------------

PROMPTS = ["sort 31: ", "sort 542: ", "sort 9: "]
RECORDS = [{"answer": a, "task": "sorting"} for a in ("13", "245", "9")]
COMPLETIONS = [["13.", "31.", "13"], ["x", "y", "z"], ["9", "9.", "9. "]]
REWARDS = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1]], np.float32)


def offered(rewards=REWARDS, count=600, seed=0):
    rng = np.random.default_rng(seed)
    return list(itertools.islice(feedback.judging_tasks(PROMPTS, RECORDS, COMPLETIONS, rewards, rng), count))


def pairs(made):
    return {text for text, _ in made if " or " in text}


def test_informative_pairs_are_the_right_times_the_wrong_ones_in_both_orders():
    made = offered()
    # Two of the first group's completions are right and one is wrong; their stripped texts differ.
    assert len(pairs(made)) == 2 * (2 * 1)
    for text, record in made:
        if " or " in text:
            first = text.removeprefix("sort 31: ").split(" or ")[0]
            assert record["verdict"] == ("1" if first.startswith("13") else "2")
    verdicts = [record["verdict"] for text, record in made if " or " in text]
    assert 0.35 < np.mean([v == "1" for v in verdicts]) < 0.65


def test_groups_that_are_all_alike_give_no_pairs_but_pointwise_tasks():
    alike = np.array([[1, 1, 1], [0, 0, 0], [1, 1, 1]], np.float32)
    made = offered(alike)
    assert not pairs(made)
    pointwise = [(t, r) for t, r in made if t.endswith(" ok? ")]
    assert {t[: t.index(": ") + 2] for t, _ in pointwise} == set(PROMPTS)
    right = offered(np.ones((3, 3), np.float32))
    assert all(t.endswith(" ok? ") for t, _ in right), "nothing is wrong, so there is nothing to reflect on"


def test_targets_come_from_the_verifier_alone():
    for text, record in offered():
        if text.endswith(" ok? "):
            prompt = text[: text.index(": ") + 2]
            group, said = PROMPTS.index(prompt), text.removeprefix(prompt).removesuffix(" ok? ")
            index = [c.strip() for c in COMPLETIONS[group]].index(said)
            assert record["verdict"] == str(int(REWARDS[group, index] > 0))
            for verdict in ("0", "1"):
                expected = float(verdict == record["verdict"])
                assert feedback.solved_or_judged(text, f"{verdict}.", record) == expected


def test_reflections_are_of_wrong_answers_and_are_scored_by_the_task():
    made = [(t, r) for t, r in offered() if t.endswith(" no: ")]
    assert {t for t, _ in made} == {"sort 31: 31. no: ", *(f"sort 542: {c} no: " for c in "xyz")}
    for text, record in made:
        assert "verdict" not in record
        assert feedback.solved_or_judged(text, f"{record['answer']}.", record) == 1.0
        assert feedback.solved_or_judged(text, "0", record) == 0.0


def test_the_kinds_take_turns_and_nothing_comes_of_nothing():
    kinds = ["ok? " if t.endswith("ok? ") else "no: " if t.endswith("no: ") else "or" for t, _ in offered(count=9)]
    assert kinds == ["ok? ", "or", "no: "] * 3
    assert list(feedback.judging_tasks([], [], [], np.zeros((0, 4)), np.random.default_rng(0))) == []


# --- answers revealed (ExPO) ------------------------------------------------------------------------------------------


def test_a_revealed_prompt_shows_the_answer_and_other_tasks_are_refused():
    for record in tasks.generate("sorting", 50, 0, difficulty=2):
        shown = feedback.revealed(record["prompt"], record)
        assert shown == f"sort {record['answer']}: " and len(shown) == len(record["prompt"])
    with pytest.raises(ValueError, match="'addition' cannot be revealed"):
        feedback.revealed("1+1=", {"task": "addition", "answer": "2"})
