"""Recipes for demonstrations: what they keep, what they drop, and the laws that they draw by."""

import collections
import functools
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.data import corpus, formats
from alignment.data.recipes import (
    chain_of_hindsight,
    crlft,
    feedback_pretraining,
    fence,
    ilf,
    multilingual_ift,
    on_corpus,
    raft,
    stat,
)

quick = settings(max_examples=15, deadline=None, derandomize=True, database=None)
KINDS = {"chain_of_hindsight": "segments", "phf_scored": "segments", "meta_tuning": "pairs", "fence_pairs": "pairs"}
KINDS |= {"answered_prompts": "prompts", "pit_tasks": "prompts", "pit_gaps": "lists"}
PAIR = {"prompt": "Q ", "chosen": "yes.", "rejected": "no."}
DOCUMENTS = [
    {"prompt": "A", "segments": ["a", "b"], "scores": [0.0, 0.4]},
    {"prompt": "B", "segments": ["c"], "scores": [0.0]},
    {"prompt": "C", "segments": ["d", "e", "f"], "scores": [1.0, 0.5, 0.0]},
]


@pytest.mark.parametrize("name", on_corpus.RECIPES)
def test_every_recipe_gives_the_same_usable_records_of_the_corpus(name):
    records, counts = on_corpus.records(name, 40, 0, "train")
    assert formats.from_records(records, KINDS.get(name, "completion"), name)
    assert counts and all(isinstance(v, int) for v in counts.values())
    assert on_corpus.records(name, 40, 0, "train") == (records, counts)
    held_out = on_corpus.records(name, 40, 0, "test")[0]
    assert on_corpus.records(name, 40, 1, "train")[0] != records != held_out


def test_hindsight_learns_answers_and_reads_markers():
    both = chain_of_hindsight.hindsight_text(**_sides("np"))
    assert both["prompt"] == "Q bad " and both["segments"] == ["no.", "good ", "yes."]
    assert both["trained"] == both["ended"] == [True, False, True]
    alone = chain_of_hindsight.hindsight_text(**_sides("p"))
    assert alone["prompt"] == "Q good " and alone["segments"] == ["yes."] and alone["trained"] == [True]


def _sides(form):
    return {"prompt": "Q ", "good_answer": "yes.", "bad_answer": "no.", "form": form, "good": "good ", "bad": "bad "}


def test_both_orders_of_hindsight_learn_the_same_texts():
    learnt = []
    for form in ("np", "pn"):
        text = chain_of_hindsight.hindsight_text(**_sides(form))
        learnt.append(sorted(s for s, t in zip(text["segments"], text["trained"], strict=True) if t))
    assert learnt[0] == learnt[1] == ["no.", "yes."]
    with pytest.raises(ValueError, match="not one of p, n, np, pn"):
        chain_of_hindsight.hindsight_text(**_sides("pp"))


def test_plain_text_beside_hindsight_gives_every_record_a_weight():
    records, counts = chain_of_hindsight.records([PAIR])
    assert len(records) == 4 and all("weight" not in r for r in records)
    plain = [{"prompt": "P", "completion": "text"}]
    records, counts = chain_of_hindsight.records([PAIR], formats=("p",), pretraining=plain, pretraining_weight=0.5)
    assert [r["weight"] for r in records] == [1.0, 0.5] and counts["pretraining_texts"] == 1


def conditional(**settings):
    rng = np.random.default_rng(0)
    return feedback_pretraining.conditional_records(DOCUMENTS, rng, good="+", bad="-", **settings)


def test_control_tokens_stand_before_the_segments_they_speak_of():
    records, counts = conditional(threshold=0.45, drop_fraction=0.0)
    assert [r["completion"] for r in records] == ["+a+b", "+c", "-d-e+f"]
    assert counts["good"] + counts["bad"] == counts["segments"] == 6
    assert [r["completion"] for r in conditional(threshold=2.0, drop_fraction=0.0)[0]] == ["+a+b", "+c", "+d+e+f"]


def test_without_control_tokens_the_text_is_as_it_was():
    records, counts = conditional(threshold=0.0, drop_fraction=1.0)
    assert [r["completion"] for r in records] == ["ab", "c", "def"] and counts["without_control_token"] == 6
    inserted = "".join(r["completion"] for r in conditional(threshold=0.0, drop_fraction=0.4)[0])
    told = conditional(threshold=0.0, drop_fraction=0.4)[1]
    assert inserted.count("+") + inserted.count("-") == 6 - told["without_control_token"]


def test_filtering_keeps_more_the_higher_the_threshold_and_everything_at_infinity():
    kept = [
        {r["prompt"] for r in feedback_pretraining.filtered_records(DOCUMENTS, threshold=t)[0]}
        for t in (0.0, 0.2, 0.5, math.inf)
    ]
    assert kept == [{"B"}, {"A", "B"}, {"A", "B", "C"}, {"A", "B", "C"}]
    _, counts = feedback_pretraining.filtered_records(DOCUMENTS, threshold=0.2)
    assert counts == {"documents": 3, "kept": 2, "dropped": 1}


def test_scored_text_carries_minus_the_score():
    records, _ = feedback_pretraining.scored_records(DOCUMENTS)
    assert records[2]["rewards"] == [-1.0, -0.5, 0.0]
    with pytest.raises(ValueError, match="at least 0"):
        feedback_pretraining.scored_records([{"prompt": "", "segments": ["a"], "scores": [-1.0]}])


def test_sources_stand_in_the_prompt_and_weigh_what_their_reward_says():
    weights = crlft.crlft_weights({"expert": 1.0, "suboptimal": 0.1}, beta=0.9 / math.log(10))
    assert weights == pytest.approx({"expert": 1.0, "suboptimal": 0.1})
    given = [{"prompt": "p", "completion": "c", "source": s} for s in ("expert", "suboptimal", "expert")]
    records, counts = crlft.records(given, weights=weights)
    assert counts == {"expert": 2, "suboptimal": 1}
    assert records[0]["prompt"] == "GPT4 User: p" and records[1]["weight"] == pytest.approx(0.1)
    with pytest.raises(ValueError, match="'crowd' is not one of expert, suboptimal"):
        crlft.records([{"prompt": "p", "completion": "c", "source": "crowd"}])


@quick
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_the_law_of_the_best_of_k_is_close_to_its_bounds(seed, k):
    rng = np.random.default_rng(seed)
    p, rewards = rng.dirichlet(np.ones(6)), rng.permutation(6).astype(float)
    q = raft.best_of_k_law(p, rewards, k=k)
    np.testing.assert_allclose(q.sum(), 1)
    assert (q <= k * p + 1e-12).all()
    assert (q * np.log(np.maximum(q, 1e-300) / p)).sum() <= math.log(k) - (k - 1) / k + 1e-9
    more = raft.best_of_k_law(p, rewards, k=k + 1)
    assert more @ rewards >= q @ rewards - 1e-12
    np.testing.assert_allclose(raft.best_of_k_law(p, rewards, k=1), p)


def test_the_law_of_the_best_of_k_is_that_of_all_draws_ties_included():
    p, rewards, k = np.array([0.1, 0.2, 0.3, 0.4]), np.array([1.0, 0.0, 1.0, 0.5]), 3
    counted = np.zeros(4)
    for draws in itertools.product(range(4), repeat=k):
        counted[draws[int(np.argmax(rewards[list(draws)]))]] += p[list(draws)].prod()
    np.testing.assert_allclose(raft.best_of_k_law(p, rewards, k=k), counted, rtol=1e-12)


def test_raft_keeps_the_best_of_each_prompt_or_of_all():
    candidates = [
        {"prompt": "a", "responses": ["x", "y", "z"], "rewards": [1.0, 3.0, 3.0]},
        {"prompt": "b", "responses": ["u", "v"], "rewards": [0.0, -1.0]},
    ]
    records, counts = raft.best_of_each(candidates)
    assert [r["completion"] for r in records] == ["y", "u"] and counts["ties_for_the_best"] == 1
    assert [r["completion"] for r in raft.best_of_each(candidates, k=1)[0]] == ["x", "u"]
    records, counts = raft.best_of_all(candidates, share=0.4)
    assert [r["completion"] for r in records] == ["y", "z"] and counts["prompts_without_one"] == 1
    with pytest.raises(ValueError, match="2 responses, and k=3"):
        raft.best_of_each(candidates, k=3)


def test_feedback_scores_are_mean_shares_of_yes():
    yes, no = np.array([[-1.0, -2.0]], np.float32), np.array([[-1.5, -1.0]], np.float32)
    scores = ilf.ilf_scores(yes, no)
    np.testing.assert_allclose(scores, [(1 / (1 + math.exp(-0.5)) + 1 / (1 + math.exp(1.0))) / 2], rtol=1e-6)
    np.testing.assert_allclose(ilf.ilf_scores(yes + 3, no + 3), scores, rtol=1e-6)
    np.testing.assert_allclose(ilf.ilf_scores(yes[:, :1], no[:, :1]), 1 / (1 + math.exp(-0.5)), rtol=1e-6)


def test_the_chosen_refinement_is_learnt_without_feedback_or_draft():
    given = {"prompt": "p", "draft": "d", "feedback": "f", "refinements": ["one", "two", "d"]}
    records, counts = ilf.records([given], lambda record, texts: [len(t) + (t == "two") for t in texts])
    assert records == [{"prompt": "p", "completion": "two"}]
    assert counts == {"drafts": 1, "refinements": 3, "chosen_equal_to_the_draft": 0}
    (alone,), _ = ilf.records([given | {"refinements": ["only"]}], lambda *_: [0.0])
    assert alone["completion"] == "only"


def test_difficult_is_a_low_end_a_low_mean_or_a_low_step():
    assert stat.stat_difficult([0.9, 0.85]) and stat.stat_difficult([0.75, 0.8, 0.9])
    assert stat.stat_difficult([1.0, 0.7, 1.0, 1.0, 1.0]) and not stat.stat_difficult([0.9, 0.95])


def test_questions_are_drawn_by_the_skills_that_were_missing():
    skill_map = {"add": [0, 1, 2], "carry": [2, 3]}
    np.testing.assert_allclose(stat.stat_weights([["add"]], skill_map, 5), [1 / 3, 1 / 3, 1 / 3, 0, 0])
    profiles = [["add", "carry"], ["carry"]]
    weights = stat.stat_weights(profiles, skill_map, 5)
    np.testing.assert_allclose(weights.sum(), 1)
    np.testing.assert_allclose(weights, np.array([1 / 3, 1 / 3, 4 / 3, 1, 0]) / 3)
    np.testing.assert_allclose(stat.stat_weights(profiles * 2, skill_map, 5), weights)
    questions = [{"prompt": str(i), "completion": "c", "skills": [s for s in skill_map if i in skill_map[s]]}
                 for i in range(5)]  # fmt: skip
    records, counts = stat.select(questions, profiles, np.random.default_rng(0), draws=3000)
    drawn = collections.Counter(int(r["prompt"]) for r in records)
    np.testing.assert_allclose([drawn[i] / len(records) for i in range(5)], weights, atol=0.02)
    _, counts = stat.select(questions, [["division"], []], np.random.default_rng(0))
    assert counts["skills_without_a_question"] == 1 and counts["drawn"] == 0


def test_new_questions_stay_if_two_of_three_solutions_agree():
    proposals = [
        {"prompt": "kept", "solutions": ["so 4", "is 4", "or 5"]},
        {"prompt": "dropped", "solutions": ["1", "2", "3"]},
        {"prompt": "empty", "solutions": ["none", "none", "3"]},
    ]
    answer = lambda text: None if text == "none" else text[-1]  # noqa: E731
    records, counts = stat.synthesise(proposals, answer)
    assert [r["completion"] for r in records] == ["so 4", "is 4"]
    assert counts == {"questions": 3, "kept_questions": 1, "solutions": 9, "kept_solutions": 2}


def test_answers_in_another_language_are_verbatim_and_the_threshold_decides():
    make = functools.partial(
        multilingual_ift.records, ["GUTEN TAG", "  ", "NEIN"], translate=str.lower,
        instruct=lambda text: f"say {text}", translate_back=str.upper, score=lambda _, text: len(text),
    )  # fmt: skip
    records, counts = make(threshold=-math.inf)
    assert records[0] == {"prompt": "SAY GUTEN TAG", "completion": "GUTEN TAG"} and counts["kept"] == 2
    assert [r["completion"] for r in make(threshold=5)[0]] == ["GUTEN TAG"]
    assert make(threshold=5)[1]["dropped_by_score"] == counts["dropped_blank"] == 1


@pytest.mark.parametrize("n,k", [(10, 3), (10, 10), (4, 1)])
def test_pairs_of_ranked_candidates_are_counted_and_rightly_ordered(n, k):
    scores = np.random.default_rng(0).permutation(n).tolist()
    pairs, equal = fence.preference_pairs(scores, k=k)
    assert len(pairs) == math.comb(n, 2) - math.comb(n - k, 2) and equal == 0
    assert all(scores[w] > scores[l] for w, l in pairs)
    if (n, k) == (10, 3):
        assert len(pairs) == 24
    assert fence.preference_pairs([1.0] * 3, k=2) == ([], 3)


def test_revision_mends_what_is_known_and_deletes_what_is_not():
    truth = {"sky green": "sky blue"}
    critic = lambda _, c: fence.Judged(c, "contradictory" if c in (*truth, "rare fact") else "supported", "")  # noqa: E731
    knows = lambda _, c: c in truth  # noqa: E731
    rewrite = lambda _, verdict: truth[verdict.claim]  # noqa: E731
    claims, told = fence.revise("p", ["sky green", "sea wet", "rare fact"], critic, knows, rewrite)
    assert claims == ["sky blue", "sea wet"] and told == {"rewritten": 1, "deleted": 1}
    join = lambda _, claims: "; ".join(claims)  # noqa: E731
    asked = [{"prompt": "p", "answers": [["sky green", "sea wet"], ["rare fact"]]}]
    demonstrations, pairs, counts = fence.records(asked, critic, knows, rewrite, join, k=1)
    assert [d["completion"] for d in demonstrations] == ["sky blue; sea wet"]
    assert counts["dropped_empty"] == 1 and counts["supported_before"] == 1 and counts["supported_after"] == 2
    assert len(pairs) == 2 and all(p["chosen"] == "sky blue; sea wet" for p in pairs)
    assert fence.fence_score([]) == 0.0 and fence.fence_score(["supported", "unverified"]) == 0.5


def test_what_the_corpus_recipes_select_is_better_than_what_they_select_from():
    gold = lambda records: np.mean([corpus.gold_reward(r["prompt"], r["completion"]) for r in records])  # noqa: E731
    plain = gold(corpus.generate("completion", 200, 0))
    for name in ("raft", "stat", "phf_filtering"):
        assert gold(on_corpus.records(name, 100, 0, "train")[0]) > plain + 0.5, name
