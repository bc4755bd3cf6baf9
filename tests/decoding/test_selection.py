"""One answer from several samples, against enumeration of all draws and all subsets."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.decoding import selection
from alignment.rewards.overoptimization import best_of_n_kl


def test_the_best_is_the_first_of_the_best_and_never_nan():
    scores = jnp.array([[1.0, 3.0, 3.0], [jnp.nan, -5.0, -6.0], [2.0, 2.0, 2.0], [jnp.nan, -jnp.inf, 0.0]])
    np.testing.assert_array_equal(jax.jit(selection.best_of_n)(scores), [1, 1, 0, 2])
    np.testing.assert_array_equal(selection.ranking(scores)[0], [1, 2, 0])
    np.testing.assert_array_equal(selection.ranking(scores)[2], [0, 1, 2])


LAW = np.array([0.35, 0.05, 0.2, 0.3, 0.1], np.float32)
LEVELS = np.array([1.0, 2.0, 0.0, 1.0, 2.0], np.float32)  # with ties


@pytest.mark.parametrize("n", [1, 2, 4])
def test_the_law_is_that_of_drawing_n_and_keeping_the_first_best(n):
    drawn = np.array(list(itertools.product(range(5), repeat=n)))
    kept = np.take_along_axis(drawn, np.asarray(selection.best_of_n(LEVELS[drawn]))[:, None], axis=1)[:, 0]
    expected = np.bincount(kept, weights=LAW[drawn].astype(np.float64).prod(axis=1), minlength=5)
    np.testing.assert_allclose(selection.best_of_n_law(LAW, LEVELS, n=n), expected, atol=1e-6)


def test_the_law_sums_to_one_improves_with_n_and_stays_below_the_bound_of_its_divergence():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(12) * 0.5, size=4).astype(np.float32)
    rewards = rng.integers(0, 6, size=(4, 12)).astype(np.float32)
    before = -np.inf
    for n in (1, 2, 5, 40, 300):
        law = np.asarray(selection.best_of_n_law(probs, rewards, n=n), np.float64)
        np.testing.assert_allclose(law.sum(-1), 1.0, atol=2e-5)
        mean = (law * rewards).sum(-1)
        assert (mean >= before - 1e-5).all()
        before = mean
        kl = np.where(law > 0, law * np.log(np.maximum(law, 1e-300) / np.maximum(probs, 1e-300)), 0.0).sum(-1)
        assert (kl <= float(best_of_n_kl(jnp.float32(n))) + 1e-4).all()
        # Nothing earns more at its distance: of all laws at this divergence the exponential tilt has the best mean.
        for p, r, k, m in zip(probs.astype(np.float64), rewards, kl, mean, strict=True):
            assert m <= frontier(p, r, k) + 1e-4


def frontier(p, r, kl):
    """The mean reward of the exponential tilt of p at this divergence, by bisection over its strength."""
    low, high = 0.0, 200.0
    for _ in range(60):
        mid = (low + high) / 2
        tilted = p * np.exp(mid * (r - r.max()))
        tilted /= tilted.sum()
        found = np.where(tilted > 0, tilted * np.log(np.maximum(tilted, 1e-300) / p), 0.0).sum()
        low, high = (mid, high) if found < kl else (low, mid)
    return (tilted * r).sum()


def test_of_many_even_rewards_the_best_of_n_beats_one_sample_as_often_as_the_formula_says():
    count, n = 400, 5
    rewards = np.arange(count, dtype=np.float32)
    law = np.asarray(selection.best_of_n_law(np.full(count, 1 / count, np.float32), rewards, n=n))
    below = (np.arange(count) + 0.5) / count
    assert (law * below).sum() == pytest.approx(n / (n + 1), abs=2e-3)


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_the_estimator_is_the_mean_of_all_subsets_and_of_zeros_and_ones_pass_at_k(n):
    rewards = np.random.default_rng(1).integers(0, 4, size=6).astype(np.float32)
    expected = np.mean([max(s) for s in itertools.combinations(rewards, n)])
    assert float(selection.expected_best_of_n(rewards, n=n)) == pytest.approx(expected, abs=1e-5)
    right = (rewards > 2).astype(np.float32)
    wrong = int((right == 0).sum())
    pass_at_k = 1 - math.comb(wrong, n) / math.comb(6, n)
    assert float(selection.expected_best_of_n(right, n=n)) == pytest.approx(pass_at_k, abs=1e-6)


def test_the_estimator_does_not_overflow():
    assert float(selection.expected_best_of_n(jnp.ones(2000), n=700)) == pytest.approx(1.0, abs=1e-3)


ALL = np.ones(5, bool)


def test_the_majority_wins_the_first_answer_of_a_tie_and_one_sample_alone():
    assert int(selection.majority_vote(np.array([4, 7, 7, 4, 7]), ALL)) == 1
    assert int(selection.majority_vote(np.array([9, 7, 9, 7, 1]), ALL)) == 0
    assert int(selection.majority_vote(np.array([3]), np.ones(1, bool))) == 0


def test_a_sample_without_an_answer_has_no_vote():
    valid = np.array([False, False, True, False, True])
    assert int(selection.majority_vote(np.array([0, 0, 5, 0, 6]), valid)) == 2
    assert int(selection.majority_vote(np.array([0, 0, 5, 0, 6]), ~ALL)) == -1
    scores = np.array([np.nan, 9.0, 1.0, np.nan, 2.0], np.float32)
    assert int(selection.weighted_vote(np.array([0, 0, 5, 0, 6]), scores, valid)) == 4
    assert int(selection.weighted_vote(np.array([0, 0, 5, 0, 6]), scores, ~ALL)) == -1


def test_a_weighted_vote_by_hand():
    # Weights 0, 1, 0.5, 0.25, 0.5: answer 1 has 0.75, answer 2 has 1, answer 3 has 0.5.
    answers, scores = np.array([1, 2, 1, 1, 3]), np.array([0.0, 4.0, 2.0, 1.0, 2.0], np.float32)
    assert int(selection.weighted_vote(answers, scores, ALL)) == 1
    # Without the best sample: 0, 1, 0.5, 1: answer 1 has 1.5, whose best sample is the third here.
    keep = [0, 2, 3, 4]
    assert int(selection.weighted_vote(answers[keep], scores[keep], ALL[keep])) == 1


def test_with_equal_scores_it_is_the_majority_and_of_two_samples_the_better():
    rng = np.random.default_rng(2)
    answers = rng.integers(0, 3, size=(20, 7))
    valid = rng.random((20, 7)) < 0.8
    winners = [np.asarray(selection.majority_vote(answers, valid))]
    winners.append(np.asarray(selection.weighted_vote(answers, np.full((20, 7), 2.5, np.float32), valid)))
    np.testing.assert_array_equal(*winners)
    assert int(selection.weighted_vote(np.array([1, 2]), np.array([0.4, 0.5], np.float32), ALL[:2])) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: selection.best_of_n(np.zeros((3, 0), np.float32)), "at least one sample"),
        (lambda: selection.best_of_n_law(LAW, LEVELS, n=0), "n must be an integer"),
        (lambda: selection.expected_best_of_n(LAW, n=0), "n must be an integer"),
        (lambda: selection.expected_best_of_n(LAW, n=6), "n must be at most the number of samples, 5, got 6"),
        (lambda: selection.majority_vote(np.zeros(0, np.int32), np.zeros(0, bool)), "at least one sample"),
    ],
)
def test_no_samples_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
