"""Halves by confidence, pairs of them, and the weights that they are mixed with."""

import numpy as np
import pytest

from alignment.data import collating, corruption, halves
from alignment.data.rows import Tokenized


def examples(count=6):
    return [
        Tokenized(i, np.full(1 + i % 3, 10 + i, np.int32), (np.full(2 + i, 20 + i, np.int32),), where=f"line {i}")
        for i in range(count)
    ]


def test_confidence_is_minus_the_mean_perplexity_and_not_the_perplexity_of_the_mean():
    nlls = np.log([[2.0, 4.0], [8.0, 4.0]])
    np.testing.assert_allclose(halves.confidences(nlls), [-5.0, -4.0])  # the mean of the logarithms is the same


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros((2, 0)), np.zeros(3), [[-0.1]], [[np.nan]]])
def test_what_is_no_mean_likelihood_is_refused(bad):
    with pytest.raises(ValueError, match="nlls must"):
        halves.confidences(bad)


@pytest.mark.parametrize("count", [2, 7, 8])
def test_halves_are_equal_disjoint_and_the_confident_above_the_others(count):
    values = np.random.default_rng(count).normal(size=count)
    first, second = halves.confident_and_unconfident(values)
    assert len(first) == len(second) == count // 2 and not set(first) & set(second)
    assert values[first].min() > values[second].max()
    left_out = set(range(count)) - set(first) - set(second)
    assert all(values[second].max() < values[i] < values[first].min() for i in left_out) and len(left_out) == count % 2
    assert sorted(first) == list(first) and sorted(second) == list(second)


def test_equal_confidences_are_halved_too_and_one_example_cannot_be():
    first, second = halves.confident_and_unconfident(np.zeros(4))
    assert [*first, *second] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="two examples at least, got 1"):
        halves.confident_and_unconfident(np.zeros(1))


def test_a_row_holds_both_examples_with_their_own_prompts_and_exchanging_moves_the_second_sides_on():
    found = examples()
    pairs = halves.paired(found[:3], found[3:])
    moved = halves.exchanged(pairs)
    for number, (row, second) in enumerate(zip(moved, (4, 5, 3), strict=True)):
        assert row.id == number
        for side, member in enumerate((number, second)):
            np.testing.assert_array_equal(row.prompts[side], found[member].prompt)
            np.testing.assert_array_equal(row.completions[side], found[member].completions[0])
    batch = collating.collate_several_prompts(moved, 3, 8, 2)
    np.testing.assert_array_equal(batch["mask"].sum(axis=-1), [[2, 6], [3, 7], [4, 5]])


def test_examples_that_do_not_make_a_side_are_refused():
    one, other = examples(2)
    weighted = Tokenized(7, one.prompt, one.completions, weight=2.0, where="line 7")
    with pytest.raises(ValueError, match="line 7: field 'weight' has no place"):
        halves.paired([weighted], [other])
    two_sided = Tokenized(8, one.prompt, (*one.completions, *other.completions), where="line 8")
    with pytest.raises(ValueError, match="line 8: a side of a row is one prompt and one completion"):
        halves.paired([one], [two_sided])


def drawn(alpha, count=4000, seed=0):
    batch = {"mask": np.ones((count, 2, 3), bool)}
    return corruption.mixup(batch, [np.random.default_rng([seed, i]) for i in range(count)], 0.5, alpha=alpha)


def test_weights_are_beta_distributed_one_for_each_row_by_its_generator():
    weights = drawn(0.5)["mix_weights"]
    assert weights.shape == (4000,) and weights.dtype == np.float32 and ((weights >= 0) & (weights <= 1)).all()
    # the arcsine law: mean 1/2, variance 1/8, and a third each below 1/4, in the middle and above 3/4
    np.testing.assert_allclose([weights.mean(), weights.var()], [0.5, 0.125], atol=0.02)
    np.testing.assert_allclose(np.histogram(weights, [0, 0.25, 0.75, 1])[0] / 4000, [1 / 3] * 3, atol=0.03)
    np.testing.assert_array_equal(drawn(0.5)["mix_weights"], weights)
    assert not np.isin(drawn(0.5, 10, seed=1)["mix_weights"], weights).any()
    np.testing.assert_allclose(drawn(1e6, 10)["mix_weights"], 0.5, atol=0.01)


def test_mixing_takes_two_sides_and_a_positive_alpha():
    with pytest.raises(ValueError, match=r"alpha must lie in \(0, inf\), got 0"):
        drawn(0.0)
    with pytest.raises(ValueError, match="two sides are needed"):
        corruption.mixup({"mask": np.ones((1, 1, 3), bool)}, [np.random.default_rng(0)], 0.0)
