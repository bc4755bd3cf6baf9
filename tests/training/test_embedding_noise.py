"""NEFTune's noise: its size for every length and width, whom it touches, and that evaluation is without."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.models import decoder
from alignment.models.config import DecoderConfig
from alignment.segments import BRANCHES
from alignment.training import embedding_noise

CONFIG = DecoderConfig(vocab_size=16, hidden_size=8, intermediate_size=16, num_layers=1, num_heads=2, num_kv_heads=1,
                       max_position_embeddings=32, tie_word_embeddings=True)  # fmt: skip


def row(*lengths, columns=64):
    """Segment ids of sequences packed side by side, and padding after them."""
    ids = np.repeat(np.arange(1, len(lengths) + 1) * BRANCHES, lengths)
    return np.pad(ids, (0, columns - len(ids)))


@pytest.mark.parametrize("length,width", [(1, 8), (64, 8), (10, 300), (64, 64)])
def test_a_sequence_gets_noise_of_one_size_whatever_its_length_and_width(length, width):
    segments = jnp.asarray(np.tile(row(length), (400, 1)))
    noise = embedding_noise.neftune_noise(jnp.arange(400, dtype=jnp.uint32), segments, width, alpha=5.0)
    bound = 5 / np.sqrt(length * width)
    assert np.abs(noise).max() <= bound and np.abs(noise).max() > 0.95 * bound
    norms = np.square(noise).sum(axis=(1, 2))
    spread = 25 * np.sqrt(4 / 45 / (length * width))  # standard deviation of the norm of one row
    np.testing.assert_allclose(norms.mean(), 25 / 3, atol=4 * spread / 20)
    assert (np.asarray(noise)[:, length:] == 0).all()


def test_packed_sequences_have_each_their_own_length_and_a_tree_has_one():
    segments = np.stack([row(4, 16), row(20), row(20)])
    segments[2, 10:20] += 1  # a prompt of ten tokens and a branch of ten
    noise = embedding_noise.neftune_noise(jnp.arange(3, dtype=jnp.uint32), jnp.asarray(segments), 256, alpha=3.0)
    sizes = np.abs(noise).max(axis=-1)
    expected = np.zeros((3, 64))
    expected[0, :4], expected[0, 4:20], expected[1:, :20] = (
        3 / np.sqrt(4 * 256),
        3 / np.sqrt(16 * 256),
        3 / np.sqrt(20 * 256),
    )
    np.testing.assert_allclose(sizes, expected, rtol=0.05)


def test_draws_differ_between_rows_and_seeds_and_alpha_has_a_range():
    segments = jnp.asarray(np.tile(row(8), (2, 1)))
    noise = embedding_noise.neftune_noise(jnp.array([1, 2], jnp.uint32), segments, 8, alpha=1.0)
    assert not np.array_equal(noise[0], noise[1])
    np.testing.assert_array_equal(
        noise, embedding_noise.neftune_noise(jnp.array([1, 2], jnp.uint32), segments, 8, alpha=1.0)
    )
    with pytest.raises(ValueError, match=r"alpha must lie in \[0, inf\), got -1"):
        embedding_noise.neftune_noise(jnp.zeros(2, jnp.uint32), segments, 8, alpha=-1.0)


@pytest.mark.parametrize("scale", [False, True])
def test_the_model_adds_noise_to_what_it_looks_up_and_to_nothing_else(scale):
    config = dataclasses.replace(CONFIG, embedding_scale=scale)
    model = decoder.build(config)
    params = model.init(jax.random.key(0))
    tokens = jnp.arange(6)[None]
    places, segments = jnp.arange(6)[None], jnp.full((1, 6), BRANCHES)
    delta = 0.1 * jax.random.normal(jax.random.key(1), (1, 6, 8))
    # Every token stands once, so that noise on a column is noise on a row of the table.
    moved = params | {"embedding": params["embedding"].at[:6].add(delta[0])}
    expected, _ = model.hidden(moved, tokens, places, segments)
    got, _ = model.hidden(params | {"embedding_noise": delta}, tokens, places, segments)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model.head(params | {"embedding_noise": delta}), model.head(params))


def test_only_training_batches_get_noise():
    losses = lambda params, *_: params.get("embedding_noise")  # noqa: E731
    noisy = embedding_noise.with_noise(losses, 8, alpha=5.0)
    batch = {"segment_ids": jnp.asarray(row(8))[None]}
    assert noisy({}, {}, {}, batch) is None
    with_seeds = batch | {"seeds": jnp.zeros(1, jnp.uint32)}
    assert noisy({}, {}, {}, with_seeds).shape == (1, 64, 8)
    silent = embedding_noise.with_noise(losses, 8, alpha=0.0)({}, {}, {}, with_seeds)
    np.testing.assert_array_equal(silent, 0.0)
