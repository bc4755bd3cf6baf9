"""Process reward losses against their identities in the catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import prm_last_step_loss, prm_step_loss, prm_value_loss, reductions

RNG = np.random.default_rng(0)
SCORES = jnp.asarray(RNG.normal(size=(3, 5, 2)), jnp.float32)
MASK = jnp.array([[1, 0, 1, 0, 1], [0, 1, 0, 0, 0], [1, 1, 0, 1, 0]], bool)
HARD = jnp.asarray(RNG.integers(0, 2, (3, 5)), jnp.float32)


def test_equal_logits_cost_log_two_whatever_the_label():
    got = prm_step_loss(jnp.full((3, 5, 2), 1.5), jnp.asarray(RNG.random((3, 5)), jnp.float32), MASK)
    np.testing.assert_allclose(got[MASK], np.log(2), rtol=1e-6)


def test_hard_labels_are_logistic_regression_on_the_difference_of_the_logits():
    got = prm_step_loss(SCORES, HARD, MASK)
    expected = -jax.nn.log_sigmoid((2 * HARD - 1) * (SCORES[..., 1] - SCORES[..., 0]))
    np.testing.assert_allclose(got[MASK], expected[MASK], rtol=1e-5)


def test_the_batch_loss_is_a_mean_over_tokens_and_not_over_solutions():
    values = prm_step_loss(SCORES, HARD, MASK)
    loss = reductions.token_mean.total(values, MASK) / reductions.token_mean.weight(MASK)
    np.testing.assert_allclose(loss, values[MASK].mean(), rtol=1e-6)
    of_solutions = jnp.stack([values[b][MASK[b]].mean() for b in range(3)]).mean()
    assert abs(loss - of_solutions) > 1e-3


def test_only_the_last_step_teaches_an_outcome_model():
    got = prm_last_step_loss(SCORES, HARD, MASK)
    np.testing.assert_allclose(got, prm_step_loss(SCORES, HARD, MASK)[jnp.arange(3), jnp.array([4, 1, 3])], rtol=1e-6)
    gradient = jax.grad(lambda s: prm_last_step_loss(s, HARD, MASK).sum())(SCORES)
    assert ((np.abs(gradient).sum(-1) > 0).sum(axis=1) == 1).all()


@pytest.mark.parametrize("kernel", [prm_last_step_loss, prm_step_loss])
def test_a_solution_whose_labels_were_cut_off_costs_nothing(kernel):
    np.testing.assert_array_equal(kernel(SCORES, HARD, jnp.zeros((3, 5), bool)), 0.0)


def targets(correct, gamma):
    """What the value head is to say, read off the loss: its slope at 0 is -2 target / steps."""
    zero = jnp.zeros((3, 5))
    slope = jax.grad(lambda v: prm_value_loss(v, HARD, MASK, correct, gamma=gamma).sum())(zero)
    return -slope * MASK.sum(axis=1, keepdims=True) / 2


def test_a_wrong_outcome_leaves_the_step_labels():
    np.testing.assert_allclose(targets(jnp.zeros(3, bool), 0.9)[MASK], HARD[MASK], rtol=1e-6)


def test_the_last_step_gets_the_whole_outcome_and_earlier_ones_less():
    gained = targets(jnp.ones(3, bool), 0.5) - HARD
    np.testing.assert_allclose(gained[0][MASK[0]], [0.25, 0.5, 1.0], rtol=1e-6)


def test_without_foresight_only_the_last_step_sees_the_outcome():
    gained = targets(jnp.ones(3, bool), 0.0) - HARD
    np.testing.assert_allclose(gained[0][MASK[0]], [0.0, 0.0, 1.0], atol=1e-6)


def test_long_solutions_weigh_no_more_than_short_ones():
    mask = jnp.array([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0]], bool)
    loss = prm_value_loss(jnp.ones((2, 5)), jnp.zeros((2, 5)), mask, jnp.zeros(2, bool))
    np.testing.assert_allclose(loss, 1.0)
