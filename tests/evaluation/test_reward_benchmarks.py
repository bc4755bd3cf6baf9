"""RewardBench's scores: weights of sections, invariances, and the ties score by hand."""

import numpy as np
import pytest

from alignment import evaluation as ev
from alignment.evaluation.reward_benchmarks import SECTIONS

ALL = [subset for counts in SECTIONS.values() for subset in counts]


def test_the_counts_are_those_of_the_benchmark():
    assert len(ALL) == 23 and sum(sum(c.values()) for c in SECTIONS.values()) == 2985 + 984 - 447
    assert SECTIONS["Safety"]["xstest-should-refuse"] == 154 and SECTIONS["Safety"]["xstest-should-respond"] == 250


def test_equal_accuracy_everywhere_is_that_number_at_every_level():
    subsets = [s for s in ALL for _ in range(4)]
    got = ev.reward_bench(subsets, [1.0, 1.0, 1.0, 0.0] * len(ALL), [0.5] * len(subsets))
    assert got.score == pytest.approx(0.75) and got.n == 92
    assert all(v == pytest.approx(0.75) for v in (*got.sections.values(), *got.subsets.values()))


def test_counts_weigh_subsets_and_sections_weigh_alike():
    """Mathematics alone is right: half of Reasoning, an eighth of the score."""
    got = ev.reward_bench(ALL, [float(s == "math-prm") for s in ALL], [0.5] * len(ALL))
    assert got.sections["Reasoning"] == pytest.approx(984 / (984 + 6 * 164)) and got.score == pytest.approx(0.125)
    sections = {"main": {"a": 1, "b": 3}, "prior": {"c": 1}}
    scores = [1.0, 0.0, 1.0]
    got = ev.reward_bench(["a", "b", "c"], scores, [0.5] * 3, sections=sections, section_weights={"prior": 0.5})
    assert got.sections == {"main": 0.25, "prior": 1.0} and got.score == pytest.approx((0.25 + 0.5) / 1.5)


def test_accuracy_is_invariant_to_monotone_transforms():
    rng = np.random.default_rng(0)
    subsets, chosen, rejected = ALL * 5, rng.normal(size=5 * len(ALL)), rng.normal(size=5 * len(ALL))
    assert ev.reward_bench(subsets, chosen, rejected) == ev.reward_bench(subsets, np.exp(chosen), np.exp(rejected))


def test_equal_scores_are_wrong_unless_they_have_credit():
    one = {"s": {"a": 1}}
    assert ev.reward_bench(["a"], [1.0], [1.0], sections=one).score == 0
    assert ev.reward_bench(["a"], [1.0], [1.0], sections=one, tie_credit=0.5).score == 0.5


def test_best_of_four_is_strict_and_averages_domains():
    got = ev.reward_bench_2(["x", "x", "x", "y"], [[2, 1, 0, 1], [1, 1, 0, 0], [0, 1, 0, 0], [3, 2, 1, 0]])
    assert got.subsets == {"x": pytest.approx(1 / 3), "y": 1} and got.score == pytest.approx(2 / 3)


TIES = (["tied:1", "ref:1", "tied:2", "ref:2"], [[3, 2, 0], [4, 1], [5, 1, 0.5, 0], [2, 2.5]], [2, 1, 2, 1])


def test_ties_by_hand():
    # prompt 1: spread 1, gap 2, reference gap 3; prompt 2: spread 4, gap 0.5, reference gap -0.5
    got = ev.reward_bench_ties(*TIES)
    margin = (np.tanh(2 / 1 - 1) + np.tanh(-0.5 / 4 - 1)) / 2
    assert got[1:] == (1.0, 0.5, 0.5, 0.5, pytest.approx(margin), 2)
    assert got.score == pytest.approx(0.3 * 1.5 + 0.2 * 1.0 + 0.01 * margin)


def test_the_ties_score_is_invariant_to_affine_transforms_only():
    ids, scores, correct = TIES
    base = ev.reward_bench_ties(*TIES).score
    assert ev.reward_bench_ties(ids, [[5 * s - 3 for s in one] for one in scores], correct).score == pytest.approx(base)
    bent = ev.reward_bench_ties(ids, [[float(np.exp(s)) for s in one] for one in scores], correct)
    assert bent.tied_accuracy == 1.0 and bent.score != pytest.approx(base)


def test_without_spread_the_margin_is_full_and_without_both_it_counts_nothing():
    assert ev.reward_bench_ties(["tied:1", "ref:1"], [[2, 2, 0], [2, 0]], [2, 1]).margin == 1
    assert ev.reward_bench_ties(["tied:1", "ref:1"], [[2, 2, 2], [2, 2]], [2, 1]).margin == 0


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: ev.reward_bench(["alpacaeval-esay"], [1.0], [0.0]), "of no section; nearest: alpacaeval-easy"),
        (lambda: ev.reward_bench(ALL[1:], [1.0] * 22, [0.0] * 22), "no pairs of the subsets alpacaeval-easy"),
        (lambda: ev.reward_bench(ALL, [1.0] * 23, [0.0] * 22), "rejected_rewards 22"),
        (lambda: ev.reward_bench(ALL, [1.0] * 23, [0.0] * 23, section_weights={"chat": 1}), "'chat' is not one of"),
        (lambda: ev.reward_bench_2(["x"], [[1.0]]), "scores of prompt 0 must have at least two"),
        (lambda: ev.reward_bench_2([], []), "at least one prompt"),
        (lambda: ev.reward_bench_ties(["tied:1"], [[2, 1, 0]], [2]), "no prompt has both"),
        (lambda: ev.reward_bench_ties(["tie:1"], [[2, 1, 0]], [2]), "must be ref:NUMBER or tied:NUMBER"),
        (lambda: ev.reward_bench_ties(["tied:1"], [[2, 1, 0]], [1]), r"num_correct of tied:1 must lie in \[2, 2\]"),
        (lambda: ev.reward_bench_ties(["ref:1"], [[2, 1]], [2]), r"must lie in \[1, 1\]"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
