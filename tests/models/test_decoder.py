"""The decoder against itself: every layout of the same sequences gives the same numbers, every switch is exact."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.models import decoder
from alignment.models.decoder import DecoderConfig
from alignment.segments import BRANCHES

VOCABULARY = 40
CONFIG = DecoderConfig(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    max_position_embeddings=64,
)
EVERYTHING = dataclasses.replace(
    CONFIG,
    norm="gemma",
    activation="gelu_tanh",
    embedding_scale=True,
    attention_bias=True,
    attention_output_bias=True,
    qk_norm=True,
    logit_softcap=5.0,
    attn_softcap=3.0,
    reward_heads=2,
    post_norms=True,
    mlp_bias=True,
    query_pre_attn_scalar=5.0,
    sliding_window=3,
    layer_types=("sliding_attention", "full_attention"),
    rope_local_theta=50.0,
    rope_scaling={"factor": 4.0, "rope_type": "yarn", "original_max_position_embeddings": 16},
)
GPT2 = dataclasses.replace(
    CONFIG,
    num_kv_heads=4,
    learned_positions=True,
    norm="layer",
    gated_mlp=False,
    mlp_bias=True,
    activation="gelu_tanh",
    attention_bias=True,
    attention_output_bias=True,
    sliding_window=4,
)
KINDS = {"llama": CONFIG, "everything": EVERYTHING, "gpt2": GPT2}
each_kind = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)


def parameters(config, seed=0):
    """Larger than the initial ones, so that attention is far from uniform and differences show."""
    params = decoder.init(config, jax.random.key(seed))
    keys = iter(jax.random.split(jax.random.key(seed + 1), len(jax.tree.leaves(params))))
    return jax.tree.map(lambda a: a + 0.2 * jax.random.normal(next(keys), a.shape), params)


def plain(length, columns=None, offset=0):
    """(tokens, positions, segment_ids) of one sequence of `length` at column `offset` of a row of `columns`."""
    columns = columns or length
    tokens = np.full((1, columns), 7, np.int32)
    positions, segments = np.zeros_like(tokens), np.zeros_like(tokens)
    here = slice(offset, offset + length)
    tokens[0, here] = np.random.default_rng(length).integers(0, VOCABULARY, length)
    positions[0, here], segments[0, here] = np.arange(length), BRANCHES
    return tokens, positions, segments


def run(config, params, row, cache=None):
    return jax.jit(decoder.build(config).hidden)(params, *row, cache)


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def trees_close(a, b, tolerance=2e-5):
    jax.tree.map(lambda x, y: close(x, y, tolerance * (1 + float(jnp.abs(y).max()))), a, b)


def test_attention_mask_is_the_rule_spelled_out():
    segments = np.array([[0, 1024, 1024, 1025, 1026, 2048, 2049, 0, 1]])
    mask = np.asarray(decoder.attention_mask(segments, np.arange(9), segments, np.arange(9)))[0]
    for q in range(9):
        for k in range(9):
            tree_q, branch_q = divmod(segments[0, q], 1024)
            tree_k, branch_k = divmod(segments[0, k], 1024)
            sees = tree_q == tree_k and segments[0, k] != 0 and k <= q and branch_k in (0, branch_q)
            assert mask[q, k] == sees, (q, k)


@each_kind
@pytest.mark.parametrize(("columns", "offset"), [(12, 5), (12, 0), (9, 1)])
def test_padding_on_either_side_changes_nothing(config, columns, offset):
    params = parameters(config)
    alone, _ = run(config, params, plain(7))
    padded, _ = run(config, params, plain(7, columns, offset))
    close(padded[:, offset : offset + 7], alone)


def test_tokens_and_positions_of_padding_change_nothing():
    params = parameters(CONFIG)
    tokens, positions, segments = plain(7, 12, 3)
    clean, _ = run(CONFIG, params, (tokens, positions, segments))
    dirty, _ = run(
        CONFIG, params, (np.where(segments == 0, 39, tokens), np.where(segments == 0, 63, positions), segments)
    )
    np.testing.assert_array_equal(clean[segments > 0], dirty[segments > 0])


def test_packed_sequences_do_not_see_each_other():
    params = parameters(CONFIG)
    first, second = plain(5), plain(8)
    packed = [np.concatenate(pair, axis=1) for pair in zip(first, second, strict=True)]
    packed[2] = np.concatenate([first[2], second[2] + BRANCHES], axis=1)
    h, _ = run(CONFIG, params, tuple(packed))
    close(h[:, :5], run(CONFIG, params, first)[0])
    close(h[:, 5:], run(CONFIG, params, second)[0])


def tree_and_rows():
    """A left-padded prompt with two completions as one tree, and as two separate rows."""
    prompt, sides = np.array([3, 9, 1]), np.array([[5, 6, 2, 8], [11, 4, 30, 2]])
    tree = (
        np.concatenate([[0, 0], prompt, *sides])[None],
        np.concatenate([[0, 0], np.arange(3), np.arange(3, 7), np.arange(3, 7)])[None],
        np.concatenate([[0, 0], np.full(3, 1024), np.full(4, 1025), np.full(4, 1026)])[None],
    )
    rows = (
        np.stack([np.concatenate([prompt, side]) for side in sides]),
        np.tile(np.arange(7), (2, 1)),
        np.full((2, 7), 1024),
    )
    return sides, tuple(a.astype(np.int32) for a in tree), tuple(a.astype(np.int32) for a in rows)


@each_kind
def test_a_tree_equals_its_separate_rows_in_logps_and_gradients(config):
    sides, tree, rows = tree_and_rows()
    model, params = decoder.build(config), parameters(config)
    weights = np.linspace(-1, 2, 8).reshape(2, 4)
    tree_from = np.array([[4, 5, 6, 7], [4, 9, 10, 11]])  # the last prompt token predicts both first tokens

    def logps(params, row, gather):
        logits = jax.nn.log_softmax(model.unembed(params, gather(model.hidden(params, *row)[0])))
        chosen = jnp.take_along_axis(logits, sides[..., None], axis=-1)[..., 0]
        return jnp.sum(weights * chosen), chosen

    together = jax.jit(jax.value_and_grad(lambda p: logps(p, tree, lambda h: h[0, tree_from]), has_aux=True))
    apart = jax.jit(jax.value_and_grad(lambda p: logps(p, rows, lambda h: h[:, 2:6]), has_aux=True))
    ((_, a), grad_a), ((_, b), grad_b) = together(params), apart(params)
    close(a, b)
    trees_close(grad_a, grad_b)


@each_kind
def test_cached_decode_equals_the_full_forward(config):
    params = parameters(config)
    row = plain(9, 12, 3)  # left padding
    full, _ = run(config, params, row)
    prefix, cache = run(config, params, tuple(a[:, :6] for a in row), decoder.init_cache(config, 1, 6))
    cache = decoder.grow_cache(cache, 6)
    parts = [prefix]
    for i in range(6, 12):
        h, cache = run(config, params, tuple(a[:, i : i + 1] for a in row), cache)
        parts.append(h)
    close(jnp.concatenate(parts, axis=1)[:, 3:], full[:, 3:])
    assert int(cache.length) == 12


@each_kind
def test_cached_tree_equals_the_full_forward(config):
    _, tree, _ = tree_and_rows()
    params = parameters(config)
    full, _ = run(config, params, tree)
    cache, parts = decoder.init_cache(config, 1, 13), []
    for here in (slice(0, 5), slice(5, 9), slice(9, 13)):
        h, cache = run(config, params, tuple(a[:, here] for a in tree), cache)
        parts.append(h)
    close(jnp.concatenate(parts, axis=1)[:, 2:], full[:, 2:])


def test_writing_past_the_cache_is_an_error():
    model, params, row = decoder.build(CONFIG), parameters(CONFIG), plain(5)
    with pytest.raises(ValueError, match="5 columns from column 0 do not fit a cache of 4"):
        jax.eval_shape(model.hidden, params, *row, decoder.init_cache(CONFIG, 1, 4))
    _, cache = model.hidden(params, *row, decoder.init_cache(CONFIG, 1, 8))
    with pytest.raises(ValueError, match="5 columns from column 5 do not fit a cache of 8"):
        model.hidden(params, *row, cache)


def loss_and_gradient(config, params, row):
    model = decoder.build(config)

    def loss(params):
        return jnp.mean(jnp.square(model.unembed(params, model.hidden(params, *row)[0])))

    return jax.jit(jax.value_and_grad(loss))(params)


@pytest.mark.parametrize(
    ("config", "remat", "scan_layers"),
    [(CONFIG, r, s) for r in ("none", "full", "dots") for s in (True, False)] + [(EVERYTHING, "full", False)],
)
def test_remat_and_scan_change_memory_only(config, remat, scan_layers):
    params, row = parameters(config), plain(6, 8, 2)
    changed = dataclasses.replace(config, remat=remat, scan_layers=scan_layers)
    expected, expected_gradient = loss_and_gradient(config, params, row)
    value, gradient = loss_and_gradient(changed, params, row)
    close(value, expected)
    trees_close(gradient, expected_gradient)


def test_a_window_hides_what_lies_before_it():
    """With one sliding layer a token depends on the last `sliding_window` tokens, its own included, and no other."""
    config = dataclasses.replace(CONFIG, num_layers=1, sliding_window=3)
    params, (tokens, positions, segments) = parameters(config), plain(8)
    before, _ = run(config, params, (tokens, positions, segments))
    for at in range(8):
        changed = tokens.copy()
        changed[0, at] = (changed[0, at] + 1) % VOCABULARY
        after, _ = run(config, params, (changed, positions, segments))
        moved = np.abs(np.asarray(after - before)).max(axis=-1)[0] > 0
        np.testing.assert_array_equal(moved, [at <= i < at + 3 for i in range(8)])


def test_a_window_as_long_as_the_row_is_none():
    params, row = parameters(CONFIG), plain(9)
    wide = dataclasses.replace(CONFIG, sliding_window=9)
    mixed = dataclasses.replace(wide, layer_types=("full_attention", "sliding_attention"))
    for config in (wide, mixed):
        close(run(config, params, row)[0], run(CONFIG, params, row)[0])


def test_grouped_queries_equal_repeated_keys():
    full = dataclasses.replace(CONFIG, num_kv_heads=4)
    grouped, row = parameters(CONFIG), plain(6)
    repeated = {**grouped, "layers": dict(grouped["layers"])}
    for name in ("k", "v"):
        heads = grouped["layers"][name].reshape(2, 32, 2, 8)
        repeated["layers"][name] = jnp.repeat(heads, 2, axis=2).reshape(2, 32, 32)
    close(run(CONFIG, grouped, row)[0], run(full, repeated, row)[0])


def test_rows_of_padding_give_finite_values_and_gradients():
    tokens, positions, segments = (np.concatenate([a, a]) for a in plain(4, 7, 3))
    segments[1] = 0
    value, gradient = loss_and_gradient(EVERYTHING, parameters(EVERYTHING), (tokens, positions, segments))
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@each_kind
def test_every_parameter_is_trained(config):
    config = dataclasses.replace(config, reward_heads=0)
    _, gradient = loss_and_gradient(config, parameters(config), plain(6))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert jnp.abs(leaf).max() > 0, path


def test_unembed_is_the_softcapped_product_with_the_head():
    for config in (CONFIG, dataclasses.replace(CONFIG, tie_word_embeddings=True), EVERYTHING):
        model, params = decoder.build(config), parameters(config)
        h, _ = model.hidden(params, *plain(4))
        logits = h @ model.head(params).T
        if config.logit_softcap:
            logits = config.logit_softcap * jnp.tanh(logits / config.logit_softcap)
        close(model.unembed(params, h), logits)


def test_bfloat16_computes_in_bfloat16_and_scores_in_float32():
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    params, row = parameters(config), plain(6, 8, 2)
    h, _ = run(config, params, row)
    logits = decoder.build(config).unembed(params, h)
    assert h.dtype == jnp.bfloat16 and logits.dtype == jnp.float32
    assert params["layers"]["q"].dtype == jnp.float32
    full, _ = run(CONFIG, params, row)
    close(h.astype(jnp.float32)[:, 2:], full[:, 2:], 0.2)


def test_init_scales_and_count():
    config = dataclasses.replace(CONFIG, hidden_size=128, intermediate_size=256, num_layers=8)
    params = decoder.init(config, jax.random.key(0))
    assert float(params["embedding"].std()) == pytest.approx(0.02, rel=0.1)
    assert float(params["layers"]["down"].std()) == pytest.approx(0.02 / 4, rel=0.1)
    assert (params["layers"]["attention_norm"] == 1).all()
    abstract = jax.eval_shape(lambda: decoder.init(config, jax.random.key(0)))
    assert (
        decoder.parameter_count(params)
        == decoder.parameter_count(abstract)
        == sum(a.size for a in jax.tree.leaves(params))
    )


def test_a_reward_head_leaves_the_other_weights_alone():
    with_head = decoder.init(dataclasses.replace(CONFIG, reward_heads=3), jax.random.key(0))
    assert with_head.pop("reward_head").shape == (32, 3)
    jax.tree.map(np.testing.assert_array_equal, with_head, decoder.init(CONFIG, jax.random.key(0)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 0}, "num_layers must be >= 1"),
        ({"num_kv_heads": 3}, "multiple of num_kv_heads"),
        ({"hidden_size": 30}, "multiple of num_heads"),
        ({"head_dim": 7}, "head_dim must be even"),
        ({"norm": "batch"}, "norm must be one of"),
        ({"norm": "layer", "qk_norm": True}, "qk_norm is a norm without bias"),
        ({"sliding_window": 0}, "sliding_window must be > 0"),
        ({"layer_types": ("sliding_attention",) * 2}, "has sliding layers, but sliding_window is None"),
        ({"sliding_window": 4, "layer_types": ("full_attention",)}, "for each of the 2 layers"),
        ({"rope_local_theta": 5.0}, "rope_local_theta is of sliding layers"),
        ({"rope_scaling": {"factor": 2.0, "rope_type": "dynamic"}}, "rope_scaling.rope_type must be one of"),
        ({"rope_scaling": {"factor": 2.0, "rope_type": "yarn"}}, "original_max_position_embeddings must be >= 1"),
        ({"activation": "relu"}, "activation must be one of"),
        ({"remat": "some"}, "remat must be one of"),
        ({"dtype": "int8"}, "dtype must be one of"),
        ({"rope_theta": 0.0}, "rope_theta must be > 0"),
        ({"logit_softcap": -1.0}, "logit_softcap must be > 0"),
        ({"reward_heads": -1}, "reward_heads must be >= 0"),
        ({"rope_scaling": {"factor": 2.0, "kind": "yarn"}}, "unknown keys in rope_scaling: .'kind'"),
    ],
)
def test_settings_out_of_range_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        DecoderConfig(**vars(CONFIG) | {"head_dim": None} | change)


def test_shapes_that_differ_are_refused():
    tokens, positions, segments = plain(4)
    with pytest.raises(ValueError, match="must share one shape"):
        decoder.build(CONFIG).hidden(parameters(CONFIG), tokens, positions[:, :3], segments)


# --- bidirectional ---------------------------------------------------------------------------------------------------

BIDIRECTIONAL = dataclasses.replace(CONFIG, causal=False)


def test_a_bidirectional_model_sees_what_stands_after_and_a_causal_one_does_not():
    params, tokens = parameters(CONFIG), jnp.arange(6)[None] + 3
    positions, segments = jnp.arange(6)[None], jnp.full((1, 6), BRANCHES)
    changed = tokens.at[0, 5].set(20)
    for config, sees in ((CONFIG, False), (BIDIRECTIONAL, True)):
        one, other = (decoder.hidden(config, params, t, positions, segments)[0][0, :5] for t in (tokens, changed))
        assert bool(jnp.any(jnp.abs(one - other) > 1e-3)) is sees


def test_bidirectional_responses_share_a_prompt_that_sees_neither():
    """One row of a prompt and two responses gives each what a row of its own gives it, through a cache as well."""
    params = parameters(CONFIG)
    prompt, one, other = jnp.arange(4) + 3, jnp.array([9, 10, 11]), jnp.array([12, 13, 14])
    tokens = jnp.concatenate([prompt, one, other])[None]
    positions = jnp.array([[0, 1, 2, 3, 4, 5, 6, 4, 5, 6]])
    segments = jnp.array([[BRANCHES] * 4 + [BRANCHES + 1] * 3 + [BRANCHES + 2] * 3])
    both, _ = decoder.hidden(BIDIRECTIONAL, params, tokens, positions, segments)
    for response, columns in ((one, slice(4, 7)), (other, slice(7, 10))):
        row = jnp.concatenate([prompt, response])[None]
        alone, _ = decoder.hidden(BIDIRECTIONAL, params, row, jnp.arange(7)[None], segments[:, :7])
        np.testing.assert_allclose(both[:, columns], alone[:, 4:], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(both[:, :4], alone[:, :4], rtol=1e-5, atol=1e-5)
        cache = decoder.init_cache(BIDIRECTIONAL, 1, 7)
        _, cache = decoder.hidden(BIDIRECTIONAL, params, prompt[None], jnp.arange(4)[None], segments[:, :4], cache)
        cached, _ = decoder.hidden(
            BIDIRECTIONAL, params, response[None], jnp.arange(4, 7)[None], segments[:, 4:7], cache
        )
        np.testing.assert_allclose(cached, alone[:, 4:], rtol=1e-5, atol=1e-5)


@each_kind
def test_the_states_after_some_layers_are_those_that_a_model_of_so_many_layers_norms(config):
    params, row = parameters(config), plain(9)
    kinds = config.layer_types and config.layer_types[:1]
    short = dataclasses.replace(config, num_layers=1, layer_types=kinds)
    cut = params | {"layers": jax.tree.map(lambda a: a[:1], params["layers"])}
    early, _ = jax.jit(lambda params: decoder.build(config).hidden(params, *row, layers=1))(params)
    close(decoder._norm(config, params, "final_norm", early), run(short, cut, row)[0], 1e-4)
    for layers in (0, 3):
        with pytest.raises(ValueError, match=r"layers: must lie in \[1, 2\]"):
            decoder.build(config).hidden(params, *row, layers=layers)
