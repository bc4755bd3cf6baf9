"""Groups of annotators by EM, and the policy that is fair to them."""

import jax
import numpy as np
import pytest

from alignment import analysis, games
from alignment import multi_objective as mo

RNG = np.random.default_rng(5)
TASTES = np.float32([[3, 1, 0], [-3, 1, 0]])  # two groups that agree on one feature only
USERS = np.repeat(np.arange(12, dtype=np.int32), 30)
GROUP = (USERS % 4 == 0).astype(int)  # a quarter belongs to the second


def labelled(seed=6):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(len(USERS), 3)).astype(np.float32)
    margins = (x * TASTES[GROUP]).sum(-1)
    won = rng.random(len(x)) < 1 / (1 + np.exp(-margins))
    return np.where(won[:, None], x, -x).astype(np.float32)


X = labelled()


def test_the_likelihood_never_falls_and_the_groups_are_found():
    found = jax.jit(games.maxmin_em)(jax.random.key(1), X, USERS)
    assert np.all(np.diff(found.nlls) <= 1e-6) and found.nlls[-1] < found.nlls[0]
    mine = np.asarray(found.assignments).argmax(-1)
    mine = mine if mine[0] == GROUP[0] else 1 - mine
    np.testing.assert_array_equal(mine, GROUP)
    one = games.maxmin_em(jax.random.key(1), X, USERS, groups=1)
    right = [np.mean((X @ weights > 0)[GROUP == 1]) for weights in (one.weights[0], TASTES[1])]
    assert right[0] < 0.5 < 0.8 < right[1]  # one reward serves the majority


def test_one_group_is_a_bradley_terry_reward():
    found = games.maxmin_em(jax.random.key(0), X, USERS, groups=1, rounds=5, inner_steps=50)
    gradient = (1 / (1 + np.exp(X @ np.asarray(found.weights[0])))) @ X / len(X)
    np.testing.assert_allclose(gradient, 0, atol=1e-5)


def test_a_group_without_annotators_is_drawn_anew_and_costs_nothing():
    found = games.maxmin_em(jax.random.key(2), X, USERS * 0, groups=3, rounds=6)
    assert np.all(found.assignments.sum(-1) == 1) and np.isfinite(found.weights).all()
    assert np.all(np.diff(found.nlls) <= 1e-6)


def test_soft_assignments_are_hard_ones_for_annotators_with_many_labels():
    margins, even = X @ TASTES.T, np.float32([0.5, 0.5])
    soft = games.soft_assignments(margins, USERS, even)
    hard = mo.maxmin_assignments(margins, USERS, np.ones(len(X), bool))
    np.testing.assert_allclose(soft, hard, atol=1e-3)
    # One label, margins 1 and -1: s(1) : s(-1) is e : 1; with priors 1 : 3, e : 3.
    alone = np.float32([[1, -1]]), np.zeros(1, np.int32)
    np.testing.assert_allclose(games.soft_assignments(*alone, even)[0, 0], 0.731059, rtol=1e-5)
    np.testing.assert_allclose(games.soft_assignments(*alone, np.float32([0.25, 0.75]))[0, 0], 0.475367, rtol=1e-5)
    swapped = games.soft_assignments(margins[:, ::-1], USERS, even)
    np.testing.assert_allclose(swapped, soft[:, ::-1], atol=1e-6)
    np.testing.assert_allclose(games.soft_assignments(0 * margins, USERS, even), 0.5)


REFERENCE = np.log(RNG.dirichlet(np.ones(8))).astype(np.float32)
REWARDS = RNG.random((3, 8)).astype(np.float32)
BETA = 0.2


def worst(logps):
    return min(float(games.kl_rl_objective(logps, REFERENCE, r, beta=BETA)) for r in REWARDS)


def test_groups_that_count_are_equally_badly_off_and_no_weighting_serves_the_worst_better():
    fair = games.maxmin_policy(REFERENCE, REWARDS, beta=BETA)
    means = REWARDS @ np.exp(fair.logps)
    counted = np.asarray(fair.group_weights) > 1e-3
    np.testing.assert_allclose(means[counted], means.min(), atol=1e-3)
    for w in (*np.eye(3), np.ones(3) / 3, *RNG.dirichlet(np.ones(3), size=20)):
        assert worst(fair.logps) >= worst(analysis.kl_regularised_optimum(REFERENCE, w @ REWARDS, beta=BETA)) - 1e-4
    smallest = np.exp(fair.logps) @ REWARDS.min(0)
    assert smallest <= means.min()


def test_one_group_is_the_optimum_of_its_reward_and_a_twin_changes_nothing():
    one = games.maxmin_policy(REFERENCE, REWARDS[:1], beta=BETA).logps
    np.testing.assert_allclose(one, analysis.kl_regularised_optimum(REFERENCE, REWARDS[0], beta=BETA), atol=1e-5)
    twins = games.maxmin_policy(REFERENCE, np.concatenate([REWARDS, REWARDS[:1]]), beta=BETA, steps=6000)
    np.testing.assert_allclose(
        np.exp(twins.logps), np.exp(games.maxmin_policy(REFERENCE, REWARDS, beta=BETA, steps=6000).logps), atol=1e-3
    )


@pytest.mark.parametrize(
    "call,words",
    [
        (lambda: games.maxmin_em(jax.random.key(0), X, USERS, groups=0), "groups must be an integer"),
        (lambda: games.maxmin_policy(REFERENCE, REWARDS, beta=0.0), r"beta must lie in \(0, inf\)"),
    ],
)
def test_what_is_wrong_is_said(call, words):
    with pytest.raises(ValueError, match=words):
        call()
