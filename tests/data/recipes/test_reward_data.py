"""Contexts that rank a pair both ways, and trees of responses with the distances of their comparisons."""

import itertools

import numpy as np
import pytest

from alignment.data import corpus, formats
from alignment.data.recipes import context_conditioned_bt as contexts
from alignment.data.recipes import tree_preference_data as trees

PAIRS = [{"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "q", "chosen": "c", "rejected": "d"}]


def test_each_pair_is_ranked_both_ways_by_the_two_contexts():
    records, counts = contexts.context_records(PAIRS, ("+", "-"))
    assert [(r["prompt"], r["chosen"]) for r in records] == [("+p", "a"), ("-p", "b"), ("+q", "c"), ("-q", "d")]
    assert counts == {"pairs": 2, "records": 4} and len(formats.from_records(records, "pairs")) == 4


def test_a_model_that_ignores_the_context_is_right_half_of_the_time_whatever_its_taste():
    taste = {text: value for value, text in enumerate("badc")}
    for options in ({}, {"reverse": True}, {"without": True}):
        records, _ = contexts.context_records(PAIRS, ("+", "-"), **options)
        assert np.mean([taste[r["chosen"]] > taste[r["rejected"]] for r in records]) == 0.5


def test_reversed_contexts_turn_every_label_round():
    there, back = (contexts.context_records(PAIRS, ("+", "-"), reverse=r)[0] for r in (False, True))
    said = {(r["prompt"], r["chosen"]) for r in there}
    assert all((r["prompt"], r["rejected"]) in said for r in back)
    for options in ({"contexts": ("+", "+")}, {"contexts": ("+", "-"), "reverse": True, "without": True}):
        with pytest.raises(ValueError, match=r"the same|not both"):
            contexts.context_records(PAIRS, **options)


# --- trees -----------------------------------------------------------------------------------------------------------


def grown(depth=3, branching=3):
    letters = itertools.cycle("abcdefgh")
    return trees.grow("p", lambda prompt, text: next(letters), depth=depth, branching=branching)


@pytest.mark.parametrize("depth,branching", [(1, 2), (3, 3), (4, 2)])
def test_a_tree_has_its_leaves_and_nodes(depth, branching):
    tree = grown(depth, branching)
    assert len(tree.leaves) == branching**depth
    assert len(tree.texts) == (branching ** (depth + 1) - 1) // (branching - 1)


def test_shared_depth_is_the_length_of_the_shared_text():
    tree = grown()
    for i, j in itertools.combinations(tree.leaves, 2):
        shared = trees.shared_depth(tree.paths[i], tree.paths[j])
        assert tree.texts[i][:shared] == tree.texts[j][:shared] and shared < 3
    assert trees.shared_depth((0, 1, 2), (0, 1, 0)) == 2


def test_records_are_right_by_the_reward_and_what_says_nothing_is_counted():
    tree = grown()
    reward = lambda prompt, text: len(text)  # noqa: E731
    records, counts = trees.tree_records([tree], reward, np.random.default_rng(0), pairs=200)
    assert counts["drawn"] == 200 == counts["kept"] + counts["equal"] and counts["kept"] == len(records) > 50
    assert all(len(r["chosen"]) > len(r["rejected"]) > 0 for r in records)


def test_series_add_variances_and_parallels_add_precisions():
    chain = trees.inference_distances([(0, 1), (1, 2)], [0.5, 2.0], 3)
    np.testing.assert_allclose(chain, [[0, 0.5, 2.5], [0.5, 0, 2.0], [2.5, 2.0, 0]], atol=1e-10)
    twice = trees.inference_distances([(0, 1), (0, 1)], [0.5, 2.0], 2)
    np.testing.assert_allclose(twice[0, 1], 1 / (1 / 0.5 + 1 / 2.0), rtol=1e-10)
    apart = trees.inference_distances([(0, 1)], [1.0], 3)
    assert np.isinf(apart[0, 2]) and apart[2, 2] == 0


def test_another_comparison_never_makes_a_distance_larger_and_distances_are_a_metric():
    rng = np.random.default_rng(0)
    edges = [(i, i + 1) for i in range(7)]
    variances = list(rng.uniform(0.5, 2, 7))
    before = trees.inference_distances(edges, variances, 8)
    after = trees.inference_distances([*edges, (1, 6)], [*variances, 0.7], 8)
    assert (after <= before + 1e-9).all() and after[1, 6] < before[1, 6]
    for i, j, k in itertools.permutations(range(8), 3):
        assert after[i, k] <= after[i, j] + after[j, k] + 1e-9
    assert trees.mean_inference_distance([*edges, (1, 6)], [*variances, 0.7], 8) < trees.mean_inference_distance(
        edges, variances, 8
    )
    with pytest.raises(ValueError, match="variance > 0"):
        trees.inference_distances([(0, 1)], [0.0], 2)


def test_trees_of_the_corpus_are_sentences_and_their_parts_add_up():
    rng = np.random.default_rng(0)
    prompt = corpus.prompts()[0]
    tree = trees.grow(prompt, lambda p, text: trees.corpus_segment(p, text, rng), depth=3, branching=2)
    for leaf in tree.leaves:
        text = tree.texts[leaf]
        adjectives = text.rstrip(".").split(" is ")[1].split(" and ")
        if len(set(adjectives)) == 2:
            gold = corpus.gold_reward(prompt, text) + corpus.LENGTH_PENALTY * len(text)
            assert trees.corpus_partial_reward(prompt, text) == pytest.approx(gold)
