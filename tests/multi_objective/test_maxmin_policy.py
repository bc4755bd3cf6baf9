"""MaxMin-RLHF on a finite set: training on the worst group's reward reaches what the dual says is the best minimum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import multi_objective

BETA = 0.5
REFERENCE = np.array([0.4, 0.3, 0.2, 0.1])
# Completion by group: the first two please one group each, the third both a little.
REWARDS = np.array([[1.0, 0.0], [0.0, 1.5], [0.6, 0.6], [0.0, 0.0]])


def best_for(weights, rewards=REWARDS):
    """pi ~ ref exp(sum of w_u r_u / beta)."""
    unnormalised = REFERENCE * np.exp(rewards @ weights / BETA)
    return unnormalised / unnormalised.sum()


def utilities(policy, rewards=REWARDS):
    return policy @ rewards - BETA * np.sum(policy * np.log(policy / REFERENCE))


def exact(rewards=REWARDS):
    """The weights that minimise the dual, beta log sum of ref exp(w r / beta), by exponentiated gradient."""
    weights = np.full(rewards.shape[1], 1 / rewards.shape[1])
    for _ in range(3000):
        weights = weights * np.exp(-0.2 * (best_for(weights, rewards) @ rewards))
        weights = weights / weights.sum()
    return weights


def trained(steps=2000):
    """Ascent on E[r] - beta KL in the logits, r from `maxmin_rewards` of a batch that has each completion by its share.

    The batch is the policy's own: the mean over it is the expectation.
    """
    number = 400

    def step(logits, at):
        policy = jax.nn.softmax(logits)
        bounds = jnp.round(jnp.cumsum(policy) * number)
        batch = jnp.minimum(jnp.searchsorted(bounds, jnp.arange(number), side="right"), 3)
        rewards = multi_objective.maxmin_rewards(jnp.asarray(REWARDS)[batch], jnp.ones(number, bool))
        # What it gives the completions of the batch, for the expectation over all of them.
        worst = jnp.argmin(jnp.asarray(REWARDS)[batch].mean(0))
        advantages = jnp.asarray(REWARDS)[:, worst] - BETA * (jnp.log(policy) - np.log(REFERENCE))
        same = jnp.all(rewards == jnp.asarray(REWARDS)[batch, worst])
        gradient = policy * (advantages - policy @ advantages)
        return logits + 2.0 / jnp.sqrt(1.0 + at) * gradient, same

    logits, same = jax.lax.scan(step, jnp.log(REFERENCE), jnp.arange(steps))
    assert same.all()
    return np.asarray(jax.nn.softmax(logits))


@pytest.fixture(scope="module")
def solution():
    with jax.enable_x64(True):
        return best_for(exact())


def test_groups_with_a_weight_are_equally_well_off_at_the_optimum(solution):
    weights = exact()
    assert (weights > 0.05).all()
    np.testing.assert_allclose(*(solution @ REWARDS), rtol=1e-6)


def test_no_single_or_fixed_mixture_of_rewards_leaves_the_worst_group_better_off(solution):
    best = utilities(solution).min()
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        assert utilities(best_for(np.array([share, 1 - share]))).min() <= best + 1e-9


def test_training_on_the_worst_group_reaches_the_exact_minimum(solution):
    with jax.enable_x64(True):
        found = trained()
    assert utilities(found).min() > utilities(solution).min() - 5e-3
    # From the reference there is something to gain, so that this says something.
    assert utilities(REFERENCE).min() < utilities(solution).min() - 5e-2


def test_a_group_counted_twice_changes_nothing(solution):
    twice = REWARDS[:, [0, 1, 1]]
    np.testing.assert_allclose(best_for(exact(twice), twice), solution, atol=1e-4)


def test_the_smallest_reward_of_each_sample_is_another_and_smaller_objective(solution):
    assert solution @ REWARDS.min(1) < (solution @ REWARDS).min() - 0.1
