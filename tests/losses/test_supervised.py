"""SFT against its identities, from logits to the reduced loss."""

import hypothesis
import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import reductions, sft

B, T, V = 3, 4, 6
MASK = jnp.array([[True, True, False, False], [True, False, True, True], [False, False, False, True]])
REDUCTIONS = {
    "token_mean": reductions.token_mean,
    "sequence_mean": reductions.sequence_mean,
    "sum": reductions.constant(1),
}


def setup(seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(B, T, V)), jnp.float32), jnp.asarray(rng.integers(0, V, (B, T)))


def loss_of(logits, targets, mask=MASK, reduction=reductions.token_mean):
    logps = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)[..., 0]
    total, weight = reduction(sft(logps, mask), mask)
    return total / weight


def test_uniform_logits_give_log_of_the_vocabulary():
    _, targets = setup()
    np.testing.assert_allclose(loss_of(jnp.zeros((B, T, V)), targets), np.log(V), rtol=1e-6)


def test_gradient_of_the_logits_is_probability_minus_one_hot_over_the_token_count():
    logits, targets = setup()
    expected = (jax.nn.softmax(logits) - jax.nn.one_hot(targets, V)) * MASK[..., None] / MASK.sum()
    np.testing.assert_allclose(jax.grad(loss_of)(logits, targets), expected, rtol=1e-5, atol=1e-7)


def test_adding_a_constant_to_the_logits_of_a_position_changes_nothing():
    logits, targets = setup()
    shift = jnp.arange(B * T, dtype=jnp.float32).reshape(B, T, 1)
    np.testing.assert_allclose(loss_of(logits + shift, targets), loss_of(logits, targets), rtol=1e-5)


def test_rows_of_equal_length_have_one_token_mean_and_sequence_mean():
    logits, targets = setup()
    mask = jnp.array([[True, True, False, False], [False, True, False, True], [False, False, True, True]])
    by_token = loss_of(logits, targets, mask, reductions.token_mean)
    np.testing.assert_allclose(by_token, loss_of(logits, targets, mask, reductions.sequence_mean), rtol=1e-6)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_row_without_tokens_does_not_count(name):
    logits, targets = setup()
    empty = MASK.at[1].set(False)
    keep = np.array([0, 2])
    np.testing.assert_allclose(
        loss_of(logits, targets, empty, REDUCTIONS[name]),
        loss_of(logits[keep], targets[keep], MASK[keep], REDUCTIONS[name]),
        rtol=1e-6,
    )


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(mask=hnp.arrays(bool, hnp.array_shapes(min_dims=1, max_dims=3, max_side=4)))
def test_values_are_the_negative_log_probs_on_the_mask_and_zero_behind_it(mask):
    logps = -np.random.default_rng(0).gamma(1.0, size=mask.shape).astype(np.float32)
    values = sft(jnp.where(mask, logps, -jnp.inf), jnp.asarray(mask))
    np.testing.assert_array_equal(values, np.where(mask, -logps, 0))


def test_a_shared_denominator_makes_micro_batches_exact_and_a_mean_of_means_does_not():
    logits, targets = setup()
    weight = reductions.token_mean.weight(MASK)
    logps = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)[..., 0]
    parts = [slice(0, 1), slice(1, 3)]
    exact = sum(reductions.token_mean.total(sft(logps[p], MASK[p]), MASK[p]) for p in parts) / weight
    mean_of_means = sum(loss_of(logits[p], targets[p], MASK[p]) for p in parts) / 2
    np.testing.assert_allclose(exact, loss_of(logits, targets), rtol=1e-6)
    assert abs(mean_of_means - exact) > 1e-3
