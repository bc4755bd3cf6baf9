"""SFTMix: what the mixture of two demonstrations is, and its limits, from the rows to the loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import losses, objective, statistics
from alignment.data import collating, corpus, formats, halves, rows, tokenizers
from alignment.models import decoder

SIDES = ("confident", "unconfident")
CONFIG = decoder.DecoderConfig(
    vocab_size=320, hidden_size=16, intermediate_size=32, num_layers=1, num_heads=2, num_kv_heads=1, logit_softcap=None
)
MODEL = decoder.build(CONFIG)
PARAMS = jax.tree.map(lambda x: 8 * x, MODEL.init(jax.random.key(0)))  # far from uniform
(TERM,) = objective.bind({"sftmix": {"mu": 0.2}}, losses, "objective", SIDES, ("mix_weights",))
NEEDS = statistics.needs_of(TERM.arguments)


@functools.cache
def examples():
    records = formats.from_records(corpus.generate("completion", 8, 0), "completion")
    return rows.tokenize(records, tokenizers.ByteTokenizer(), prompt_length=32, completion_length=48)[0]


def batch_of(confident, unconfident, weights):
    collated = collating.collate_several_prompts(halves.paired(confident, unconfident), 32, 48, 2)
    return collated | {"mix_weights": np.asarray(weights, np.float32)}


@functools.partial(jax.jit, static_argnames="mu")
def loss(batch, mu=0.2):
    computed = statistics.compute(NEEDS, MODEL, PARAMS, {}, batch)
    return losses.sftmix(*(statistics.deliver(a, SIDES, computed, batch) for a in TERM.arguments), mu=mu)


@jax.jit
def token_nlls(batch):
    """Of every side's tokens, written out: log-softmax over the whole vocabulary."""
    _, states = statistics.completion_hidden(MODEL, PARAMS, batch)
    logits = states @ MODEL.head(PARAMS).T
    logps = jnp.take_along_axis(jax.nn.log_softmax(logits), batch["targets"][..., None], -1)[..., 0]
    return jnp.where(batch["mask"], -logps, 0), logits


def mean(values, mask):
    return values.sum(axis=-1) / mask.sum(axis=-1)


CONFIDENT, UNCONFIDENT = range(4), range(4, 8)
WEIGHTS = np.array([0.0, 0.3, 0.9, 1.0])


def plain_batch(weights=WEIGHTS):
    found = examples()
    return batch_of([found[i] for i in CONFIDENT], [found[i] for i in UNCONFIDENT], weights)


def test_mu_of_zero_is_sft_on_both_demonstrations():
    batch = plain_batch()
    nlls, _ = token_nlls(batch)
    expected = nlls.sum(axis=(1, 2)) / batch["mask"].sum(axis=(1, 2))
    np.testing.assert_allclose(loss(batch, mu=0.0), expected, rtol=1e-5)


def test_a_weight_of_one_is_sft_of_the_confident_member_cut_to_the_common_length():
    for weight, side in ((1.0, 0), (0.0, 1)):
        batch = plain_batch(np.full(4, weight))
        both = batch["mask"].all(axis=1)
        assert (both.sum(axis=-1) == batch["mask"].sum(axis=-1).min(axis=1)).all()
        assert (both.sum(axis=-1) < batch["mask"].sum(axis=-1).max(axis=1)).any()
        cut = mean(jnp.where(both, token_nlls(batch)[0][:, side], 0), both)
        np.testing.assert_allclose(loss(batch, mu=2.0) - loss(batch, mu=0.0), 2 * cut, rtol=1e-4)


def test_swapping_the_members_and_their_weights_changes_nothing():
    found, batch = examples(), plain_batch()
    swapped = batch_of([found[i] for i in UNCONFIDENT], [found[i] for i in CONFIDENT], 1 - WEIGHTS)
    np.testing.assert_allclose(loss(swapped, mu=3.0), loss(batch, mu=3.0), rtol=1e-5)


def test_identical_members_give_sft_whatever_the_weight():
    found = [examples()[i] for i in CONFIDENT]
    batch = batch_of(found, found, WEIGHTS)
    np.testing.assert_allclose(loss(batch, mu=1.0), 2 * loss(batch, mu=0.0), rtol=1e-5)


def test_mixing_states_is_mixing_logits_and_the_labels_mix_alike():
    """The regulariser against the cross-entropy of mixed logits to mixed one-hot labels, and its gradient p~ - y~."""
    batch = plain_batch()
    both, weights = batch["mask"].all(axis=1), WEIGHTS[:, None, None]
    _, logits = token_nlls(batch)
    mixed = weights * logits[:, 0] + (1 - weights) * logits[:, 1]
    one_hot = jax.nn.one_hot(batch["targets"], CONFIG.vocab_size)
    labels = weights * one_hot[:, 0] + (1 - weights) * one_hot[:, 1]
    entropies = -(labels * jax.nn.log_softmax(mixed)).sum(axis=-1)
    expected = mean(jnp.where(both, entropies, 0), both)
    np.testing.assert_allclose(loss(batch, mu=1.0) - loss(batch, mu=0.0), expected, rtol=1e-4)

    def of_logits(z):
        targets = jnp.asarray(batch["targets"])
        logps = [jnp.take_along_axis(jax.nn.log_softmax(z), targets[:, s, :, None], -1)[..., 0] for s in (0, 1)]
        nothing, mask = jnp.zeros_like(logps[0]), jnp.asarray(both)
        return losses.sftmix(nothing, nothing, *logps, jnp.asarray(WEIGHTS), mask, mask, mu=1.0).sum()

    expected = jnp.where(both[..., None], jax.nn.softmax(mixed) - labels, 0) / both.sum(axis=-1)[:, None, None]
    np.testing.assert_allclose(jax.grad(of_logits)(mixed), expected, atol=1e-6)


def test_gradients_pass_through_both_hidden_states_and_none_through_the_weights():
    first, second = (jax.random.normal(jax.random.key(i), (2, 3, 4)) for i in (0, 1))
    weights, mask = jnp.array([0.25, 1.0]), jnp.ones((2, 3), bool)
    of_first, of_second, of_weights = jax.grad(lambda *x: statistics.mixed_states(*x, mask).sum(), argnums=(0, 1, 2))(
        first, second, weights
    )
    np.testing.assert_allclose(of_first, np.broadcast_to(np.array([0.25, 1.0])[:, None, None], (2, 3, 4)))
    np.testing.assert_allclose(of_second, 1 - of_first)
    np.testing.assert_array_equal(of_weights, 0)
    hidden = mask.at[0, 1].set(False)
    poisoned = statistics.mixed_states(first.at[0, 1].set(jnp.nan), second, weights, hidden)
    assert (poisoned[0, 1] == 0).all() and jnp.isfinite(poisoned).all()


@pytest.mark.parametrize(
    "sides,columns",
    [(("",), ("mix_weights",)), (("confident", "unconfident"), ("valid",))],
)
def test_mixed_statistics_need_two_sides_and_weights(sides, columns):
    name = "mixed_confident_token_logps" if len(sides) > 1 else "mixed_token_logps"
    with pytest.raises(ValueError, match=rf"needs '{name}': rows of two completions or more, here {len(sides)}"):
        statistics.check_available(name, sides, columns, "k")
