"""Frozen actors that read hints and reflections, and the simplification reward on generated sentences."""

import numpy as np
import pytest

from alignment.policy_gradients import return_improvements
from alignment.rewards import assisted_tasks, simplification, tasks
from alignment.rewards.readability import sigmoid


def records(task, count=200, difficulty=2, split="train"):
    return tasks.generate(task, count, 0, split, difficulty)


# --- directional stimulus ---------------------------------------------------------------------------------------------


def test_summaries_tell_facts_that_the_hint_names_and_no_others():
    prompt = "k3 b7 q1 d9 e0: "
    for summary in assisted_tasks.summaries(prompt, "bdz.", calls=50):
        assert set(summary) <= {"b7", "d9"}
    told = [len(s) for s in assisted_tasks.summaries(prompt, "bdz.", calls=2000)]
    assert np.mean(told) == pytest.approx(2 * (1 - assisted_tasks.DROPPED), abs=0.05)


def test_right_hints_are_worth_more_than_wrong_ones_and_none_is_worth_nothing():
    means = {}
    for kind, hint in {
        "right": lambda r: r["answer"],
        "half": lambda r: r["answer"][:1],
        "all": lambda r: r["prompt"],
        "none": lambda r: "",
        "wrong": lambda r: "".join(c for c in r["prompt"] if c.isalpha() and c not in r["answer"]),
    }.items():
        means[kind] = np.mean([assisted_tasks.stimulus(r["prompt"], hint(r), r) for r in records("keywords")])
    assert means["none"] == means["wrong"] == 0.0
    assert means["right"] > 0.9 > means["all"] > means["half"] > 0.3


def test_rewards_are_the_same_for_the_same_texts():
    record = records("keywords")[0]
    values = {assisted_tasks.stimulus(record["prompt"], "ab", record) for _ in range(5)}
    assert len(values) == 1


def test_hits_of_a_hint_count_and_misses_count_against_it():
    record = {"answer": "bd"}
    assert assisted_tasks.hint_hits("", "bdx.", record) == 1.0
    assert assisted_tasks.hint_hits("", "", record) == 0.0


def test_a_summariser_that_does_not_read_the_hint_gives_hints_no_gradient_in_expectation():
    """REINFORCE over hints whose reward is noise that they have no part in: the mean gradient is 0."""
    rng = np.random.default_rng(0)
    policy = np.array([0.5, 0.3, 0.2])
    drawn = rng.choice(3, size=200_000, p=policy)
    rewards = rng.random(len(drawn))  # of a black box that ignores z
    gradient = np.mean(rewards[:, None] * (np.eye(3)[drawn] - policy), axis=0)
    np.testing.assert_allclose(gradient, 0, atol=5e-3)


# --- retrospection ----------------------------------------------------------------------------------------------------


def test_the_actor_takes_the_digits_that_it_is_told_and_keeps_its_own_elsewhere():
    heeded = [assisted_tasks.next_attempt("4711", "5?2", f"p{i}") for i in range(400)]
    assert {a[1] for a in heeded} == {"7"} and {a[3] for a in heeded} == {"1"}
    assert np.mean([a[0] == "5" for a in heeded]) == pytest.approx(1 - assisted_tasks.DROPPED, abs=0.06)
    assert {a[0] for a in heeded} == {"4", "5"} and {a[2] for a in heeded} == {"1", "2"}
    assert assisted_tasks.next_attempt("47", "", "p") == "47"


def test_the_answer_improves_and_the_last_attempt_again_changes_nothing():
    for record in records("retrospection"):
        prompt, before = record["prompt"], record["attempt"]
        assert assisted_tasks.improvement(prompt, before, record) == 0.0
        assert assisted_tasks.improvement(prompt, "", record) == 0.0
        assert assisted_tasks.improvement(prompt, record["answer"], record) >= 0.0
        assert assisted_tasks.score(before, record["answer"]) < 1, "a solved task has nothing to gain"
    gains = [assisted_tasks.improvement(r["prompt"], r["answer"], r) for r in records("retrospection")]
    room = [1 - assisted_tasks.score(r["attempt"], r["answer"]) for r in records("retrospection")]
    assert np.mean(gains) == pytest.approx((1 - assisted_tasks.DROPPED) * np.mean(room), abs=0.05)


def test_the_reward_of_a_reflection_is_the_difference_of_two_returns():
    record = records("retrospection")[3]
    reflection = record["answer"][:2]
    attempts = [record["attempt"], assisted_tasks.next_attempt(record["attempt"], reflection, record["prompt"])]
    before, after = (np.float32(assisted_tasks.score(a, record["answer"])) for a in attempts)
    expected = float(return_improvements(before, after))
    assert assisted_tasks.improvement(record["prompt"], reflection, record) == pytest.approx(expected)


# --- plain words ------------------------------------------------------------------------------------------------------


def test_the_classifier_tells_learned_from_plain_sentences_that_it_has_not_seen():
    held_out = records("plain_words", split="test")
    right = [simplification.log_odds(r["source"]) < 0 for r in held_out]
    right += [simplification.log_odds(r["answer"]) > 0 for r in held_out]
    assert np.mean(right) > 0.9


def test_the_fit_is_at_the_minimum_of_its_cross_entropy():
    train = records("plain_words", 400)
    texts = [r["source"] for r in train] + [r["answer"] for r in train]
    rows, labels = np.stack([simplification.features(t) for t in texts]), np.repeat([0.0, 1.0], len(train))
    weights = simplification.fit(texts, labels)

    gradient = rows.T @ (1 / (1 + np.exp(-rows @ weights)) - labels) / len(rows) + simplification.RIDGE * weights
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    assert np.abs(rows.T @ (0.5 - labels) / len(rows)).max() > 0.1, "that of no classifier at all is not"


def test_the_reward_rises_with_the_classifiers_log_odds_and_with_what_is_kept():
    source = "chronic hepatic neoplasm"
    value = lambda text: simplification.reward("", text, {"source": source})  # noqa: E731
    for text in ("old liver lump", "liver lump", source, "old"):
        expected = 0.3 * sigmoid(simplification.log_odds(text)) + 0.7 * simplification.kept_content(source, text)
        assert value(text) == pytest.approx(expected)
    assert value("old liver lump") > value("liver lump") > value("lump")
    assert value("old liver lump") > value(source) > value("")
    assert simplification.kept_content(source, "old liver lump") == 1.0
    assert simplification.kept_content(source, "bad ear itch") == 0.0


def test_the_content_term_is_what_keeps_fragments_from_winning():
    """By the classifier alone a short simple word beats the faithful sentence often; with the content term never."""
    for record in records("plain_words", 100):
        faithful = simplification.reward("", record["answer"], record)
        for fragment in ("", "a", "ear", "ear ear ear"):
            if fragment != record["answer"]:
                assert simplification.reward("", fragment, record) < faithful
