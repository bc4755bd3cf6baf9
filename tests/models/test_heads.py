"""Reward heads read one column per completion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import statistics
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


def test_a_value_model_is_a_copy_with_a_head_of_its_own_and_alone_trains_the_values():
    params = jax.tree.map(lambda a: 4 * a, decoder.init(CONFIG, jax.random.key(0)))
    both = heads.add_value_model(CONFIG, params, jax.random.key(1))
    assert heads.value_params(params) is params and "reward_head" not in heads.policy_params(both)
    np.testing.assert_array_equal(heads.value_params(both)["embedding"], params["embedding"])
    mask = np.ones((2, 1, 3), bool)
    batch = {
        "tokens": np.array([[1, 2, 3, 4], [5, 6, 7, 0]]), "positions": np.tile(np.arange(4), (2, 1)),
        "segment_ids": np.full((2, 4), 1024), "targets": np.ones((2, 1, 3), int), "mask": mask,
        "predict_from": np.tile(np.arange(3), (2, 1, 1)), "last_index": np.full((2, 1), 3),
    }  # fmt: skip
    model, needs = decoder.build(CONFIG), statistics.needs_of(["token_values", "policy_token_logps"])

    def computed(params):
        return statistics.compute(needs, model, params, {}, batch)

    alone = statistics.compute(statistics.needs_of(["policy_token_logps"]), model, params, {}, batch)
    np.testing.assert_array_equal(computed(both)["policy_token_logps"], alone["policy_token_logps"])
    for key, trained in (("token_values", heads.VALUE_MODEL), ("policy_token_logps", "policy")):
        gradient = jax.grad(lambda p, key=key: jnp.sum(computed(p)[key] ** 2))(both)
        moved = {
            "policy": any(jnp.any(g != 0) for g in jax.tree.leaves(heads.policy_params(gradient))),
            heads.VALUE_MODEL: any(jnp.any(g != 0) for g in jax.tree.leaves(gradient[heads.VALUE_MODEL])),
        }
        assert [name for name, changed in moved.items() if changed] == [trained]
