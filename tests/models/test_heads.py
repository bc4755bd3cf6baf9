"""Reward heads read one column per completion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.models import decoder, heads

CONFIG = decoder.DecoderConfig(vocab_size=11, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=2)


def test_rewards_are_products_at_the_last_tokens():
    params = {"reward_head": np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)}
    h = np.random.default_rng(1).normal(size=(2, 6, 8)).astype(np.float32)
    last = np.array([[3, 5], [0, 2]])
    rewards = heads.rewards(params, h, last)
    expected = np.stack([[h[b, last[b, s]] @ params["reward_head"] for s in range(2)] for b in range(2)])
    np.testing.assert_allclose(rewards, expected, rtol=1e-5, atol=1e-6)
    assert heads.rewards(params, h.astype(jnp.bfloat16), last).dtype == jnp.float32


def test_other_columns_do_not_matter_even_as_nan():
    params = {"reward_head": jnp.ones((8, 1))}
    h = jnp.full((1, 4, 8), jnp.nan).at[:, 2].set(1.0)
    loss = lambda h: heads.rewards(params, h, jnp.array([[2]])).sum()  # noqa: E731
    value, gradient = jax.value_and_grad(loss)(h)
    assert value == 8
    np.testing.assert_array_equal(gradient[0].sum(-1), [0, 0, 8, 0])


def test_heads_are_added_to_a_language_model():
    params = decoder.init(CONFIG, jax.random.key(0))
    with pytest.raises(ValueError, match="no reward_head"):
        heads.rewards(params, jnp.zeros((1, 2, 8)), jnp.zeros((1, 1), int))
    config, with_heads = heads.add_reward_heads(CONFIG, params, jax.random.key(1), 2)
    assert config.reward_heads == 2 and with_heads["reward_head"].shape == (8, 2)
    assert "reward_head" not in params
    with pytest.raises(ValueError, match="must be >= 1"):
        heads.add_reward_heads(CONFIG, params, jax.random.key(1), 0)
