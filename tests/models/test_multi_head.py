"""Output heads: routed rows equal separate models, no gradient crosses, and a mixture is a plain model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_steps

from alignment import statistics
from alignment.models import decoder, multi_head

MODEL = tiny_steps.MODEL
PARAMS = multi_head.add_heads(MODEL, MODEL.init(jax.random.key(0)), 2, jax.random.key(1), noise=0.1)
NEEDS = statistics.needs_of(["policy_chosen_logps"])
IDS = np.array([0, 1, 0, 1, 1, 0, 0, 1], np.int32)


def logps(params, ids=IDS, model=MODEL):
    batch = tiny_steps.batch() | {"objective_ids": ids}
    return statistics.compute(NEEDS, model, params, {}, batch)["policy_token_logps"]


def head(number):
    weights = np.eye(2)[number].tolist()
    return multi_head.mix_heads(MODEL.config, PARAMS, weights)


def test_a_row_is_scored_by_the_head_of_its_objective():
    got = logps(PARAMS)
    for number in (0, 1):
        config, plain = head(number)
        alone = statistics.compute(NEEDS, decoder.build(config), plain, {}, tiny_steps.batch())["policy_token_logps"]
        np.testing.assert_allclose(got[number == IDS], alone[number == IDS], rtol=1e-5, atol=1e-5)
    assert np.abs(logps(PARAMS, 1 - IDS) - got).max() > 1e-3


def test_a_head_gets_no_gradient_from_pairs_of_another_objective():
    gradient = jax.grad(lambda p: logps(p, np.zeros(8, np.int32)).sum())(PARAMS)
    assert np.abs(gradient[multi_head.NAME][0]).max() > 0
    np.testing.assert_array_equal(gradient[multi_head.NAME][1], 0)
    assert max(np.abs(g).max() for g in jax.tree.leaves(gradient["layers"])) > 0


def test_mixed_logits_are_the_weighted_sum_and_the_normalised_geometric_mean():
    h = jnp.asarray(np.random.default_rng(0).normal(size=(3, MODEL.config.hidden_size)), jnp.float32)
    each = [decoder.unembed(*head(n), h) for n in (0, 1)]
    mixed = decoder.unembed(*multi_head.mix_heads(MODEL.config, PARAMS, [3.0, 1.0]), h)
    np.testing.assert_allclose(mixed, 0.75 * each[0] + 0.25 * each[1], rtol=1e-4, atol=1e-6)
    geometric = jnp.exp(0.75 * jax.nn.log_softmax(each[0]) + 0.25 * jax.nn.log_softmax(each[1]))
    np.testing.assert_allclose(jax.nn.softmax(mixed), geometric / geometric.sum(-1, keepdims=True), rtol=1e-4)


def test_without_noise_every_head_is_the_model_and_mixing_them_does_nothing():
    plain = MODEL.init(jax.random.key(0))
    params = multi_head.add_heads(MODEL, plain, 3, jax.random.key(1), noise=0.0)
    h = jnp.ones((2, MODEL.config.hidden_size), jnp.float32)
    for weights in ([1, 0, 0], [0.2, 0.3, 0.5]):
        mixed = decoder.unembed(*multi_head.mix_heads(MODEL.config, params, weights), h)
        np.testing.assert_allclose(mixed, MODEL.unembed(plain, h), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        multi_head.wrap(MODEL, 3).unembed(params, h), MODEL.unembed(plain, h), rtol=1e-5, atol=1e-7
    )


def test_a_tied_input_embedding_does_not_move_with_the_heads():
    tied = decoder.build(dataclasses.replace(MODEL.config, tie_word_embeddings=True))
    params = multi_head.wrap(tied, 2).init(jax.random.key(0))
    assert "lm_head" not in params
    np.testing.assert_allclose(params[multi_head.NAME][0], params["embedding"], atol=1e-2)
    gradient = jax.grad(lambda p: multi_head.wrap(tied, 2).unembed(p, jnp.ones((1, 16))).sum())(params)
    np.testing.assert_array_equal(gradient["embedding"], 0)
    assert np.abs(gradient[multi_head.NAME]).max() > 0


@pytest.mark.parametrize(
    ("weights", "message"),
    [([0.0, 0.0], "must not all be 0"), ([1.0], "one number for each of the 2"), ([-1.0, 2.0], r"lie in \[0, inf\)")],
)
def test_weights_that_do_not_fit_the_heads_are_an_error(weights, message):
    with pytest.raises(ValueError, match=message):
        multi_head.mix_heads(MODEL.config, PARAMS, weights)
