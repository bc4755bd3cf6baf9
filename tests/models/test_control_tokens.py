"""Control tokens: read like any other token, learned apart from the model, a set for each side of the data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import losses, objective, statistics
from alignment.data import collating, controls, corpus, formats, rows, tokenizers
from alignment.decoding import sampler
from alignment.models import control_tokens, decoder

CONFIG = decoder.DecoderConfig(
    vocab_size=320, hidden_size=16, intermediate_size=32, num_layers=1, num_heads=2, num_kv_heads=1
)
LENGTH = 3
PLAIN = decoder.build(CONFIG)
MODEL = control_tokens.wrap(PLAIN, 2, LENGTH)
PARAMS = jax.tree.map(lambda x: 8 * x, MODEL.init(jax.random.key(0)))
TOKENIZER = controls.ControlTokenizer(tokenizers.ByteTokenizer(), LENGTH)
SIDES = ("chosen", "rejected")
SPEC = {"good": {"kernel": "sft", "side": "chosen"}, "bad": {"kernel": "sft", "side": "rejected"}}
TERMS = objective.bind(SPEC, losses, "objective", SIDES, ())
NEEDS = statistics.needs_of(objective.names_of(TERMS))


def tokenised(tokenizer=TOKENIZER, count=4, **settings):
    examples = formats.from_records(corpus.generate("pairs", count, 3), "pairs")
    settings = {"prompt_length": 32 + LENGTH, "completion_length": 48} | settings
    return rows.tokenize(examples, tokenizer, **settings)[0]


def batch_of(found):
    own = [controls.with_set_for_each_side(e, TOKENIZER.vocab_size, LENGTH) for e in found]
    return collating.collate_several_prompts(own, 32 + LENGTH, 48, 2)


BATCH = batch_of(tokenised())


@jax.jit
def parts(params, batch):
    """The loss of good and of bad answers."""
    computed = statistics.compute(NEEDS, MODEL, params, {}, batch)
    sums, _ = objective.evaluate(TERMS, {}, SIDES, computed, batch)
    weights = objective.weights(TERMS, SIDES, batch)
    return {name: sums[name] / weights[name] for name in sums}


@jax.jit
def gradients(params, batch, weight):
    """Of the loss of good answers plus `weight` times that of bad ones, by the sets."""

    def loss(params):
        found = parts(params, batch)
        return found["good"] + weight * found["bad"]

    return jax.grad(loss)(params)[control_tokens.NAME]


def test_every_side_has_the_tokens_of_its_own_set_after_the_begin_token():
    for side in (0, 1):
        first = np.where(BATCH["segment_ids"] == (side + 1) * 1024, BATCH["tokens"], -1)
        found = [row[row >= 0][: 1 + LENGTH].tolist() for row in first]
        assert found == [[257, *range(320 + side * LENGTH, 320 + (side + 1) * LENGTH)]] * 4
    assert TOKENIZER.decode([72, 320, 105]) == "Hi"


def test_a_control_token_with_the_embedding_of_a_word_is_that_word():
    """Equal adapters: the loss is sft on good plus sft on bad after the same prefix."""
    word = 97
    same = {**PARAMS, control_tokens.NAME: jnp.broadcast_to(PARAMS["embedding"][word], (2, LENGTH, 16))}
    plain = dict(BATCH, tokens=np.where(BATCH["tokens"] >= 320, word, BATCH["tokens"]))
    computed = statistics.compute(NEEDS, PLAIN, PARAMS, {}, plain)["policy_token_logps"]
    got = parts(same, BATCH)
    for side, name in enumerate(SPEC):
        expected = -computed[:, side].sum() / BATCH["mask"][:, side].sum()
        np.testing.assert_allclose(got[name], expected, rtol=1e-5)


def test_the_gradient_of_a_set_does_not_depend_on_the_other_sides_answers():
    both, good_alone = (gradients(PARAMS, BATCH, weight) for weight in (1.0, 0.0))
    assert np.abs(both).min(axis=(1, 2)).min() > 0
    np.testing.assert_allclose(both[0], good_alone[0], rtol=1e-5, atol=1e-8)
    np.testing.assert_array_equal(good_alone[1], 0)
    others = dict(BATCH, targets=BATCH["targets"].copy())
    others["targets"][:, 1] = np.roll(others["targets"][:, 1], 1, axis=-1)
    changed = gradients(PARAMS, others, 1.0)
    np.testing.assert_allclose(changed[0], both[0], rtol=1e-5, atol=1e-8)
    assert np.abs(changed[1] - both[1]).max() > 1e-4


def test_control_tokens_are_never_predicted_and_a_sampler_reads_them():
    assert MODEL.head(PARAMS).shape == (320, 16)
    prompt = jnp.asarray([rows.encode_prompt("Describe the cat: ", TOKENIZER)])

    def greedy(params, tokens):
        drawn = sampler.sample(
            MODEL, params, tokens, jnp.ones_like(tokens, bool), jax.random.key(0), max_new_tokens=6, temperature=0.0,
            eos_id=258, pad_id=256,
        )  # fmt: skip
        return drawn.tokens[0]

    of_good = greedy(PARAMS, prompt)
    assert (np.asarray(of_good) < 320).all()
    # the same as scoring by the whole row, without a cache
    row = jnp.concatenate([prompt, of_good[None]], axis=1)
    places, segments = jnp.arange(row.shape[1])[None], jnp.full_like(row, 1024)
    logits = MODEL.unembed(PARAMS, MODEL.hidden(PARAMS, row, places, segments)[0])
    np.testing.assert_array_equal(jnp.argmax(logits[0, prompt.shape[1] - 1 : -1], axis=-1), of_good)
    # only through the embeddings of its own set
    moved = {**PARAMS, control_tokens.NAME: PARAMS[control_tokens.NAME].at[1].add(1.0)}
    np.testing.assert_array_equal(greedy(moved, prompt), of_good)


def test_a_prompt_cut_on_the_left_keeps_its_control_tokens():
    cut = tokenised(prompt_length=4 + LENGTH, too_long="truncate")[0]
    whole = tokenised()[0]
    np.testing.assert_array_equal(cut.prompt, [*whole.prompt[: 1 + LENGTH], *whole.prompt[-3:]])


def test_one_side_needs_one_set_and_several_prompts_have_no_place_for_more():
    (pair,) = tokenised(count=1)
    alone = rows.Tokenized(0, pair.prompt, pair.completions[:1])
    assert controls.with_set_for_each_side(alone, 320, LENGTH) is alone
    two = controls.with_set_for_each_side(pair, 320, LENGTH)
    with pytest.raises(ValueError, match="control tokens go with one prompt, and this example has several"):
        controls.with_set_for_each_side(two, 320, LENGTH)


@pytest.mark.parametrize("sizes", [(0, 3), (2, 0)])
def test_sets_and_lengths_are_at_least_one(sizes):
    with pytest.raises(ValueError, match=r"must be an integer in \[1, inf\), got 0"):
        control_tokens.wrap(PLAIN, *sizes)
