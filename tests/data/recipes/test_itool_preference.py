"""iTool: difficulty, selection, rewards, back-propagation and pairs, and a search that finds the right branch."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.data import formats
from alignment.data.recipes import itool_preference as itool

LIMITS = {"value_threshold": 0.5, "overlap_limit": 0.9, "accept_value": 0.0}
ONES = jnp.ones(3, bool)


def test_difficulty_is_the_perplexity_of_the_tokens_that_count():
    logps = jnp.log(jnp.array([[0.5, 0.125, 0.0], [1.0, 1.0, 1.0]]))
    mask = jnp.array([[True, True, False], [True, True, True]])
    np.testing.assert_allclose(itool.itool_difficulty(logps, mask), [4.0, 1.0], rtol=1e-6)
    uniform = itool.itool_difficulty(jnp.full((1, 7), -jnp.log(32.0)), jnp.ones((1, 7), bool))
    np.testing.assert_allclose(uniform, [32.0], rtol=1e-5)


def test_difficulty_orders_the_warm_up_and_names_the_hard_ones():
    difficulties = [3.0, 9.0, 1.0, 5.0, 2.0]
    assert itool.easy_to_hard(difficulties, 2) == [[2, 4, 0], [3, 1]]
    assert itool.hardest(difficulties, 0.4) == [1, 3] and itool.hardest(difficulties, 0.01) == [1]
    assert sorted(itool.hardest(difficulties, 1.0)) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\]"):
        itool.hardest(difficulties, 0.0)


def test_uct_by_hand():
    # V/(n+1) = 1, 2, 0.5; sqrt(log 4 / (n+1)) = 0.8326, 1.1774, 0.5887
    got = itool.itool_uct(
        jnp.array([2.0, 2.0, 2.0]),
        jnp.array([1, 0, 3]),
        jnp.array([0.5, 0.1, 1.0]),
        jnp.array(4),
        ONES,
        exploration=2.0,
    )
    np.testing.assert_allclose(got, [1.83255, 2.23548, 1.67741], rtol=1e-4)


def test_uct_without_exploration_is_value_over_visits_plus_one():
    values, visits = jnp.array([1.0, 3.0, -1.0]), jnp.array([0, 2, 1])
    got = itool.itool_uct(values, visits, jnp.array([0.1, 0.9, 0.5]), jnp.array(3), ONES, exploration=0.0)
    np.testing.assert_allclose(got, values / (visits + 1))


@pytest.mark.parametrize("visits", [0, 1])
def test_uct_of_a_node_never_visited_is_finite(visits):
    got = itool.itool_uct(jnp.ones(3), jnp.zeros(3, int), jnp.ones(3), jnp.array(visits), ONES)
    np.testing.assert_array_equal(got, jnp.ones(3))  # log 1 = 0: no bonus, and not log 0


def test_uct_never_selects_a_place_without_a_child_whatever_stands_there():
    there = jnp.array([True, False, True])
    values = jnp.array([-5.0, jnp.nan, -6.0])
    got = jax.jit(itool.itool_uct)(values, jnp.array([1, 0, 1]), jnp.array([0.1, jnp.inf, 0.1]), jnp.array(2), there)
    assert int(jnp.argmax(got)) == 0 and got[1] == -jnp.inf and np.isfinite(got[0]) and np.isfinite(got[2])
    with pytest.raises(ValueError, match=r"exploration must lie in \[0, inf\)"):
        itool.itool_uct(jnp.ones(3), jnp.zeros(3, int), jnp.ones(3), jnp.array(1), ONES, exploration=-1.0)
    with pytest.raises(AssertionError):
        itool.itool_uct(jnp.ones(3), jnp.zeros(3), jnp.ones(3), jnp.array(1), ONES)


def test_fast_reward_by_hand():
    assert itool.itool_fast_reward("[f(a=1)]", "[f(a=1)]") == pytest.approx(0.6)  # +0.1 + 1 - 0.5
    assert itool.itool_fast_reward("[f(a=1", "[f(a=1)]") == pytest.approx(-0.6)  # -0.1 + 0 - 0.5
    assert itool.itool_fast_reward("a b", "b c d") == pytest.approx(0.1)  # +0.1 + 1/2 - 0.5
    assert itool.itool_fast_reward("  ", "[f()]") == 0.0
    assert itool.word_overlap("a a b", "a") == 1.0 and itool.word_overlap("", "a") == 0.0


def test_self_evaluation_weighs_the_grades():
    np.testing.assert_allclose(itool.itool_self_evaluation(jnp.eye(4)), [0.25, 0.025, -0.25, -0.5])
    with pytest.raises(AssertionError):
        itool.itool_self_evaluation(jnp.ones(3))


def test_back_propagation_reaches_the_root_and_no_other_branch():
    #      0
    #    1   2
    #   3 4
    parents = np.array([-1, 0, 0, 1, 1])
    values, visits = itool.itool_back_propagate(np.zeros(5), np.zeros(5, int), parents, 3, 0.5)
    values, visits = itool.itool_back_propagate(values, visits, parents, 2, -2.0)
    assert values.tolist() == [-1.5, 0.5, -2.0, 0.5, 0.0] and visits.tolist() == [2, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("values", "texts", "limits", "expected"),
    [
        ([1.0, 3.0, -1.0], ["a", "b", "c"], {}, (1, 2)),
        ([1.0], ["a"], {}, None),  # a single child
        ([], [], {}, None),
        ([1.0, 0.6], ["a", "b"], {}, None),  # gap below the threshold
        ([1.0, 0.5], ["a", "b"], {}, (0, 1)),  # gap at the threshold
        ([1.0, 1.0], ["a", "b"], {"value_threshold": 0.0}, None),  # one child is both best and worst
        ([1.0, 0.0], ["x y", "y x"], {}, None),  # the same words
        ([1.0, 0.0], ["x y", "x z"], {"overlap_limit": 0.5}, (0, 1)),
        ([1.0, 0.0], ["x y", "x z"], {"overlap_limit": 0.4}, None),
        ([-0.1, -3.0], ["a", "b"], {}, None),  # the best is not good enough
        ([-0.1, -3.0], ["a", "b"], {"accept_value": -float("inf")}, (0, 1)),
    ],
)
def test_a_pair_is_the_best_and_the_worst_child_within_the_limits(values, texts, limits, expected):
    assert itool.itool_pair(values, texts, **{**LIMITS, **limits}) == expected


def test_a_kept_pair_of_a_positive_threshold_never_has_equal_sides():
    for values in itertools.product([-1.0, 0.0, 0.25, 2.0], repeat=3):
        pair = itool.itool_pair(values, ["a", "b", "c"], **{**LIMITS, "value_threshold": 1e-9})
        assert pair is None or (pair[0] != pair[1] and values[pair[0]] > values[pair[1]])


def test_limits_out_of_range():
    for name, value in (("value_threshold", -0.1), ("overlap_limit", 1.1)):
        with pytest.raises(ValueError, match=f"{name} must lie in"):
            itool.itool_pair([1.0, 0.0], ["a", "b"], **{**LIMITS, name: value})
    with pytest.raises(ValueError, match="1 values for 2 texts"):
        itool.itool_pair([1.0], ["a", "b"], **LIMITS)


def test_cutting_keeps_the_text_and_the_depth():
    text = "Use it. Then f(a=1, b=2), g(c). Done"
    for step_limit, depth in itertools.product((1, 2, 5), (1, 2, 3, 9)):
        steps = itool.cut(text, step_limit=step_limit, depth=depth)
        assert "".join(steps) == text and 1 <= len(steps) <= depth
    assert itool.cut(text, step_limit=2, depth=9) == ["Use it. Then f(", "a=1, ", "b=2), ", "g(c). ", "Done"]
    assert itool.cut("", depth=2) == []


# A toy: three letters, "a" right at every place; the policy prefers "c".
PRIOR = {"a": 0.2, "b": 0.3, "c": 0.5}


def toy_search(seed, depth=3, iterations=12, preference=PRIOR):
    rng = np.random.default_rng(seed)

    def expand(path):
        missing = depth - len(path)
        letters = rng.choice(list(preference), size=(3, missing), p=list(preference.values()))
        return [[itool.Step(x, preference[x], i == missing - 1) for i, x in enumerate(row)] for row in letters]

    return itool.search(
        expand, lambda text: text.count("a") - 1.0, lambda step: 0.0, depth=depth, mcts_iters=iterations
    )


def test_search_counts_a_visit_of_the_root_per_iteration_and_conserves_value():
    for seed in range(5):
        tree = toy_search(seed)
        assert tree.visits[0] == 12
        for node, children in enumerate(tree.children):
            assert sum(tree.visits[c] for c in children) <= tree.visits[node]
            # No two children hold the same step, and none lies deeper than allowed.
            assert len({tree.steps[c].text for c in children}) == len(children) and len(tree.path(node)) <= 3
        assert tree.values[0] == pytest.approx(sum(tree.values[c] for c in tree.children[0]))


def test_pairs_of_the_search_are_whole_answers_and_prefer_the_right_one():
    """Harvested from depth-3 trees, the chosen side is right more often than the policy, the rejected side less."""
    chosen, rejected, total = [], [], 0
    for seed in range(40):
        tree = toy_search(seed)
        found, counts = itool.pairs(f"p{seed}", tree, value_threshold=0.5, overlap_limit=0.9, accept_value=-9.0)
        assert counts["branchings"] == sum(counts.values()) - counts["branchings"]
        assert all(len(p["chosen"]) == len(p["rejected"]) == 3 for p in found)
        formats.from_records(found, "pairs") if found else None
        chosen += [p["chosen"].count("a") for p in found]
        rejected += [p["rejected"].count("a") for p in found]
        total += counts["pairs"]
    assert total == len(chosen) > 40
    assert np.mean(chosen) > 3 * PRIOR["a"] + 0.5 > 3 * PRIOR["a"] > np.mean(rejected)


def test_sides_without_an_end_are_dropped_and_counted():
    tree = itool.Tree()
    for text, value, ends in (("a", 1.0, True), ("b", -1.0, False)):
        tree.add(0, itool.Step(text, 0.5, ends), value)
    found, counts = itool.pairs("p", tree, **LIMITS)
    assert found == [] and counts["dropped_unfinished_or_equal"] == 1
