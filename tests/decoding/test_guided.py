"""Decoding with several models against the distribution written out: every sequence of a small vocabulary."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import token_sets
from alignment.decoding import combinations, guided, sampler
from alignment.models import decoder, heads

V, END, PAD, STEPS = 5, 4, 0, 3
SIZES = {"vocab_size": V, "intermediate_size": 16, "num_layers": 1, "num_heads": 2, "max_position_embeddings": 16}
MODELS = {
    "strong": decoder.build(decoder.DecoderConfig(hidden_size=16, **SIZES)),
    "weak": decoder.build(decoder.DecoderConfig(hidden_size=8, **SIZES)),  # of another width and depth of cache
}
OF_SIX = decoder.build(decoder.DecoderConfig(hidden_size=8, **SIZES | {"vocab_size": 6}))
PROMPTS = np.array([[9, 1, 2], [3, 2, 1]], np.int32) % V
MASK = np.array([[0, 1, 1], [1, 1, 1]], bool)


@pytest.fixture(scope="module")
def params():
    keys = {"strong": 0, "weak": 1}
    return {
        name: jax.tree.map(lambda a: 8 * a if a.ndim > 1 else a, model.init(jax.random.key(keys[name])))
        for name, model in MODELS.items()
    }


def contrast(logits, *, strength):
    return (1 + strength) * logits["strong"] - strength * logits["weak"]


def without_the_weak_ones_favourite(logits):
    favourite = jax.nn.one_hot(jnp.argmax(logits["weak"], -1), V, dtype=bool)
    return jnp.where(favourite, -jnp.inf, logits["strong"])


def draw(params, combine=contrast, seed=0, models=MODELS, **settings):
    settings = {"settings": {"strength": 0.5} if combine is contrast else {}, "max_new_tokens": STEPS} | settings
    return guided.sample(
        models, params, combine, PROMPTS, MASK, jax.random.key(seed), eos_id=END, pad_id=PAD, **settings
    )


def full_logits(params, tokens, mask):
    """{name: logits [B, L, V]} by one pass of each model without a cache."""
    positions, segments = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0), jnp.where(mask, 1024, 0)
    return {
        name: model.unembed(params[name], model.hidden(params[name], tokens, positions, segments)[0])
        for name, model in MODELS.items()
    }


def every_sequence(params, prompt, combine, temperature=1.0):
    """{completion: its log-prob} over all completions of the prompt, each scored by full passes."""
    rows = np.array(list(itertools.product(range(V), repeat=STEPS)), np.int32)
    whole = np.concatenate([np.tile(PROMPTS[prompt], (len(rows), 1)), rows], axis=1)
    seen = np.concatenate([np.tile(MASK[prompt], (len(rows), 1)), np.ones(rows.shape, bool)], axis=1)
    logits = full_logits(params, whole, seen)
    places = slice(PROMPTS.shape[1] - 1, -1)
    combined = combine({k: v[:, places].reshape(-1, V) for k, v in logits.items()}).reshape(len(rows), STEPS, V)
    logps = np.take_along_axis(np.asarray(jax.nn.log_softmax(combined / temperature)), rows[..., None], -1)[..., 0]
    out = {}
    for row, logp in zip(rows, logps, strict=True):
        length = next((i + 1 for i, token in enumerate(row) if token == END), STEPS)
        out[tuple(row[:length].tolist())] = float(logp[:length].sum())
    return out


@pytest.mark.parametrize("combine", [contrast, without_the_weak_ones_favourite])
def test_sequences_are_drawn_with_the_probability_that_full_passes_give_them(params, combine):
    count = 8000
    drawn = draw(params, combine, temperature=0.8, group_size=count)
    written = (lambda z: contrast(z, strength=0.5)) if combine is contrast else combine
    for prompt in range(len(PROMPTS)):
        expected = every_sequence(params, prompt, written, 0.8)
        assert sum(np.exp(list(expected.values()))) == pytest.approx(1.0, abs=1e-5)
        rows = slice(prompt * count, (prompt + 1) * count)
        tokens, mask, logps = (np.asarray(x[rows]) for x in (drawn.tokens, drawn.mask, drawn.logps))
        found, seen = {}, {}
        for row, keep, logp in zip(tokens, mask, logps, strict=True):
            key = tuple(row[keep].tolist())
            found[key] = found.get(key, 0) + 1 / count
            seen[key] = float(logp.sum())
        for key, logp in seen.items():
            assert logp == pytest.approx(expected[key], abs=1e-3)
        for key, logp in expected.items():
            p = np.exp(logp)
            assert abs(found.get(key, 0.0) - p) < 5 * np.sqrt(p / count) + 1e-3, key


def test_one_model_or_a_model_that_has_no_say_is_the_plain_sampler(params):
    plain = sampler.sample(
        MODELS["strong"], params["strong"], PROMPTS, MASK, jax.random.key(3), max_new_tokens=STEPS, eos_id=END,
        pad_id=PAD, group_size=3, top_p=0.9,
    )  # fmt: skip
    alone = draw({"strong": params["strong"]}, sampler.only, 3, {"strong": MODELS["strong"]}, group_size=3, top_p=0.9)
    beside = draw(params, seed=3, settings={"strength": 0.0}, group_size=3, top_p=0.9)
    for samples in (alone, beside):
        np.testing.assert_array_equal(samples.tokens, plain.tokens)
        np.testing.assert_allclose(samples.logps, plain.logps, atol=1e-5)


def test_greedy_takes_the_likeliest_of_the_combination(params):
    drawn = draw(params, temperature=0)
    for prompt in range(len(PROMPTS)):
        row = [t for t, keep in zip(drawn.tokens[prompt].tolist(), drawn.mask[prompt], strict=True) if keep]
        whole = np.concatenate([PROMPTS[prompt], row]).astype(np.int32)[None]
        seen = np.concatenate([MASK[prompt], np.ones(len(row), bool)])[None]
        logits = contrast(full_logits(params, whole, seen), strength=0.5)[0, PROMPTS.shape[1] - 1 : -1]
        assert row == jnp.argmax(logits, -1).tolist()


def test_settings_change_the_draw_without_compiling_anew(params):
    before = sampler.generate._cache_size()
    first = draw(params, settings={"strength": 0.25}, group_size=50)
    after = sampler.generate._cache_size()
    second = draw(params, settings={"strength": 4.0}, group_size=50)
    assert after == before + 1 == sampler.generate._cache_size()
    assert (first.tokens != second.tokens).any()


def test_rows_begin_with_what_is_given_and_go_on_as_if_they_had_drawn_it(params):
    rows = 2 * 4
    tokens = np.tile(np.array([[1, 2, 3]], np.int32), (rows, 1))
    lengths = np.array([0, 1, 2, 3] * 2, np.int32)
    drawn = draw(params, group_size=4, given=(tokens, lengths))
    free = draw(params, group_size=4)
    for row in range(rows):
        length, prompt = lengths[row], row // 4
        np.testing.assert_array_equal(drawn.tokens[row, :length], tokens[row, :length])
        np.testing.assert_array_equal(drawn.logps[row, :length], 0.0)
        assert drawn.mask[row, :length].all()
        if length == 0:
            np.testing.assert_array_equal(drawn.tokens[row], free.tokens[row])
        kept = np.asarray(drawn.tokens[row])[np.asarray(drawn.mask[row])]
        whole, seen = np.concatenate([PROMPTS[prompt], kept]), np.concatenate([MASK[prompt], np.ones(len(kept), bool)])
        logits = contrast(full_logits(params, whole[None], seen[None]), strength=0.5)[0, PROMPTS.shape[1] - 1 : -1]
        logps = np.asarray(jax.nn.log_softmax(logits))[np.arange(len(kept)), kept]
        np.testing.assert_allclose(drawn.logps[row, length : len(kept)], logps[length:], atol=1e-4)


def test_an_end_token_that_is_given_ends_the_row(params):
    tokens = np.array([[END, 1, 1], [1, END, 1]], np.int32)
    drawn = draw(params, given=(tokens, np.array([3, 3], np.int32)))
    np.testing.assert_array_equal(drawn.mask, [[1, 0, 0], [1, 1, 0]])


def test_the_support_is_the_set_each_token_was_drawn_from(params):
    drawn = draw(params, without_the_weak_ones_favourite, top_k=2, with_support=True, with_entropies=True, group_size=9)
    assert drawn.support.shape == (18, STEPS, token_sets.words(V)) and drawn.support.dtype == np.uint32
    members = np.asarray(token_sets.contains(drawn.support, jnp.arange(V)))
    mask = np.asarray(drawn.mask)
    np.testing.assert_array_equal(members.sum(-1), np.where(mask, 2, 0))
    assert np.take_along_axis(members, np.asarray(drawn.tokens)[..., None], -1)[..., 0][mask].all()
    assert drawn.entropies.shape == mask.shape and (np.asarray(drawn.entropies)[mask] > 0).all()
    assert draw(params).support is None


@pytest.mark.parametrize("vocabulary", [1, 31, 32, 33, 70])
def test_sets_of_tokens_survive_packing(vocabulary):
    members = np.random.default_rng(0).random((3, 4, vocabulary)) < 0.5
    packed = token_sets.pack(jnp.asarray(members))
    assert packed.shape == (3, 4, token_sets.words(vocabulary))
    np.testing.assert_array_equal(token_sets.contains(packed, jnp.arange(vocabulary)), members)
    np.testing.assert_array_equal(token_sets.contains(packed, jnp.array([vocabulary - 1, 0])), members[..., [-1, 0]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": {}}, "must have the same names"),
        ({"models": {"strong": MODELS["strong"]}}, "must have the same names"),
        ({"models": MODELS | {"weak": OF_SIX}}, "one vocabulary"),
        ({"given": (np.zeros((2, 2), np.int32), np.zeros(2, np.int32))}, r"given must be tokens of shape \(2, 3\)"),
        ({"given": (np.zeros((2, 3), np.int32), np.array([4, 0]))}, "at most max_new_tokens=3, got 4"),
        ({"max_new_tokens": 14}, "exceed the model's context"),
        ({"top_p": 0.0}, "top_p must be in"),
    ],
)  # fmt: skip
def test_what_cannot_decode_together_is_refused(params, changes, message):
    with pytest.raises(ValueError, match=message):
        draw(params, **changes)


# --- a scorer of candidates

JUDGE = decoder.build(decoder.DecoderConfig(hidden_size=8, reward_heads=1, **SIZES))


@pytest.fixture(scope="module")
def judge_params():
    return jax.tree.map(lambda a: 8 * a if a.ndim > 1 else a, JUDGE.init(jax.random.key(7)))


def tilt(logits, candidates, scores, *, weight):
    return combinations.args(logits, candidates, scores[..., 0], weight=weight)


def judged(params, judge_params, count=V, weight=2.0, **settings):
    """Samples of the strong model with the judge's say; the log-probs are those of the tilted distribution."""
    scorer = sampler.Scorer(JUDGE, judge_params, count, tilt, {"weight": weight})
    strong = {"strong": params["strong"]}
    return draw(strong, sampler.only, models={"strong": MODELS["strong"]}, scorer=scorer, **settings)


@pytest.mark.parametrize("count", [V, 2])
def test_candidates_are_scored_as_by_a_pass_of_each_prefix_of_its_own(params, judge_params, count):
    drawn = judged(params, judge_params, count, group_size=4)
    tokens, mask = np.asarray(drawn.tokens), np.asarray(drawn.mask)
    assert mask[:, -1].any()  # the last step is seen, too
    # One row for each (completion, step, candidate), padded on the right: what stands before the step, then it.
    width, shape = PROMPTS.shape[1], (len(tokens), STEPS, V)
    whole = np.concatenate([np.repeat(PROMPTS, 4, axis=0), tokens, np.zeros((len(tokens), 1), np.int32)], axis=1)
    rows = np.broadcast_to(whole[:, None, None], (*shape, width + STEPS + 1)).copy()
    seen = np.broadcast_to(np.concatenate([np.repeat(MASK, 4, axis=0), np.ones((len(tokens), STEPS + 1), bool)], axis=1)
                           [:, None, None], rows.shape).copy()  # fmt: skip
    for step in range(STEPS):
        rows[:, step, :, width + step] = np.arange(V)
        seen[:, step, :, width + step + 1 :] = False
    flat, flat_seen = rows.reshape(-1, rows.shape[-1]), seen.reshape(-1, rows.shape[-1])
    logits = full_logits(params, whole, np.concatenate([seen[:, -1, 0, :-1], mask[:, -1:]], axis=1))["strong"]
    places = np.maximum(np.cumsum(flat_seen, axis=1) - 1, 0)
    h, _ = jax.jit(JUDGE.hidden)(judge_params, flat, places, np.where(flat_seen, 1024, 0))
    scores = np.asarray(heads.token_scores(judge_params, h))[..., 0].reshape(rows.shape)
    for step in range(STEPS):
        z = logits[:, width + step - 1]
        tilted = combinations.controlled(z, scores[:, step, :, width + step], strength=2.0)
        inside = np.zeros(z.shape, bool)
        np.put_along_axis(inside, np.asarray(combinations.candidates(z, count)), True, axis=-1)
        logps = np.asarray(jax.nn.log_softmax(jnp.where(inside, tilted, -jnp.inf)))
        expected = np.take_along_axis(logps, tokens[:, step, None], axis=-1)[:, 0]
        np.testing.assert_allclose(drawn.logps[:, step], np.where(mask[:, step], expected, 0.0), atol=2e-4)


def test_a_judge_without_weight_is_the_plain_sampler_within_its_candidates(params, judge_params):
    drawn = judged(params, judge_params, 2, weight=0.0, seed=3, group_size=3)
    plain = sampler.sample(
        MODELS["strong"], params["strong"], PROMPTS, MASK, jax.random.key(3), max_new_tokens=STEPS, eos_id=END,
        pad_id=PAD, group_size=3, top_k=2,
    )  # fmt: skip
    np.testing.assert_array_equal(drawn.tokens, plain.tokens)
    np.testing.assert_allclose(drawn.logps, plain.logps, atol=1e-5)


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        ((JUDGE, {}, 2), "no reward_head"),
        ((JUDGE, {"reward_head": 0}, 0), "count must be between 1 and 5, got 0"),
        ((JUDGE, {"reward_head": 0}, 6), "count must be between 1 and 5, got 6"),
        ((OF_SIX, {"reward_head": 0}, 2), "one vocabulary"),
    ],
)
def test_a_scorer_that_cannot_judge_is_refused(params, scorer, message):
    with pytest.raises(ValueError, match=message):
        draw(params, scorer=sampler.Scorer(*scorer, tilt, {}))
