"""Statistics of reward heads and of the states they read: each is what its name says, at the place that it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import statistics
from alignment.data import collating, corpus, formats, rows
from alignment.data.tokenizers import ByteTokenizer
from alignment.models import decoder

P, T = 32, 48
SIDES = ("chosen", "rejected")
MODEL = decoder.build(
    decoder.DecoderConfig(
        vocab_size=ByteTokenizer().vocab_size, hidden_size=8, intermediate_size=16, num_layers=2, num_heads=2,
        reward_heads=3,
    )
)  # fmt: skip
PARAMS = MODEL.init(jax.random.key(0))


@pytest.fixture(scope="module")
def batch():
    examples = formats.from_records(corpus.generate("pairs", 3, 0), "pairs")
    tokenised, _ = rows.tokenize(examples, ByteTokenizer(), prompt_length=P, completion_length=T)
    batch = collating.collate_trees(tokenised, P, T, 2)
    return {k: jnp.asarray(v) for k, v in batch.items()} | {"random_bits": jnp.arange(3, dtype=jnp.int32)}


def delivered(name, batch, **settings):
    needs = statistics.needs_of([name])
    computed = jax.jit(lambda p, b: statistics.compute(needs, MODEL, p, {}, b, **settings))(PARAMS, batch)
    return statistics.deliver(name, SIDES, computed, batch)


def states(batch):
    return MODEL.hidden(PARAMS, batch["tokens"], batch["positions"], batch["segment_ids"])[0]


def test_all_heads_stand_side_by_side_and_the_first_is_the_reward(batch):
    heads = delivered("rejected_head_rewards", batch)
    features = delivered("rejected_features", batch)
    np.testing.assert_allclose(heads, features @ PARAMS["reward_head"], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(heads[:, 0], delivered("rejected_rewards", batch))
    np.testing.assert_array_equal(delivered("head_weights", batch), PARAMS["reward_head"].T)


def test_features_are_the_states_of_the_last_tokens_and_token_features_of_each(batch):
    h, last = states(batch), batch["last_index"][:, 1]
    np.testing.assert_allclose(delivered("rejected_features", batch), h[jnp.arange(3), last], rtol=1e-5)
    tokens, mask = delivered("rejected_token_features", batch), batch["mask"][:, 1]
    assert tokens.shape == (3, T, 8) and not tokens[~mask].any()
    np.testing.assert_allclose(tokens[mask], h[:, P + T :][mask], rtol=1e-4, atol=1e-5)
    scores = delivered("rejected_token_head_scores", batch)
    np.testing.assert_allclose(scores[mask], tokens[mask] @ PARAMS["reward_head"], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(delivered("rejected_token_scores", batch), scores[..., 0], rtol=1e-5, atol=1e-6)


def test_the_prompts_heads_are_read_at_its_last_token_and_know_no_completion(batch):
    got = delivered("prompt_head_rewards", batch)
    np.testing.assert_allclose(got, states(batch)[:, P - 1] @ PARAMS["reward_head"], rtol=1e-4, atol=1e-6)
    other = {**batch, "tokens": batch["tokens"].at[:, P:].set(65)}
    np.testing.assert_allclose(delivered("prompt_head_rewards", other), got, rtol=1e-5, atol=1e-6)


def test_the_second_view_follows_from_the_bits_and_is_the_first_without_dropout(batch):
    first = delivered("chosen_features", batch)
    np.testing.assert_allclose(
        delivered("chosen_second_features", batch, view_dropout=0.0), first, rtol=1e-4, atol=1e-5
    )
    view = delivered("chosen_second_features", batch)
    assert np.abs(view - first).max() > 1e-2
    np.testing.assert_array_equal(delivered("chosen_second_features", batch), view)
    other = {**batch, "random_bits": batch["random_bits"] + 5}
    assert np.abs(delivered("chosen_second_features", other) - view).max() > 1e-2


def test_dropping_weights_keeps_their_mean_and_spares_the_norms():
    params = {"q": jnp.ones((40, 50)), "attention_norm": jnp.ones((2, 40)), "final_norm": jnp.ones(40)}
    dropped = statistics.drop_weights(params, jnp.array([7]), 0.25)
    np.testing.assert_allclose(np.unique(dropped["q"]), [0.0, 1 / 0.75], rtol=1e-6)
    np.testing.assert_allclose(dropped["q"].mean(), 1.0, atol=0.05)
    for name in ("attention_norm", "final_norm"):
        np.testing.assert_array_equal(dropped[name], params[name])


def test_samples_are_the_completions_behind_the_pair(batch):
    values = jnp.arange(15.0).reshape(3, 5)
    sides = (*SIDES, "samples")
    got = statistics.deliver("samples_rewards", sides, {"rewards": values}, batch)
    np.testing.assert_array_equal(got, values[:, 2:])
    np.testing.assert_array_equal(
        statistics.deliver("rejected_rewards", sides, {"rewards": values}, batch), values[:, 1]
    )
