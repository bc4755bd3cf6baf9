"""Prefix values: what the regression finds is the mean reward of what follows."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from alignment import losses


def test_the_minimum_over_all_responses_of_the_base_is_the_expected_reward_of_each_prefix():
    """Responses of two letters with their probabilities as weights, a table of one value for each prefix."""
    rng = np.random.default_rng(0)
    responses = np.array(list(itertools.product(range(3), repeat=2)))
    probs, rewards = rng.dirichlet(np.ones(9)).astype(np.float32), rng.normal(size=9).astype(np.float32)
    prefixes = np.stack([responses[:, 0], 3 + 3 * responses[:, 0] + responses[:, 1]], axis=1)
    table = np.zeros(12, np.float32)
    for prefix in range(12):
        with_it = (prefixes == prefix).any(axis=1)
        table[prefix] = (probs * rewards)[with_it].sum() / probs[with_it].sum()

    def loss(table):
        each = losses.cd_fudge(table[prefixes], jnp.asarray(rewards), jnp.ones((9, 2), bool))
        return jnp.sum(probs[:, None] * each)

    np.testing.assert_allclose(jax.grad(loss)(jnp.asarray(table)), 0.0, atol=1e-6)
