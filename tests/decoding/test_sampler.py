"""The sampler against the plainest sampler: one full forward pass per token, no cache, sorted truncation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.decoding import sampler
from alignment.models import decoder
from alignment.training import mesh

END, PAD = 1, 0
CONFIG = decoder.DecoderConfig(
    vocab_size=40,
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    max_position_embeddings=32,
)
MODEL = decoder.build(CONFIG)
PROMPTS = np.array([[9, 9, 3, 4, 5], [6, 7, 8, 2, 11], [9, 9, 9, 9, 12]], np.int32)
MASK = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]], bool)
STEPS = 8


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(lambda a: 8 * a if a.ndim > 1 else a, MODEL.init(jax.random.key(0)))


def draw(params, seed=0, prompts=PROMPTS, mask=MASK, steps=STEPS, eos_id=39, **settings):
    samples = sampler.sample(
        MODEL, params, prompts, mask, jax.random.key(seed), max_new_tokens=steps, eos_id=eos_id, pad_id=PAD, **settings
    )
    return sampler.Samples(*(None if a is None else np.asarray(a) for a in samples))


@jax.jit
def full_logits(params, tokens, mask):
    """Logits of every column, from one pass without a cache."""
    positions = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
    return MODEL.unembed(params, MODEL.hidden(params, tokens, positions, jnp.where(mask, 1024, 0))[0])


def sorted_truncate(logits, top_k, top_p):
    """One row, by sorting: what `truncate` does by bisection."""
    logits = logits.astype(np.float64).copy()
    order = np.argsort(-logits, kind="stable")
    if top_k is not None:
        logits[order[top_k:]] = -np.inf
    if top_p is not None:
        p = np.exp(logits[order] - logits.max())
        p /= p.sum()
        logits[order[(np.cumsum(p) - p) >= top_p]] = -np.inf
    return logits


def rows_without_padding(samples):
    for prompt, prompt_mask, tokens, mask, logps in zip(PROMPTS, MASK, *samples[:3], strict=True):
        yield prompt[prompt_mask], tokens[mask], logps[mask]


def test_greedy_is_the_argmax_of_full_forward_passes(params):
    samples = draw(params, temperature=0)
    row, mask = PROMPTS, MASK
    for step in range(STEPS):
        # A fixed width, so that the pass compiles once; later columns are not seen.
        room = ((0, 0), (0, STEPS - step))
        logits = full_logits(params, np.pad(row, room), np.pad(mask, room))[:, row.shape[1] - 1]
        token = np.asarray(jnp.argmax(logits, axis=-1))
        np.testing.assert_array_equal(samples.tokens[:, step], token)
        np.testing.assert_allclose(samples.logps[:, step], jax.nn.log_softmax(logits).max(-1), atol=1e-4)
        row, mask = np.c_[row, token], np.c_[mask, np.ones(3, bool)]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.7},
        {"temperature": 1.6, "top_k": 5},
        {"temperature": 0.8, "top_p": 0.6},
        {"temperature": 1.2, "top_k": 12, "top_p": 0.7},
    ],
    ids=str,
)
def test_logps_are_those_of_the_scorer(params, settings):
    samples = draw(params, 3, **settings)
    temperature, top_k, top_p = (settings.get(k) for k in ("temperature", "top_k", "top_p"))
    for prompt, tokens, logps in rows_without_padding(samples):
        row = np.concatenate([prompt, tokens])[None]
        row = np.pad(row, ((0, 0), (0, 13 - row.shape[1])))  # right padding here, left padding in the sampler
        logits = np.asarray(full_logits(params, row, np.arange(13)[None] < len(prompt) + len(tokens)))[0]
        for i, (token, logp) in enumerate(zip(tokens, logps, strict=True)):
            kept = sorted_truncate(logits[len(prompt) + i - 1] / (temperature or 1.0), top_k, top_p)
            expected = kept[token] - np.logaddexp.reduce(kept)
            assert logp == pytest.approx(expected, abs=1e-4)


def test_padding_content_and_neighbours_change_nothing(params):
    samples = draw(params, 5)
    other_padding = draw(params, 5, prompts=np.where(MASK, PROMPTS, 33))
    neighbours, neighbour_mask = PROMPTS.copy(), MASK.copy()
    neighbours[[0, 2]], neighbour_mask[[0, 2]] = 17, True
    other_rows = draw(params, 5, prompts=neighbours, mask=neighbour_mask)
    for field in range(3):
        np.testing.assert_array_equal(samples[field], other_padding[field])
        np.testing.assert_array_equal(samples[field][1], other_rows[field][1])
    assert (samples.tokens[0] != other_rows.tokens[0]).any()


def test_more_left_padding_changes_nothing(params):
    wider = draw(params, 5, prompts=np.pad(PROMPTS, ((0, 0), (3, 0))), mask=np.pad(MASK, ((0, 0), (3, 0))))
    samples = draw(params, 5)
    np.testing.assert_array_equal(samples.tokens, wider.tokens)
    np.testing.assert_allclose(samples.logps, wider.logps, atol=1e-5)


def test_rows_stop_at_their_end_token(params):
    free = draw(params, 2)
    end = int(free.tokens[0, 3])
    stopped = draw(params, 2, eos_id=end)
    for row in range(3):
        hits = np.flatnonzero(free.tokens[row] == end)
        length = hits[0] + 1 if hits.size else STEPS
        np.testing.assert_array_equal(stopped.mask[row], np.arange(STEPS) < length)
        np.testing.assert_array_equal(stopped.tokens[row, :length], free.tokens[row, :length])
        np.testing.assert_allclose(stopped.logps[row, :length], free.logps[row, :length], atol=1e-5)
        assert (stopped.tokens[row, length:] == PAD).all() and (stopped.logps[row, length:] == 0).all()
    assert stopped.mask[0].sum() <= 4


def test_end_token_may_be_the_padding_token_and_there_may_be_several(params):
    free = draw(params, 2)
    a, b = int(free.tokens[0, 2]), int(free.tokens[1, 4])
    samples = sampler.sample(
        MODEL, params, PROMPTS, MASK, jax.random.key(2), max_new_tokens=STEPS, eos_id=(a, b), pad_id=a
    )
    lengths = np.asarray(samples.mask.sum(1))
    for row in range(3):
        hits = np.flatnonzero(np.isin(free.tokens[row], [a, b]))
        assert lengths[row] == (hits[0] + 1 if hits.size else STEPS)


class Counting:
    """A model that notes, at run time, the column and the buffer of every decoding step."""

    def __init__(self, model):
        self.seen = []

        def hidden(params, tokens, positions, segment_ids, cache=None):
            size = cache.segment_ids.shape[1]
            jax.debug.callback(lambda start: self.seen.append((int(start), tokens.shape[1], size)), cache.length)
            return model.hidden(params, tokens, positions, segment_ids, cache)

        self.model = model._replace(hidden=hidden)


def test_no_step_beyond_the_buffer_and_none_after_all_have_ended(params):
    counting = Counting(MODEL)
    settings = {"temperature": 0, "pad_id": PAD}
    run = lambda **kw: jax.block_until_ready(  # noqa: E731
        sampler.sample(counting.model, params, PROMPTS, MASK, jax.random.key(0), **settings, **kw)
    )
    free = run(max_new_tokens=6, eos_id=39)
    jax.effects_barrier()
    # The prompt, then one column for each token but the last, which nothing follows.
    assert sorted(counting.seen) == [(0, 5, 5), *((5 + i, 1, 10) for i in range(5))]
    counting.seen.clear()
    first = tuple(int(token) for token in set(np.asarray(free.tokens[:, 0])))
    samples = run(max_new_tokens=6, eos_id=first)
    jax.effects_barrier()
    assert counting.seen == [(0, 5, 5)]
    np.testing.assert_array_equal(samples.mask, np.arange(6)[None] < np.ones((3, 1)))


def test_sharded_parameters_and_prompts_give_the_same_samples(params):
    split = jax.make_mesh((2, 4), ("fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    put = lambda a, *spec: jax.device_put(a, jax.NamedSharding(split, jax.P(*spec)))  # noqa: E731
    sharded = jax.tree.map(lambda a: put(a, None, "fsdp", "tensor") if a.ndim == 3 else put(a), params)
    prompts, mask = PROMPTS[[0, 1, 2, 0]], MASK[[0, 1, 2, 0]]
    one = draw(params, 4, prompts=prompts, mask=mask, top_p=0.9)
    many = draw(sharded, 4, prompts=put(prompts, "fsdp"), mask=put(mask, "fsdp"), top_p=0.9)
    np.testing.assert_array_equal(one.tokens, many.tokens)
    np.testing.assert_allclose(one.logps, many.logps, atol=1e-5)


@pytest.mark.parametrize("prompts", [PROMPTS, jnp.asarray(PROMPTS)], ids=["numpy", "jax"])
def test_prompts_from_the_host_are_split_over_the_mesh_of_the_parameters(params, prompts, monkeypatch):
    on_mesh = jax.device_put(params, mesh.replicated(mesh.make_mesh({"data": 4, "fsdp": 2})))
    given, generate = [], sampler.generate

    def watched(*arguments, **settings):
        given.append((arguments, settings))
        return generate(*arguments, **settings)

    monkeypatch.setattr(sampler, "generate", watched)
    rows = [0, 1, 2, 0, 1, 2, 0, 1]
    many, few = (
        draw(on_mesh, 4, prompts=prompts[np.array(rows)], mask=MASK[rows]),
        draw(on_mesh, 4, prompts=prompts, mask=MASK),  # 3 rows do not divide
    )
    one = draw(params, 4, prompts=PROMPTS[rows], mask=MASK[rows])
    np.testing.assert_array_equal(one.tokens, many.tokens)
    assert few.tokens.shape == (3, STEPS)
    flops = [generate.lower(*a, **s).compile().cost_analysis()["flops"] for a, s in (given[0], given[2])]
    assert flops[0] == pytest.approx(flops[1] / 8, rel=0.05), "each device draws its own rows only"


def test_one_new_token(params):
    assert draw(params, steps=1).tokens.shape == (3, 1)


def test_same_key_same_samples_and_other_keys_differ(params):
    a, b, c = draw(params, 1), draw(params, 1), draw(params, 2)
    np.testing.assert_array_equal(a.tokens, b.tokens)
    assert (a.tokens != c.tokens).any()


@pytest.mark.parametrize(
    ("top_k", "top_p"), [(1, None), (7, None), (None, 0.3), (None, 0.9), (None, 0.9999), (20, 0.5), (3, 1e-6)]
)
def test_truncate_keeps_what_sorting_keeps(top_k, top_p):
    logits = np.random.default_rng(0).normal(size=(16, 300)).astype(np.float32) * 3
    kept = np.asarray(jax.jit(sampler.truncate, static_argnums=1)(logits, top_k, top_p))
    for row in range(16):
        expected = sorted_truncate(logits[row], top_k, top_p)
        np.testing.assert_array_equal(np.isfinite(kept[row]), np.isfinite(expected))
        np.testing.assert_array_equal(kept[row][np.isfinite(kept[row])], logits[row][np.isfinite(expected)])


def test_truncate_keeps_ties_and_handles_extreme_logits():
    logits = jnp.array([[2.0, 2.0, 2.0, -5.0], [1e4, -1e4, 0.0, -jnp.inf]])
    np.testing.assert_array_equal(jnp.isfinite(sampler.truncate(logits, 2)), [[1, 1, 1, 0], [1, 0, 1, 0]])
    np.testing.assert_array_equal(jnp.isfinite(sampler.truncate(logits, None, 0.5)), [[1, 1, 1, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(sampler.truncate(logits), logits)


@pytest.mark.parametrize("vocabulary", [5, 300])
def test_categorical_draws_from_the_distribution(vocabulary):
    logits = np.random.default_rng(1).normal(size=vocabulary).astype(np.float32) * 1.5
    logits[::3] = -np.inf
    count = 60_000
    tokens, logps = jax.jit(sampler.categorical)(jax.random.key(0), jnp.tile(logits, (count, 1)))
    log_p = np.asarray(jax.nn.log_softmax(logits))
    np.testing.assert_allclose(logps, log_p[tokens], atol=1e-5)
    frequency = np.bincount(tokens, minlength=vocabulary) / count
    p = np.exp(log_p)
    assert (frequency[::3] == 0).all()
    assert (np.abs(frequency - p) < 5 * np.sqrt(p * (1 - p) / count) + 1e-4).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "max_new_tokens must be >= 1"),
        ({"steps": 28}, "exceed the model's context of 32"),
        ({"temperature": -0.1}, "temperature must be >= 0"),
        ({"temperature": float("nan")}, "temperature must be >= 0"),
        ({"top_k": 0}, "top_k must be between 1 and the vocabulary's 40"),
        ({"top_k": 41}, "top_k must be between"),
        ({"top_p": 0.0}, "top_p must be in"),
        ({"eos_id": 40}, "must be tokens below 40"),
        ({"mask": MASK[:, ::-1]}, r"left-padded and not empty; rows \[0, 2\]"),
        ({"mask": MASK & [[True], [False], [True]]}, r"rows \[1\]"),
        ({"mask": MASK[:, 1:]}, "must share one shape"),
    ],
)
def test_settings_out_of_range_are_named(params, changes, message):
    with pytest.raises(ValueError, match=message):
        draw(params, **changes)


def test_a_group_shares_its_prompt_and_its_members_differ(params):
    """Row i * group_size + j continues prompt i: scored by full passes, its log-probs are its own."""
    group = draw(params, group_size=4, temperature=1.3)
    assert group.tokens.shape == (len(PROMPTS) * 4, STEPS)
    prompts, mask = np.repeat(PROMPTS, 4, axis=0), np.repeat(MASK, 4, axis=0)
    whole = np.concatenate([prompts, group.tokens], axis=1)
    logits = np.asarray(full_logits(params, whole, np.concatenate([mask, group.mask], axis=1)), np.float64)
    logps = logits[:, PROMPTS.shape[1] - 1 : -1] / 1.3
    logps = logps - np.log(np.exp(logps).sum(-1, keepdims=True))
    expected = np.take_along_axis(logps, group.tokens[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(group.logps, np.where(group.mask, expected, 0.0), atol=1e-4)
    for prompt in range(len(PROMPTS)):
        assert len({tuple(row) for row in group.tokens[4 * prompt : 4 * prompt + 4]}) == 4


def test_a_group_of_one_is_the_plain_sample(params):
    for one, other in zip(draw(params, group_size=1), draw(params), strict=True):
        np.testing.assert_array_equal(one, other)


def test_entropies_are_those_of_the_distributions_drawn_from(params):
    settings = {"temperature": 0.7, "top_k": 5}
    samples = draw(params, with_entropies=True, **settings)
    whole = np.concatenate([PROMPTS, samples.tokens], axis=1)
    logits = np.asarray(full_logits(params, whole, np.concatenate([MASK, samples.mask], axis=1)))
    for row in range(len(PROMPTS)):
        for step in range(STEPS):
            kept = sorted_truncate(logits[row, PROMPTS.shape[1] - 1 + step] / 0.7, 5, None)
            p = np.exp(kept - kept.max()) / np.exp(kept - kept.max()).sum()
            expected = -np.sum(p[p > 0] * np.log(p[p > 0])) if samples.mask[row, step] else 0.0
            assert samples.entropies[row, step] == pytest.approx(expected, abs=1e-4)
    assert draw(params, **settings).entropies is None


@pytest.mark.parametrize("min_p", [0.05, 0.5, 1.0])
def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest(min_p):
    logits = np.random.default_rng(0).normal(scale=3, size=(4, 50)).astype(np.float32)
    kept = np.isfinite(np.asarray(sampler.truncate(jnp.asarray(logits), None, 0.9, min_p)))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    nucleus = np.stack([np.isfinite(sorted_truncate(row, None, 0.9)) for row in logits])
    np.testing.assert_array_equal(kept, nucleus & (p >= min_p * p.max(-1, keepdims=True) * (1 - 1e-6)))
    assert kept.any(axis=1).all()
