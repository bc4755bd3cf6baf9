"""MetaRM's gradient: the ordinary one at step 0, taken where the samples lie further apart otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alignment.losses
from alignment import objective, statistics
from alignment.data import collating, corpus, formats, rows
from alignment.data.tokenizers import ByteTokenizer
from alignment.models import decoder
from alignment.training import meta_gradient, step

SIDES = ("chosen", "rejected", "samples")
MODEL = decoder.build(
    decoder.DecoderConfig(
        vocab_size=ByteTokenizer().vocab_size, hidden_size=8, intermediate_size=16, num_layers=1, num_heads=2,
        reward_heads=1,
    )
)  # fmt: skip


@pytest.fixture(scope="module")
def setting():
    examples = formats.from_records(corpus.generate("sampled_pairs", 4, 0), "sampled_pairs")
    tokenised, _ = rows.tokenize(examples, ByteTokenizer(), prompt_length=32, completion_length=48)
    batch = {k: jnp.asarray(v) for k, v in collating.collate_trees(tokenised, 32, 48, 6).items()}
    terms = objective.bind({"bt_reward_loss": {}}, alignment.losses, "objective", SIDES, ())
    params = MODEL.init(jax.random.key(0))
    params["reward_head"] = jax.random.normal(jax.random.key(1), params["reward_head"].shape)
    return params, batch, terms, objective.weights(terms, SIDES, batch)


def gradient_at(setting, meta_step):
    params, batch, terms, denominators = setting
    gradient = meta_gradient.make_gradient(MODEL, {}, terms, (), SIDES, (), meta_step=meta_step)
    return jax.jit(gradient)(params, {}, {}, denominators, batch)


def test_without_an_inner_step_it_is_the_ordinary_gradient_and_with_one_that_of_the_moved_weights(setting):
    params, batch, terms, denominators = setting
    losses = step.make_losses(MODEL, {}, terms, (), SIDES)

    def loss_of(params):
        return step.divide(losses(params, {}, {}, batch)[0], denominators)["bt_reward_loss"]

    def separation(params):
        needs = statistics.needs_of(["samples_rewards"])
        computed = statistics.compute(needs, MODEL, params, {}, batch)
        rewards, mask = (statistics.deliver(n, SIDES, computed, batch) for n in ("samples_rewards", "samples_mask"))
        assert rewards.shape == (4, 4)
        return alignment.losses.meta_rm_separation(rewards, mask).mean()

    up = jax.grad(separation)(params)
    for meta_step in (0.0, 0.5):
        moved = jax.tree.map(lambda p, g, s=meta_step: p + s * g, params, up)
        expected, slopes = jax.value_and_grad(loss_of)(moved)
        (loss, _), grads = gradient_at(setting, meta_step)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        for got, want in zip(jax.tree.leaves(grads), jax.tree.leaves(slopes), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)
    assert separation(moved) > separation(params)


def test_data_without_samples_are_refused(setting):
    with pytest.raises(ValueError, match="needs 'samples_rewards', but the data set offers 'chosen', 'rejected'"):
        meta_gradient.make_gradient(MODEL, {}, setting[2], (), ("chosen", "rejected"), (), meta_step=0.1)
