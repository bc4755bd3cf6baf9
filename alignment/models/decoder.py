"""A decoder-only transformer as plain functions over a dict of stacked parameters.

`build(config)` returns the functions everything else in the library uses:

    init(rng) -> params
    hidden(params, tokens, positions, segment_ids, cache=None) -> (h, cache)
    unembed(params, h) -> logits
    head(params) -> [V, D], the output matrix

The layout is that of Llama (Touvron et al. 2023, arXiv:2302.13971): pre-norm, RMSNorm, rotary positions (Su et al.
2021, arXiv:2104.09864), grouped queries (Ainslie et al. 2023, arXiv:2305.13245), gated MLP. Switches cover Mistral,
Qwen 2 and 3, Gemma 1 to 3 and GPT-2. A row of the batch may be a tree, several packed sequences, or both: see
`attention_mask`.

Parameters (L layers, H heads of size d, K key/value heads, width D, MLP width F, vocabulary V), all in `param_dtype`:

    embedding [V, D]   final_norm [D]   lm_head [V, D] (untied only)   reward_head [D, n] (reward_heads = n > 0 only)
    position_embedding [P, D] (learned_positions)   instruction_embedding [I, D] (num_instruction_levels = I > 0 only)
    layers: attention_norm [L, D]   q [L, D, H*d]   k, v [L, D, K*d]   o [L, H*d, D]
            mlp_norm [L, D]   gate (gated_mlp), up [L, D, F]   down [L, F, D]
            attention_post_norm, mlp_post_norm [L, D] (post_norms)   q_norm, k_norm [L, d] (qk_norm)
            q_bias, k_bias, v_bias (attention_bias)   o_bias (attention_output_bias)   gate_, up_, down_bias (mlp_bias)

A norm of the kind "layer" also has a bias, such as final_norm_bias. A matrix may have low-rank adapters beside it, or
be quantised: see `_project` and `alignment.models.lora`.
"""

import dataclasses
import math
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alignment.models import rotary
from alignment.models.attention import attend_cache, attend_row
from alignment.models.config import SLIDING, DecoderConfig
from alignment.models.linear import matmul
from alignment.models.quantized import dense
from alignment.segments import BRANCHES

Array = jax.Array
Params = dict[str, Any]

_ACTIVATIONS = {"silu": jax.nn.silu, "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True)}


class Cache(NamedTuple):
    """Keys and values of the columns seen so far; `length` is the next free column (the same for every row)."""

    # Per layer keys [B, K, d, S] and values [B, K, S, d], as `attend_cache` reads them; one buffer each is fastest.
    layers: tuple[tuple[Array, Array], ...]
    segment_ids: Array  # i32 [B, S], 0 where nothing is written
    positions: Array  # i32 [B, S], which a sliding window is measured in
    length: Array  # i32 []


class Model(NamedTuple):
    """A language model as functions; `unembed(params, h)` equals `softcap(h @ head(params).T)` in float32."""

    config: DecoderConfig
    init: Callable[[Array], Params]
    hidden: Callable[..., tuple[Array, Cache | None]]
    unembed: Callable[[Params, Array], Array]
    head: Callable[[Params], Array]


def visible_segments(query_segments: Array, key_segments: Array) -> Array:
    """Which key each query may see, wherever it stands: of its tree, not padding, on the prompt or its own branch.

    Segment ids as in `attention_mask`, [B, Q] and [B, S]; bool [B, Q, S]. A bidirectional model sees just this: a
    prompt sees itself and no completion, so completions can share it here too.
    """
    query, key = query_segments[..., :, None], key_segments[..., None, :]
    key_branch = key % BRANCHES
    same_tree = (query // BRANCHES == key // BRANCHES) & (key != 0)
    return same_tree & ((key_branch == 0) | (key_branch == query % BRANCHES))


def attention_mask(query_segments: Array, query_index: Array, key_segments: Array, key_index: Array) -> Array:
    """Which key each query of a causal model sees: of `visible_segments`, those not later in the row.

    Args:
      query_segments: i32 [B, Q] segment ids, tree * 1024 + branch, 0 for padding.
      query_index: i32 [Q] or [B, Q] columns of the queries in the row.
      key_segments: i32 [B, S].
      key_index: i32 [S] or [B, S].

    Returns:
      bool [B, Q, S]. Padding queries see nothing.
    """
    earlier = key_index[..., None, :] <= query_index[..., :, None]
    return visible_segments(query_segments, key_segments) & earlier


def _visible(config: DecoderConfig, query_segments, query_index, key_segments, key_index) -> Array:
    if not config.causal:
        return visible_segments(query_segments, key_segments)
    return attention_mask(query_segments, query_index, key_segments, key_index)


def layer_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of one layer's parameters (the stacked array has a leading num_layers)."""
    width, mlp, size = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_heads * size, config.num_kv_heads * size
    shapes = {
        "attention_norm": (width,),
        "q": (width, queries),
        "k": (width, keys),
        "v": (width, keys),
        "o": (queries, width),
        "mlp_norm": (width,),
        "up": (width, mlp),
        "down": (mlp, width),
    }
    if config.gated_mlp:
        shapes["gate"] = (width, mlp)
    if config.mlp_bias:
        shapes |= {f"{name}_bias": (shapes[name][1],) for name in ("gate", "up", "down") if name in shapes}
    if config.post_norms:
        shapes |= {"attention_post_norm": (width,), "mlp_post_norm": (width,)}
    if config.norm == "layer":
        shapes |= {f"{name}_bias": shape for name, shape in shapes.items() if name.endswith("norm")}
    if config.attention_bias:
        shapes |= {"q_bias": (queries,), "k_bias": (keys,), "v_bias": (keys,)}
    if config.attention_output_bias:
        shapes |= {"o_bias": (width,)}
    if config.qk_norm:
        shapes |= {"q_norm": (size,), "k_norm": (size,)}
    return shapes


def top_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the parameters outside the layers."""
    shapes = {"embedding": (config.vocab_size, config.hidden_size), "final_norm": (config.hidden_size,)}
    if config.norm == "layer":
        shapes["final_norm_bias"] = (config.hidden_size,)
    if config.learned_positions:
        shapes["position_embedding"] = (config.max_position_embeddings, config.hidden_size)
    if config.num_instruction_levels:
        shapes["instruction_embedding"] = (config.num_instruction_levels, config.hidden_size)
    if not config.tie_word_embeddings:
        shapes["lm_head"] = (config.vocab_size, config.hidden_size)
    if config.reward_heads:
        shapes["reward_head"] = (config.hidden_size, config.reward_heads)
    return shapes


def parameter_count(params: Params) -> int:
    """Number of scalars in `params` (arrays or `jax.eval_shape` structs)."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def init(config: DecoderConfig, rng: Array) -> Params:
    """Normal(0, 0.02), projections into the residual stream divided by sqrt(2 * num_layers) as in GPT-2, norms 1.

    Instruction levels: Normal(0, 0.01) (Wu et al., 2024, arXiv:2410.09102).
    """
    dtype = jnp.dtype(config.param_dtype)
    scales = {"o": 1 / math.sqrt(2 * config.num_layers), "down": 1 / math.sqrt(2 * config.num_layers)}
    scales["instruction_embedding"] = 0.5

    def draw(key, name, shape):
        if name.endswith("norm"):
            return jnp.full(shape, 0.0 if config.norm == "gemma" else 1.0, dtype)
        if name.endswith("bias"):
            return jnp.zeros(shape, dtype)
        return (0.02 * scales.get(name, 1.0) * jax.random.normal(key, shape, jnp.float32)).astype(dtype)

    top, layers = top_shapes(config), layer_shapes(config)
    # One key per name and not per position: adding a reward head or a bias leaves every other weight as it was.
    keys = {name: jax.random.fold_in(rng, zlib.crc32(name.encode())) for name in (*top, *layers)}
    stacked = {name: draw(keys[name], name, (config.num_layers, *shape)) for name, shape in layers.items()}
    return {name: draw(keys[name], name, shape) for name, shape in top.items()} | {"layers": stacked}


def init_cache(config: DecoderConfig, batch: int, size: int) -> Cache:
    """An empty cache of `size` columns."""
    if batch < 1 or size < 1:
        raise ValueError(f"a cache needs batch >= 1 and size >= 1, got {batch} and {size}")
    zeros = lambda *shape: jnp.zeros((batch, config.num_kv_heads, *shape), config.dtype)  # noqa: E731
    layers = tuple((zeros(config.head_dim, size), zeros(size, config.head_dim)) for _ in range(config.num_layers))
    columns = lambda: jnp.zeros((batch, size), jnp.int32)  # noqa: E731
    return Cache(layers, columns(), columns(), jnp.zeros((), jnp.int32))


def grow_cache(cache: Cache, extra: int) -> Cache:
    """The same cache with `extra` free columns at its end (prefill in a tight buffer, then decode in a larger one)."""

    def pad(a: Array, axis: int) -> Array:
        return jnp.pad(a, [(0, extra if i == axis else 0) for i in range(a.ndim)])

    layers = tuple((pad(keys, 3), pad(values, 2)) for keys, values in cache.layers)
    return cache._replace(layers=layers, segment_ids=pad(cache.segment_ids, 1), positions=pad(cache.positions, 1))


def _check_fits(cache: Cache, columns: int) -> None:
    size = cache.segment_ids.shape[1]
    try:
        start = int(cache.length)
    except jax.errors.ConcretizationTypeError:
        start = 0  # traced: only the shapes can be checked here
    if start + columns > size:
        raise ValueError(f"{columns} columns from column {start} do not fit a cache of {size} columns")


def _norm(config: DecoderConfig, params: Params, name: str, x: Array) -> Array:
    x32, weight = x.astype(jnp.float32), params[name].astype(jnp.float32)
    if config.norm == "layer":
        x32 = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + config.rms_norm_eps)
    x32 = x32 * (1 + weight if config.norm == "gemma" else weight)
    if config.norm == "layer":
        x32 = x32 + params[f"{name}_bias"].astype(jnp.float32)
    return x32.astype(x.dtype)


def _softcap(x: Array, cap: float | None) -> Array:
    return x if cap is None else cap * jnp.tanh(x / cap)


def _project(layer: Params, name: str, x: Array) -> Array:
    """x W + bias; with adapters x (W + A B) + bias, and with magnitudes m that sum has columns of norm m (DoRA)."""
    weight = dense(layer[name])
    y = matmul(x, weight.astype(x.dtype))
    if f"{name}_lora_a" in layer:
        down, up = layer[f"{name}_lora_a"], layer[f"{name}_lora_b"]
        y = y + matmul(matmul(x, down.astype(x.dtype)), up.astype(x.dtype))
        if f"{name}_magnitude" in layer:
            whole = weight.astype(jnp.float32) + down.astype(jnp.float32) @ up.astype(jnp.float32)
            # The paper holds the norm fixed in the backward pass.
            norms = jax.lax.stop_gradient(jnp.linalg.norm(whole, axis=0))
            y = y * (layer[f"{name}_magnitude"].astype(jnp.float32) / norms).astype(x.dtype)
    bias = layer.get(f"{name}_bias")
    return y if bias is None else y + bias.astype(x.dtype)


def _gated(activation: str, gate: Array, up: Array) -> Array:
    return _ACTIVATIONS[activation](gate) * up


def _layer(config, h, layer, rotation, mask, store=None):
    """One block. `store(k, v) -> (k, v)` writes the new columns into a cache and returns all columns."""
    batch, columns, _ = h.shape
    x = _norm(config, layer, "attention_norm", h)
    q = _project(layer, "q", x).reshape(batch, columns, config.num_heads, config.head_dim)
    k = _project(layer, "k", x).reshape(batch, columns, config.num_kv_heads, config.head_dim)
    v = _project(layer, "v", x).reshape(batch, columns, config.num_kv_heads, config.head_dim)
    if config.qk_norm:
        q, k = _norm(config, layer, "q_norm", q), _norm(config, layer, "k_norm", k)
    if rotation is not None:
        q, k = rotary.rotate(q, *rotation), rotary.rotate(k, *rotation)
    scale = 1 / math.sqrt(config.query_pre_attn_scalar or config.head_dim)
    scores = {"scale": scale, "softcap": config.attn_softcap}
    if store is None:
        mixed = attend_row(q, k, v, mask, causal=config.causal, in_scan=config.scan_layers, **scores)
    else:
        k, v = store(k, v)
        mixed = attend_cache(q, k, v, mask, **scores)
    x = _project(layer, "o", mixed)
    h = h + (_norm(config, layer, "attention_post_norm", x) if config.post_norms else x)
    x = _norm(config, layer, "mlp_norm", h)
    if config.gated_mlp:
        # Kept for the backward pass are the two products, not the four arrays between them and the third.
        gated = jax.checkpoint(_gated, static_argnums=0, prevent_cse=not config.scan_layers)
        x = gated(config.activation, _project(layer, "gate", x), _project(layer, "up", x))
    else:
        x = _ACTIVATIONS[config.activation](_project(layer, "up", x))
    x = _project(layer, "down", x)
    return h + (_norm(config, layer, "mlp_post_norm", x) if config.post_norms else x), (k, v)


def _remat(config: DecoderConfig, function, in_scan: bool):
    if config.remat == "none":
        return function
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if config.remat == "dots" else None
    # Inside a scan the loop already keeps XLA from merging the recomputation with the forward pass.
    return jax.checkpoint(function, policy=policy, prevent_cse=not in_scan)


def hidden(
    config: DecoderConfig,
    params: Params,
    tokens: Array,
    positions: Array,
    segment_ids: Array,
    cache: Cache | None = None,
    rows: jax.sharding.NamedSharding | None = None,
    layers: int | None = None,
    instruction_levels: Array | None = None,
) -> tuple[Array, Cache | None]:
    """Final hidden states (after the last norm), [B, Q, D] in `config.dtype`, and the cache with these columns added.

    Args:
      params: as made by `init`. With a cache, `params["layers"]` may also be a tuple of one dict per layer
        (`unstack_layers`), which spares a decoding loop the slicing.
      tokens, positions, segment_ids: i32 [B, Q]. Positions rotate, and measure sliding windows; otherwise visibility
        follows columns and segments.
      cache: columns already seen; the new ones are written from `cache.length` on. None: the row is complete. Of a
        bidirectional model the columns of a cache do not see those that come later: a prompt may, a response may not.
      rows: how activations lie on a mesh, by their first axis. Without it XLA may follow the parameters instead, which
        are split along the width: then every device computes on all rows and exchanges activations, not weights.
      layers: only so many layers run, and what comes back is what the next one would read, before any norm.
      instruction_levels: i32 [B, Q], whose word each token is (`alignment.segments.LEVELS`), of a model that has
        embeddings of them; these are added to those of the tokens.

    Raises:
      ValueError: shapes differ, levels are missing or not of this model, or the columns do not fit the cache (as far as
        that is known while tracing; a traced length beyond the buffer cannot be seen here, so callers bound their loops
        by the buffer's size).
    """
    if not tokens.shape == positions.shape == segment_ids.shape or tokens.ndim != 2:
        raise ValueError(
            f"tokens, positions and segment_ids must share one shape [B, Q], got {tokens.shape}, {positions.shape}, "
            f"{segment_ids.shape}"
        )
    if layers is not None:
        if cache is not None or not 1 <= layers <= config.num_layers:
            raise ValueError(f"layers: must lie in [1, {config.num_layers}] and go without a cache, got {layers}")
        first = jax.tree.map(lambda a: a[:layers], params["layers"])
        kinds = config.layer_types and config.layer_types[:layers]
        config, params = dataclasses.replace(config, num_layers=layers, layer_types=kinds), params | {"layers": first}
    # The table is cast before it is gathered: half the bytes travel in bfloat16.
    h = _held(rows, _whole(rows, params["embedding"].astype(config.dtype))[tokens])
    if "embedding_noise" in params:  # drawn for these very rows, see `alignment.training.embedding_noise`
        h = h + params["embedding_noise"].astype(h.dtype)
    if (config.num_instruction_levels > 0) != (instruction_levels is not None):
        raise ValueError(
            f"instruction_levels: {'none' if instruction_levels is None else 'some'} given to a model of "
            f"num_instruction_levels={config.num_instruction_levels}; [B, Q] goes with a model that has them, and None "
            "with any other"
        )
    if instruction_levels is not None:
        h = h + _whole(rows, params["instruction_embedding"].astype(config.dtype))[instruction_levels]
    if config.embedding_scale:
        h = h * jnp.asarray(math.sqrt(config.hidden_size), h.dtype)
    if config.learned_positions:
        h = h + params["position_embedding"][positions].astype(config.dtype)
    rotations = _rotations(config, positions)
    columns = jnp.arange(tokens.shape[1])
    stacked = params["layers"]
    slides = None if config.layer_types is None else [kind == SLIDING for kind in config.layer_types]

    if cache is not None:
        _check_fits(cache, tokens.shape[1])
        start = cache.length
        segments = jax.lax.dynamic_update_slice(cache.segment_ids, segment_ids.astype(jnp.int32), (0, start))
        places = jax.lax.dynamic_update_slice(cache.positions, positions.astype(jnp.int32), (0, start))
        mask = _visible(config, segment_ids, start + columns, segments, jnp.arange(segments.shape[1]))
        near = _near(config, positions, places)
        if not isinstance(stacked, tuple):
            stacked = unstack_layers(params)["layers"]
        written = []
        for i, (layer, (keys, values)) in enumerate(zip(stacked, cache.layers, strict=True)):

            def store(k, v, keys=keys, values=values):
                put = jax.lax.dynamic_update_slice
                k, v = k.transpose(0, 2, 3, 1).astype(keys.dtype), v.transpose(0, 2, 1, 3).astype(values.dtype)
                return put(keys, k, (0, 0, 0, start)), put(values, v, (0, 0, start, 0))

            here = _of_kind(rotations, mask, near, slides and slides[i])
            h, pair = _layer(config, h, layer, *here, store)
            h = _held(rows, h)
            written.append(pair)
        cache = Cache(tuple(written), segments, places, start + tokens.shape[1])
    else:
        mask = _visible(config, segment_ids, columns, segment_ids, columns)
        near = _near(config, positions, positions)

        def one_layer(h, layer, slide):
            return _held(rows, _layer(config, h, layer, *_of_kind(rotations, mask, near, slide))[0])

        block = _remat(config, one_layer, config.scan_layers)
        if config.scan_layers:
            flags = None if slides is None else jnp.array(slides)
            h, _ = jax.lax.scan(lambda h, xs: (block(h, *xs), None), h, (stacked, flags))
        else:
            for i in range(config.num_layers):
                flag = None if slides is None else jnp.array(slides[i])
                h = block(h, jax.tree.map(lambda a, i=i: a[i], stacked), flag)
    return (h if layers is not None else _norm(config, params, "final_norm", h)), cache


def _rotations(config: DecoderConfig, positions: Array) -> tuple:
    """(cos, sin) of the full layers and of the sliding ones, which share them unless they have a theta of their own."""
    if config.learned_positions:
        return None, None
    whole = rotary.rotation(rotary.frequencies(config), positions, rotary.magnitude(config))
    if config.rope_local_theta is None:
        return whole, whole
    return whole, rotary.rotation(rotary.local_frequencies(config), positions)


def _near(config: DecoderConfig, query_positions: Array, key_positions: Array) -> Array | None:
    """bool [B, Q, S], whether the key is within the window; in positions, so that a tree counts along each branch."""
    if config.sliding_window is None:
        return None
    distance = query_positions[:, :, None] - key_positions[:, None, :]
    return (distance if config.causal else jnp.abs(distance)) < config.sliding_window


def _of_kind(rotations: tuple, mask: Array, near: Array | None, slides: Any) -> tuple:
    """The rotation and the mask of a layer; `slides` (a bool, traced inside a scan) is its kind."""
    if near is None:
        return rotations[0], mask
    if rotations[0] is not rotations[1]:
        rotation = jax.tree.map(lambda whole, local: jnp.where(slides, local, whole), *rotations)
    else:
        rotation = rotations[0]
    return rotation, mask & (near | jnp.logical_not(slides))


def _whole(rows: jax.sharding.NamedSharding | None, table: Array) -> Array:
    """`table` in full on every device: looked up where it lies, each row's tokens would have to go round instead."""
    if rows is None:
        return table
    return jax.lax.with_sharding_constraint(table, jax.sharding.NamedSharding(rows.mesh, jax.sharding.PartitionSpec()))


def _held(rows: jax.sharding.NamedSharding | None, h: Array) -> Array:
    """`h` with its first axis split as `rows` says, if it divides (a sampler may run on any number of rows)."""
    if rows is None:
        return h
    try:
        rows.shard_shape(h.shape)
    except ValueError:  # the rows do not divide
        return h
    return jax.lax.with_sharding_constraint(h, rows)


def unstack_layers(params: Params) -> Params:
    """The same parameters with `layers` as a tuple of one dict per layer."""
    count = jax.tree.leaves(params["layers"])[0].shape[0]
    return params | {"layers": tuple(jax.tree.map(lambda a, i=i: a[i], params["layers"]) for i in range(count))}


def head(config: DecoderConfig, params: Params, rows: jax.sharding.NamedSharding | None = None) -> Array:
    """The output matrix [V, D], in the dtype of the computation; with `rows`, whole on every device of the mesh."""
    return _whole(rows, params["embedding" if config.tie_word_embeddings else "lm_head"].astype(config.dtype))


def unembed(config: DecoderConfig, params: Params, h: Array) -> Array:
    """Logits [..., V] in float32."""
    h = h.astype(config.dtype)
    logits = jnp.einsum("...d,vd->...v", h, head(config, params), preferred_element_type=jnp.float32)
    return _softcap(logits, config.logit_softcap)


def build(config: DecoderConfig, rows: jax.sharding.NamedSharding | None = None) -> Model:
    """The model's functions, with `config` bound, and how activations lie on a mesh (see `hidden`)."""
    return Model(
        config=config,
        init=lambda rng: init(config, rng),
        hidden=lambda params, tokens, positions, segment_ids, cache=None, layers=None, instruction_levels=None: hidden(
            config, params, tokens, positions, segment_ids, cache, rows, layers, instruction_levels
        ),
        unembed=lambda params, h: unembed(config, params, h),
        head=lambda params: head(config, params, rows),
    )
