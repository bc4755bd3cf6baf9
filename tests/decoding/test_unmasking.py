"""The sampler of masked diffusion against distributions that can be listed, and against the model without its cache."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.decoding import sampler, unmasking
from alignment.models import decoder

V, L = 3, 3
MASK = V
TABLE = jnp.asarray(np.random.default_rng(0).normal(size=((V + 1) ** L, L, V)) * 1.5, jnp.float32)


def logits_of(tokens):
    """Any numbers at all for every state of what is shown: no distribution stands behind them."""
    return TABLE[jnp.sum(tokens * (V + 1) ** jnp.arange(L), axis=-1)]


def state(tokens):
    return sum(int(t) * (V + 1) ** i for i, t in enumerate(tokens))


def probabilities(given=(None,) * L):
    """Of every sequence: the mean over the orders of its hidden places of the product of conditionals."""
    table, hidden = np.asarray(jax.nn.softmax(TABLE)), [i for i in range(L) if given[i] is None]
    orders, out = list(itertools.permutations(hidden)), {}
    for values in itertools.product(range(V), repeat=len(hidden)):
        y = list(given)
        for i, v in zip(hidden, values, strict=True):
            y[i] = v
        total = 0.0
        for order in orders:
            shown, product = [MASK if g is None else g for g in given], 1.0
            for i in order:
                product *= table[state(shown), i, y[i]]
                shown[i] = y[i]
            total += product
        out[tuple(y)] = total / len(orders)
    return out


def frequencies(samples):
    rows, counts = np.unique(np.asarray(samples), axis=0, return_counts=True)
    return {tuple(int(x) for x in row): count / len(samples) for row, count in zip(rows, counts, strict=True)}


@pytest.mark.parametrize("given", [(None, None, None), (None, 2, None)])
def test_as_many_steps_as_tokens_sample_the_mean_over_orders(given):
    count = 40_000
    tokens = jnp.broadcast_to(jnp.array([0 if g is None else g for g in given]), (count, L))
    hidden = jnp.broadcast_to(jnp.array([g is None for g in given]), (count, L))
    fill = jax.jit(lambda t, h, key: unmasking.fill_in_random_order(logits_of, t, h, MASK, key, steps=L))
    got, expected = frequencies(fill(tokens, hidden, jax.random.key(0))), probabilities(given)
    assert abs(sum(expected.values()) - 1) < 1e-5 and set(got) <= set(expected)
    for y, p in expected.items():
        assert abs(got.get(y, 0.0) - p) < 5 * np.sqrt(p * (1 - p) / count) + 1e-9, (y, got.get(y), p)


def test_one_step_draws_every_token_on_its_own():
    count = 20_000
    hidden = jnp.ones((count, L), bool)
    got = unmasking.fill_in_random_order(
        logits_of, jnp.zeros((count, L), jnp.int32), hidden, MASK, jax.random.key(0), steps=1
    )
    alone = np.asarray(jax.nn.softmax(TABLE[state([MASK] * L)]))
    for y, share in frequencies(got).items():
        p = np.prod([alone[i, v] for i, v in enumerate(y)])
        assert abs(share - p) < 5 * np.sqrt(p * (1 - p) / count), y


@pytest.mark.parametrize("order", unmasking.ORDERS)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_every_hidden_token_is_filled_once_and_nothing_else_changes(order, steps):
    rng = np.random.default_rng(1)
    tokens, hidden = rng.integers(0, V, (64, L)), rng.random((64, L)) < 0.6
    seen = []

    def watched(tokens):
        jax.debug.callback(lambda t: seen.append(np.asarray(t)), tokens, ordered=True)
        return logits_of(tokens)

    got = unmasking.ORDERS[order](
        watched, jnp.asarray(tokens), jnp.asarray(hidden), MASK, jax.random.key(2), steps=steps
    )
    got = np.asarray(got)
    jax.effects_barrier()
    assert ((got >= 0) & (got < V)).all()
    np.testing.assert_array_equal(got[~hidden], tokens[~hidden])
    assert len(seen) == steps
    for number, before in enumerate(seen):
        np.testing.assert_array_equal((before == MASK).sum(1), hidden.sum(1) - -(-hidden.sum(1) * number // steps))
        shown = hidden & (before != MASK)
        np.testing.assert_array_equal(before[shown], got[shown], "what was shown is never drawn again")


def test_the_surest_place_is_shown_first():
    """Places 2, 0, 1 in order of confidence; what each predicts depends on what stands at the others."""

    def sure(tokens):
        level = jnp.broadcast_to(jnp.array([4.0, 2.0, 6.0])[:, None], (*tokens.shape, 1))
        return level * jax.nn.one_hot((jnp.sum(tokens == MASK, -1, keepdims=True) - 1) % V, V)

    hidden = jnp.ones((1, L), bool)
    arguments = (sure, jnp.zeros((1, L), jnp.int32), hidden, MASK, jax.random.key(0))
    np.testing.assert_array_equal(unmasking.fill_by_confidence(*arguments, steps=3, temperature=None), [[1, 0, 2]])
    np.testing.assert_array_equal(unmasking.fill_by_confidence(*arguments, steps=1, temperature=None), [[2, 2, 2]])


# ----------------------------------------------------------------------------------------------- with a decoder

CONFIG = decoder.DecoderConfig(
    vocab_size=12, hidden_size=16, intermediate_size=24, num_layers=2, num_heads=2, num_kv_heads=1,
    max_position_embeddings=32, causal=False,
)  # fmt: skip
MODEL = decoder.build(CONFIG)
PROMPTS = np.array([[0, 3, 4, 5], [6, 7, 8, 2]], np.int32)
THERE = np.array([[0, 1, 1, 1], [1, 1, 1, 1]], bool)


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(lambda a: 8 * a if a.ndim > 1 else a, MODEL.init(jax.random.key(0)))


def draw(params, seed=0, **settings):
    return np.asarray(
        unmasking.sample(
            MODEL, params, PROMPTS, THERE, jax.random.key(seed),
            **{"length": 5, "steps": 5, "group_size": 3, **settings},
        )
    )  # fmt: skip


def test_the_likeliest_filling_is_that_of_full_passes_over_prompt_and_response(params):
    """No cache, and a plain loop: the surest place takes its likeliest token."""
    got = draw(params, temperature=0.0, order="confidence")
    for row, (prompt, there) in enumerate(zip(PROMPTS, THERE, strict=True)):
        response = np.full(5, 11)
        for _ in range(5):
            tokens = np.concatenate([prompt[there], response])[None]
            segments = np.where(np.arange(tokens.shape[1]) < there.sum(), 1024, 1025)[None]
            h, _ = MODEL.hidden(params, tokens, np.arange(tokens.shape[1])[None], segments)
            logps = jax.nn.log_softmax(MODEL.unembed(params, h)[0, there.sum() :, :11])
            sure = np.where(response == 11, np.asarray(logps).max(-1), -np.inf)
            response[sure.argmax()] = np.asarray(logps)[sure.argmax()].argmax()
        np.testing.assert_array_equal(got[3 * row : 3 * row + 3], np.tile(response, (3, 1)))


def test_nothing_is_random_at_temperature_zero_by_confidence_and_a_key_decides_the_rest(params):
    np.testing.assert_array_equal(*(draw(params, s, temperature=0.0, order="confidence") for s in (0, 1)))
    np.testing.assert_array_equal(draw(params, 3), draw(params, 3))
    assert (draw(params, 3) != draw(params, 4)).any()


def test_mask_is_never_drawn_and_given_tokens_stay_in_place(params):
    given = np.full((6, 5), 9, np.int32)
    where = np.random.default_rng(0).random((6, 5)) < 0.5
    loud = params | {"embedding": params["embedding"], "lm_head": params["lm_head"].at[11].multiply(50.0)}
    got = draw(loud, given=given, given_mask=where)
    assert (got < 11).all()
    np.testing.assert_array_equal(got[where], 9)


@pytest.mark.parametrize(
    "settings,words",
    [
        ({"steps": 0}, "steps must be >= 1"),
        ({"length": 0}, "length must be >= 1"),
        ({"length": 30}, "exceed the model's context"),
        ({"temperature": -1.0}, "temperature must be >= 0"),
        ({"order": "left"}, "order must be one of random, confidence"),
        ({"given": np.zeros((6, 5), np.int32)}, "belong together"),
        ({"given": np.zeros((2, 5), np.int32), "given_mask": np.zeros((2, 5), bool)}, r"shape \(6, 5\)"),
    ],
)
def test_settings_out_of_range_are_named(params, settings, words):
    with pytest.raises(ValueError, match=words):
        draw(params, **settings)


def test_each_sampler_refuses_the_model_of_the_other(params):
    causal = decoder.build(decoder.DecoderConfig(12, 16, 24, 2, 2))
    with pytest.raises(ValueError, match="causal=False"):
        unmasking.sample(causal, params, PROMPTS, THERE, jax.random.key(0), length=2, steps=2)
    with pytest.raises(ValueError, match=r"decoding\.unmasking"):
        sampler.sample(MODEL, params, PROMPTS, THERE, jax.random.key(0), max_new_tokens=2, eos_id=1, pad_id=0)
