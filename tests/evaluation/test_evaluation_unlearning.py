"""What is measured of forgetting, by hand and against scipy."""

import numpy as np
import pytest
from scipy import special, stats

from alignment import evaluation


def test_the_probability_of_an_answer_is_the_geometric_mean_of_its_tokens():
    tokens = [np.array([0.5, 0.125]), np.array([0.9])]
    got = evaluation.answer_probability([np.log(t).sum() for t in tokens], [2, 1])
    np.testing.assert_allclose(got, [0.25, 0.9])
    with pytest.raises(ValueError, match="at least 1"):
        evaluation.answer_probability([0.0], [0])


def test_the_truth_ratio_by_hand_and_that_it_is_one_where_nothing_is_known():
    # right answer 0.5 per token; wrong ones 0.25 and 0.125
    got = evaluation.truth_ratio([2 * np.log(0.5)], [2], [[3 * np.log(0.25), np.log(0.125)]], [[3, 1]])
    np.testing.assert_allclose(got, [0.375])
    np.testing.assert_allclose(evaluation.truth_ratio([-4.0], [2], [[-2.0, -6.0]], [[1, 3]]), [1.0])


def test_overlap_counts_the_words_in_order():
    answers = ["Mira Tolvek was born in Quito.", "in born was", "", "the LISBON, of Mira was born"]
    got = evaluation.rouge_l_recall(answers, ["Mira Tolvek was born in Lisbon."] * 4)
    np.testing.assert_allclose(got, np.array([5, 1, 0, 3]) / 6)
    np.testing.assert_allclose(evaluation.rouge_l_recall(["a b c"], ["a b c"]), 1.0)
    with pytest.raises(ValueError, match="1 answers for 2 truths"):
        evaluation.rouge_l_recall(["a"], ["a", "b"])


@pytest.mark.parametrize("shift", [0.0, 0.4, 1.0, 3.0])
def test_the_distance_is_scipys_and_the_p_value_that_of_its_limiting_distribution(shift):
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=24), rng.normal(size=30) + shift
    distance, p = evaluation.forget_quality(one, other)
    np.testing.assert_allclose(distance, stats.ks_2samp(one, other).statistic, rtol=1e-12)
    np.testing.assert_allclose(p, special.kolmogorov(distance * np.sqrt(24 * 30 / 54)), rtol=1e-6, atol=1e-9)


def test_the_same_ratios_cannot_be_told_apart():
    assert evaluation.forget_quality([0.2, 0.7], [0.7, 0.2]) == (0.0, 1.0)
    with pytest.raises(ValueError, match="empty"):
        evaluation.forget_quality([], [1.0])
