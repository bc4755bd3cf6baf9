"""Losses of several heads against their identities in the catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import (
    armo_gate_loss,
    bt_reward_heads_loss,
    bt_reward_loss,
    general_preference_model,
    general_preference_model_scaled,
    length_disentangled_rm,
)

RNG = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


# --- ensembles -------------------------------------------------------------------------------------------------------


def test_one_head_that_sees_everything_is_bradley_terry():
    chosen, rejected = draw(6, 1), draw(6, 1)
    got = bt_reward_heads_loss(chosen, rejected, jnp.arange(6))
    np.testing.assert_allclose(got, bt_reward_loss(chosen[:, 0], rejected[:, 0]), rtol=1e-6)


def test_a_heads_part_of_the_data_is_its_own_and_always_the_same():
    def seen(ids, **hyper):
        """Which heads get a gradient from which pair."""
        heads = jnp.ones((len(ids), 4))
        loss = lambda c: bt_reward_heads_loss(c, heads * 0, ids, share=0.5, **hyper).sum()  # noqa: E731
        return np.asarray(jax.grad(loss)(heads)) != 0

    ids = jnp.arange(400)
    parts = seen(ids)
    np.testing.assert_array_equal(seen(ids[::-1]), parts[::-1])
    np.testing.assert_allclose(parts.mean(axis=0), 0.5, atol=0.1)
    assert (parts[:, 0] != parts[:, 1]).mean() > 0.4
    assert (parts != seen(ids, seed=1)).mean() > 0.4


# --- ODIN ------------------------------------------------------------------------------------------------------------

LENGTHS = (jnp.array([5, 9, 30, 12]), jnp.array([8, 7, 20, 3]))
WEIGHTS, VALID = draw(2, 6), jnp.ones(4, bool)


def odin(chosen, rejected, **hyper):
    return length_disentangled_rm(chosen, rejected, *LENGTHS, WEIGHTS, VALID, **hyper)


def test_without_the_other_terms_it_is_bradley_terry_on_the_sum():
    chosen, rejected = draw(4, 2), draw(4, 2)
    got = odin(chosen, rejected, length_weight=0.0, orthogonality_weight=0.0)
    np.testing.assert_allclose(got, bt_reward_loss(chosen.sum(-1), rejected.sum(-1)), rtol=1e-5)


def correlation(chosen, rejected):
    zero = {"orthogonality_weight": 0.0}
    return odin(chosen, rejected, length_weight=1.0, **zero) - odin(chosen, rejected, length_weight=0.0, **zero)


def test_a_head_that_is_length_and_one_that_is_not_cost_nothing():
    both = np.concatenate(LENGTHS).astype(np.float64)
    quality = RNG.normal(size=8)
    design = np.stack([np.ones(8), both], axis=1)
    quality -= design @ np.linalg.lstsq(design, quality, rcond=None)[0]
    heads = jnp.asarray(np.stack([0.3 * both - 2, quality], axis=1), jnp.float32)
    np.testing.assert_allclose(correlation(heads[:4], heads[4:]), 0.0, atol=1e-5)


def test_correlations_see_neither_scale_nor_level():
    chosen, rejected = draw(4, 2), draw(4, 2)
    scale, level = jnp.array([2.0, 0.5]), jnp.array([1.0, -3.0])
    np.testing.assert_allclose(
        correlation(scale * chosen + level, scale * rejected + level), correlation(chosen, rejected), rtol=1e-4
    )


def test_constant_lengths_give_no_correlation_and_no_nan():
    def loss(heads):
        same = jnp.full(4, 7)
        return length_disentangled_rm(heads, -heads, same, same, WEIGHTS, VALID, orthogonality_weight=0.0).sum()

    heads = draw(4, 2)
    value, gradient = jax.value_and_grad(loss)(heads)
    np.testing.assert_allclose(value, bt_reward_loss(heads.sum(-1), -heads.sum(-1)).sum() + 4, rtol=1e-5)
    assert np.isfinite(gradient).all()


def test_orthogonality_is_the_size_of_the_cosine():
    heads = draw(4, 2)
    for weights, cosine in (([[1.0, 0.0], [0.0, 3.0]], 0.0), ([[1.0, 1.0], [-2.0, -2.0]], 1.0)):
        with_it, without = (
            length_disentangled_rm(heads, -heads, *LENGTHS, jnp.array(weights), VALID, orthogonality_weight=w)
            for w in (1.0, 0.0)
        )
        np.testing.assert_allclose(with_it - without, cosine, atol=1e-6)


# --- general preferences ---------------------------------------------------------------------------------------------


def score(first, second):
    """s(first > second), from the losses of both orders: softplus(-s) - softplus(s) = -s."""
    return general_preference_model(second, first, temperature=1.0) - general_preference_model(
        first, second, temperature=1.0
    )


def test_the_score_is_skew_symmetric_and_no_response_beats_itself():
    first, second = draw(5, 6), draw(5, 6)
    np.testing.assert_allclose(score(first, second), -score(second, first), rtol=1e-5)
    np.testing.assert_allclose(score(first, first), 0.0, atol=1e-5)


def test_embeddings_of_a_reward_and_one_are_bradley_terry():
    a, b = draw(5), draw(5)
    embed = lambda r: jnp.stack([r, jnp.ones_like(r)], axis=-1)  # noqa: E731
    np.testing.assert_allclose(
        general_preference_model(embed(a), embed(b), temperature=0.5), bt_reward_loss(a, b, temperature=0.5), rtol=1e-5
    )


def test_three_embeddings_on_a_circle_beat_each_other_in_turn():
    angles = 2 * np.pi * np.arange(3) / 3
    circle = jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], axis=-1), jnp.float32)
    wins = np.asarray(score(circle, jnp.roll(circle, -1, axis=0)))
    assert (wins > 0.5).all() or (wins < -0.5).all()


def test_a_common_rotation_of_a_block_changes_nothing():
    first, second = draw(5, 2), draw(5, 2)
    turn = jnp.array([[np.cos(1.1), -np.sin(1.1)], [np.sin(1.1), np.cos(1.1)]], jnp.float32)
    np.testing.assert_allclose(score(first @ turn, second @ turn), score(first, second), rtol=1e-4, atol=1e-5)


def test_equal_gates_are_the_model_without_them():
    chosen, rejected = draw(4, 6), draw(4, 6)
    got = general_preference_model_scaled(chosen, rejected, jnp.zeros((4, 6)), temperature=0.7)
    plain = general_preference_model(chosen[:, :4], rejected[:, :4], temperature=0.7)
    np.testing.assert_allclose(got, plain, rtol=1e-5)


# --- ArmoRM ----------------------------------------------------------------------------------------------------------


def test_a_uniform_gate_is_the_mean_of_the_attributes():
    chosen, rejected = draw(4, 6), draw(4, 6)
    got = armo_gate_loss(chosen, rejected, jnp.zeros((4, 6)), scale=2.0)
    mean = bt_reward_loss(2 * chosen[:, :3].mean(-1), 2 * rejected[:, :3].mean(-1))
    np.testing.assert_allclose(got, mean, rtol=1e-5)


def test_swapping_the_responses_negates_the_logit():
    chosen, rejected, prompt = draw(4, 6), draw(4, 6), draw(4, 6)
    there, back = armo_gate_loss(chosen, rejected, prompt), armo_gate_loss(rejected, chosen, prompt)
    # softplus(-z) and softplus(z) of the same z
    np.testing.assert_allclose(jnp.exp(-there) + jnp.exp(-back), 1.0, rtol=1e-5)


@pytest.mark.parametrize("loss,heads", [(general_preference_model, 3), (armo_gate_loss, 3)])
def test_an_odd_number_of_heads_is_refused(loss, heads):
    with pytest.raises(AssertionError, match="even number of heads"):
        loss(*[draw(4, heads)] * (3 if loss is armo_gate_loss else 2))
