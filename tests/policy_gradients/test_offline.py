"""A-LoL and its baselines against their identities in the catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import losses
from alignment.policy_gradients import (
    a_lol,
    a_lol_advantages,
    a_lol_kl,
    a_lol_reference_free,
    a_lol_sequence,
    gold,
    r_lol,
    wbc,
)

N, T = 8, 5
RNG = np.random.default_rng(0)
TOKENS, REFERENCE_TOKENS = (jnp.asarray(-RNG.gamma(1.0, size=(N, T)), jnp.float32) for _ in range(2))
MASK = jnp.asarray(RNG.random((N, T)) < 0.7).at[:, 0].set(True)
ADVANTAGES = jnp.asarray(RNG.normal(size=N), jnp.float32).at[0].set(0.0)


def total(tokens):
    return jnp.sum(jnp.where(MASK, tokens, 0.0), -1)


LOGPS, REFERENCE = total(TOKENS), total(REFERENCE_TOKENS)
# Each on token log-probs: (policy tokens, reference tokens, weights) -> [N].
VARIANTS = {
    "a_lol": lambda p, r, a: a_lol(total(p), total(r), a),
    "a_lol_sequence": lambda p, r, a: a_lol_sequence(p, r, a, MASK),
    "a_lol_reference_free": lambda p, r, a: a_lol_reference_free(total(p), a),
}


def token_slopes(loss, *args):
    return jax.grad(lambda tokens: jnp.sum(loss(tokens, *args)))(TOKENS)


def test_all_variants_have_one_gradient_where_the_policy_is_the_reference():
    expected = -jnp.where(MASK, jax.nn.relu(ADVANTAGES)[:, None], 0.0)
    for loss in VARIANTS.values():
        np.testing.assert_allclose(token_slopes(loss, TOKENS, ADVANTAGES), expected, rtol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_rows_without_a_positive_advantage_contribute_exactly_nothing(name):
    discarded = ADVANTAGES <= 0
    assert discarded.any()
    values = VARIANTS[name](TOKENS, REFERENCE_TOKENS, ADVANTAGES)
    np.testing.assert_array_equal(values[discarded], 0)
    np.testing.assert_array_equal(token_slopes(VARIANTS[name], REFERENCE_TOKENS, ADVANTAGES)[discarded], 0)
    assert np.all(values[~discarded] > 0)


def test_gradient_is_minus_the_advantage_times_a_weight_inside_the_clip():
    for eps in (0.0, 0.5, 0.9):
        got = jax.grad(lambda p, e=eps: jnp.sum(a_lol(p, REFERENCE, ADVANTAGES, eps=e)))(LOGPS)
        weights = -got[ADVANTAGES > 0] / ADVANTAGES[ADVANTAGES > 0]
        assert np.all(weights >= 1 - eps - 1e-6) and np.all(weights <= 1 + eps + 1e-6)
        inside = jnp.clip(jnp.exp(LOGPS - REFERENCE), 1 - eps, 1 + eps)
        np.testing.assert_allclose(weights, inside[ADVANTAGES > 0], rtol=1e-5)


def test_a_clipped_ratio_still_has_a_gradient():
    got = jax.grad(lambda p: jnp.sum(a_lol(p, p * 0 - 30.0, jnp.abs(ADVANTAGES) + 1)))(LOGPS)
    np.testing.assert_allclose(got, -1.9 * (jnp.abs(ADVANTAGES) + 1), rtol=1e-5)


def test_the_kl_variant_adds_beta_to_the_slope_of_every_token():
    def with_penalty(tokens):
        return a_lol_kl(total(tokens), REFERENCE, ADVANTAGES, beta=0.3)

    free = token_slopes(VARIANTS["a_lol_reference_free"], REFERENCE_TOKENS, ADVANTAGES)
    np.testing.assert_allclose(token_slopes(with_penalty), free + jnp.where(MASK, 0.3, 0.0), rtol=1e-5, atol=1e-6)
    zero = a_lol_kl(LOGPS, REFERENCE, ADVANTAGES, beta=0.0)
    np.testing.assert_array_equal(zero, a_lol_reference_free(LOGPS, ADVANTAGES))


def test_r_lol_is_a_lol_on_rewards_and_with_a_constant_and_no_clip_width_it_is_sft():
    positive = jnp.abs(ADVANTAGES)
    np.testing.assert_array_equal(r_lol(LOGPS, REFERENCE, positive), a_lol(LOGPS, REFERENCE, positive))
    nll = jnp.sum(losses.sft(TOKENS, MASK), -1)
    np.testing.assert_allclose(r_lol(LOGPS, REFERENCE, jnp.ones(N), eps=0.0), nll, rtol=1e-5)
    assert np.all(r_lol(LOGPS, REFERENCE, -jnp.ones(N)) < 0)


def test_wbc_with_reward_one_is_sft_and_its_slope_is_minus_the_reward():
    np.testing.assert_allclose(wbc(LOGPS, jnp.ones(N)), jnp.sum(losses.sft(TOKENS, MASK), -1), rtol=1e-5)
    got = token_slopes(lambda tokens: wbc(total(tokens), ADVANTAGES))
    np.testing.assert_allclose(got, -jnp.where(MASK, ADVANTAGES[:, None], 0.0), rtol=1e-6)


def test_gold_with_floor_one_is_weighted_behaviour_cloning():
    np.testing.assert_allclose(gold(TOKENS, ADVANTAGES, MASK, floor=1.0), wbc(LOGPS, ADVANTAGES), rtol=1e-5)


def test_gold_with_floor_zero_has_the_gradient_of_the_sum_of_probabilities():
    got = token_slopes(lambda tokens: gold(tokens, ADVANTAGES, MASK, floor=0.0))
    expected = token_slopes(lambda tokens: -ADVANTAGES * total(jnp.exp(tokens)))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_gold_weights_lie_between_the_floor_and_one():
    weights = -token_slopes(lambda tokens: gold(tokens, jnp.ones(N), MASK, floor=0.2))[np.asarray(MASK)]
    assert np.all(weights >= 0.2 - 1e-6) and np.all(weights <= 1) and np.any(weights > 0.2)


def test_advantages_are_what_a_response_beats_the_references_value_by():
    got = a_lol_advantages(jnp.array([1.0, 2.0, 3.0]), jnp.full(3, 2.0))
    np.testing.assert_array_equal(got, [0, 0, 1])
    log = a_lol(LOGPS, REFERENCE, a_lol_advantages(ADVANTAGES, jnp.zeros(N)))
    np.testing.assert_array_equal(log, a_lol(LOGPS, REFERENCE, ADVANTAGES))  # clipping twice is clipping once
