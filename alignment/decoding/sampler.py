"""Sampling with a key/value cache: one prefill of each prompt, then one token a step until every row has ended.

The log-probabilities returned are those of the distribution the token was drawn from, so that a scorer which applies
the same temperature and truncation to a full forward pass gets the same numbers.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignment import token_sets
from alignment.models import heads
from alignment.models.decoder import Cache, Model, Params, grow_cache, init_cache
from alignment.segments import BRANCHES, LEVELS
from alignment.training import mesh

Array = jax.Array

# Vocabulary entries per block in `categorical`.
_BLOCK = 128
_JUDGE = "scorer"  # what a scorer's cache is called among those of the models


class Samples(NamedTuple):
    """Completions of T columns; a row that drew an end token holds it last, then pad_id with mask False and logps 0."""

    tokens: Array  # i32 [B, T]
    mask: Array  # bool [B, T], True up to and including the end token
    logps: Array  # f32 [B, T]
    entropies: Array | None = None  # f32 [B, T], of the distribution that each token was drawn from; if asked for
    support: Array | None = (
        None  # u32 [B, T, ceil(V / 32)], the tokens that could be drawn (`token_sets`); if asked for
    )


class Drawing(NamedTuple):
    """How completions are drawn; keyword arguments of `sample`, and of `guided.sample`.

    max_new_tokens: columns of the result.
    eos_id: end token, or several. It may equal pad_id: the mask, not the token, says what counts.
    group_size: completions of each prompt; they share its prefill and stand side by side in the result.
    temperature: divides the logits; 0 takes the likeliest token and reports its log-probability at temperature 1
      (that of the point mass would always be 0), top_k and top_p then change nothing.
    top_k, top_p, min_p: see `truncate`; all after the temperature.
    with_entropies: also returns the entropy of every distribution drawn from.
    with_support: also returns which tokens could be drawn at each place, as bits: a scorer that is given them has the
      log-probs of the truncated distribution, whatever truncated it.
    """

    max_new_tokens: int
    eos_id: int | tuple[int, ...]
    pad_id: int
    group_size: int = 1
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    with_entropies: bool = False
    with_support: bool = False


class Scorer(NamedTuple):
    """A model with a reward head that says, before each token is drawn, where each of the likeliest would lead.

    It reads the token drawn last and all candidates in one pass: these stand side by side, each seeing what was drawn
    before it and none of the others (branches of a tree, `alignment.segments`).
    """

    model: Model
    params: Params
    count: int  # candidates, the likeliest by the logits of the language model(s)
    tilt: Callable[..., Array]  # (logits [B, V], candidates [B, k], scores [B, k, heads], **settings) -> logits [B, V];
    # keep one function: a new one compiles anew
    settings: Mapping[str, Any]  # of `tilt`; may change from call to call without compiling anew


def _upper(order: Array, weights: Array, target: Array | float) -> Array:
    """True on the fewest largest entries of each row whose weights sum to `target` or more (all of them if none do).

    Bisects the 32 bits of the threshold: 32 masked sums, a small part of a sort of the vocabulary on a CPU.
    """

    def refine(i, threshold):
        raised = threshold | (jnp.uint32(1) << (31 - i).astype(jnp.uint32))
        enough = jnp.sum(jnp.where(order >= raised, weights, 0), axis=-1, keepdims=True) >= target
        return jnp.where(enough, raised, threshold)

    return order >= jax.lax.fori_loop(0, 32, refine, jnp.zeros((*order.shape[:-1], 1), jnp.uint32))


def truncate(
    logits: Array,
    top_k: int | None = None,
    top_p: Array | float | None = None,
    min_p: Array | float | None = None,
) -> Array:
    """Sets the logits outside the top-k, then outside the nucleus, then below min-p to -inf. Ties with the last kept
    token are kept.

    The nucleus (Holtzman et al. 2020, arXiv:1904.09751) is the smallest set of likeliest tokens with a mass of at least
    top_p, of the distribution after top-k. min-p (Nguyen et al. 2024, arXiv:2407.01082) drops tokens less than min_p
    times as likely as the likeliest, which neither of the others ever drops. At least one token stays.

    Args:
      logits: f32 [..., V], already divided by the temperature.
    """
    if min_p is not None:
        likely = logits >= jnp.max(logits, axis=-1, keepdims=True) + jnp.log(min_p)
        return jnp.where(likely, truncate(logits, top_k, top_p), -jnp.inf)
    if top_k is None and top_p is None:
        return logits
    # Unsigned integers in the order of the floats: flip all bits of negatives, the sign bit of the others.
    bits = jax.lax.bitcast_convert_type(logits, jnp.uint32)
    sign = jnp.uint32(1 << 31)
    order = jnp.where(bits >= sign, ~bits, bits | sign)
    if top_k is not None:
        logits = jnp.where(_upper(order, jnp.ones_like(order, jnp.int32), top_k), logits, -jnp.inf)
    if top_p is not None:
        logits = jnp.where(_upper(order, jax.nn.softmax(logits, axis=-1), top_p), logits, -jnp.inf)
    return logits


def categorical(rng: Array, logits: Array) -> tuple[Array, Array]:
    """Draws a token per row and gives its log-probability: ([B] i32, [B] f32) from logits [B, V]; -inf is never drawn.

    Draws a block of the vocabulary by its mass, then a token within it: the same distribution as one draw over V, for
    V / 128 + 128 random numbers a row in place of V.
    """
    batch, vocabulary = logits.shape
    pad = -vocabulary % _BLOCK
    blocks = jnp.pad(logits, ((0, 0), (0, pad)), constant_values=-jnp.inf).reshape(batch, -1, _BLOCK)
    masses = jax.nn.logsumexp(blocks, axis=-1)
    block_rng, token_rng = jax.random.split(rng)
    block = jax.random.categorical(block_rng, masses)
    inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    token = jax.random.categorical(token_rng, inside)
    logit = jnp.take_along_axis(inside, token[:, None], axis=1)[:, 0]
    return (block * _BLOCK + token).astype(jnp.int32), logit - jax.nn.logsumexp(masses, axis=-1)


def entropy(logits: Array) -> Array:
    """Entropy in nats of softmax(logits), [..., V] to [...]; an entry of -inf has no part in it."""
    logps = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.sum(jnp.where(logps > -jnp.inf, jnp.exp(logps) * logps, 0.0), axis=-1)


def _choose(rng, logits, temperature, top_k, top_p, min_p):
    """(token, its log-probability, the logits of the distribution it was drawn from)."""
    if temperature is None:
        token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        return token, jnp.max(logits, axis=-1) - jax.nn.logsumexp(logits, axis=-1), logits
    logits = truncate(logits / temperature, top_k, top_p, min_p)
    return *categorical(rng, logits), logits


def only(logits: Mapping[str, Array]) -> Array:
    """The logits of the one model there is."""
    (one,) = logits.values()
    return one


@functools.partial(
    jax.jit,
    static_argnames=(
        "models", "combine", "judge", "max_new_tokens", "group_size", "top_k", "eos_ids", "pad_id", "with_entropies",
        "with_support",
    ),
)  # fmt: skip
def generate(
    models, combine, judge, params, settings, judging, prompts, prompt_mask, given, levels, rng, temperature, top_p,
    min_p, *, max_new_tokens, group_size, top_k, eos_ids, pad_id, with_entropies, with_support,
):  # fmt: skip
    """The loop of `sample` and of `guided.sample`, which check what they pass on.

    `models` is a tuple of (name, Model), `params` a dict; each model has a cache of its own and makes one forward pass
    per token. `given` is None or (tokens [B, T], lengths [B]): what the rows begin with in place of drawing it.
    `levels` is None or those of the prompts, [B, P]; what is drawn has the assistant's. `judge` is None or the (model,
    count, tilt) of a `Scorer`, `judging` its parameters and settings.
    """
    width = prompts.shape[1]
    lengths = jnp.sum(prompt_mask, axis=-1, dtype=jnp.int32)
    positions = jnp.maximum(jnp.cumsum(prompt_mask, axis=-1, dtype=jnp.int32) - 1, 0)
    segments = jnp.where(prompt_mask, BRANCHES, 0).astype(jnp.int32)
    is_end = lambda token: functools.reduce(jnp.logical_or, [token == end for end in eos_ids])  # noqa: E731
    spread_group = lambda a: jnp.repeat(a, group_size, axis=0) if a.ndim else a  # noqa: E731

    def of_levels(model, shape, prompt=None):
        if not model.config.num_instruction_levels:
            return {}
        return {"instruction_levels": jnp.full(shape, LEVELS["assistant"], jnp.int32) if prompt is None else prompt}

    def prefill(model, params, room):
        """The hidden state of the prompts' last tokens, and a cache with room for more, both for the whole group."""
        empty = init_cache(model.config, len(prompts), width)
        read = of_levels(model, prompts.shape, levels)
        h, cache = model.hidden(params, prompts, positions, segments, empty, **read)
        return jax.tree.map(spread_group, (h[:, -1], grow_cache(cache, room)))

    # The prefill attends within the prompt only; the last token drawn is never fed back, hence one column less.
    last, caches = {}, {}
    for name, model in models:
        last[name], caches[name] = prefill(model, params[name], max_new_tokens - 1)
    if judge:
        judge_model, count, tilt = judge
        _, caches[_JUDGE] = prefill(judge_model, judging[0], max_new_tokens - 1 + count)
    lengths = spread_group(lengths)
    batch = len(lengths)

    def judged(step, token, logits, cache) -> tuple[Array, Cache]:
        """The logits after a look at where the candidates lead, and the judge's cache with `token` in it."""
        candidates = jax.lax.top_k(logits, count)[1].astype(jnp.int32)
        fed = 0 if token is None else 1
        columns = candidates if token is None else jnp.concatenate([token[:, None], candidates], axis=1)
        places = lengths[:, None] + step - fed + jnp.minimum(jnp.arange(fed + count), fed)
        branches = BRANCHES + jnp.maximum(jnp.arange(fed + count) - fed + 1, 0)
        branches = jnp.broadcast_to(branches.astype(jnp.int32), columns.shape)
        read = of_levels(judge_model, columns.shape)
        h, grown = judge_model.hidden(judging[0], columns, places, branches, cache, **read)
        scores = heads.token_scores(judging[0], h[:, fed:])
        # The candidates' columns are written over in the next step, and until then nothing on the stem sees them.
        return tilt(logits, candidates, scores, **judging[1]), grown._replace(length=cache.length + fed)

    def choose(step, hidden, token, caches):
        """The columns of one step (token, log-prob, entropy, and the set it was drawn from), and the caches."""
        logits = combine({name: model.unembed(params[name], hidden[name]) for name, model in models}, **settings)
        if judge:
            logits, grown = judged(step, token, logits, caches[_JUDGE])
            caches = caches | {_JUDGE: grown}
        key = jax.random.fold_in(rng, step)
        token, logp, logits = _choose(key, logits, temperature, top_k, top_p, min_p)
        if given is not None:
            tokens, so_many = given
            fixed = step < so_many
            token = jnp.where(fixed, jax.lax.dynamic_index_in_dim(tokens, step, axis=1, keepdims=False), token)
            logp = jnp.where(fixed, 0.0, logp)
        columns = [token, logp]
        if with_entropies:
            columns.append(entropy(logits))
        if with_support:
            columns.append(token_sets.pack(logits > -jnp.inf))
        return columns, caches

    first, caches = choose(0, last, None, caches)
    done = is_end(first[0])

    def buffer(column, fill):
        shape = (batch, max_new_tokens, *column.shape[1:])
        return jnp.full(shape, fill, column.dtype).at[:, 0].set(column)

    buffers = [buffer(column, fill) for column, fill in zip(first, (pad_id, 0, 0, 0), strict=False)]
    buffers.append(buffer(jnp.ones(batch, bool), False))

    def unfinished(state):
        step, done = state[0], state[2]
        return (step < max_new_tokens) & ~jnp.all(done)

    def advance(state):
        step, token, done, caches, buffers = state
        places, branch = (lengths + step - 1)[:, None], jnp.full((batch, 1), BRANCHES, jnp.int32)
        hidden, grown = {}, {}
        for name, model in models:
            read = of_levels(model, places.shape)
            h, grown[name] = model.hidden(params[name], token[:, None], places, branch, caches[name], **read)
            hidden[name] = h[:, 0]
        columns, grown = choose(step, hidden, token, caches | grown)
        token = columns[0] = jnp.where(done, pad_id, columns[0])
        for i in range(1, len(columns)):
            ended = done.reshape(-1, *(1,) * (columns[i].ndim - 1))
            columns[i] = jnp.where(ended, jnp.zeros((), columns[i].dtype), columns[i])
        columns.append(~done)
        written = [
            jax.lax.dynamic_update_slice(buffer, column[:, None], (0, step, *(0,) * (column.ndim - 1)))
            for buffer, column in zip(buffers, columns, strict=True)
        ]
        return step + 1, token, done | is_end(token), grown, written

    state = (jnp.ones((), jnp.int32), first[0], done, caches, buffers)
    tokens, logps, *asked, mask = jax.lax.while_loop(unfinished, advance, state)[-1]
    entropies = asked.pop(0) if with_entropies else None
    return Samples(tokens, mask, logps, entropies, asked.pop() if with_support else None)


def check(model_config: Any, prompts: Array, prompt_mask: Array, drawing: Drawing) -> None:
    """ValueError for what `sample` says that it refuses."""
    vocabulary = model_config.vocab_size
    max_new_tokens, eos_ids = drawing.max_new_tokens, end_tokens(drawing)
    if not model_config.causal:
        raise ValueError("token by token samples only a causal model; a bidirectional one is for decoding.unmasking")
    if prompts.ndim != 2 or prompts.shape != prompt_mask.shape:
        raise ValueError(
            f"prompts and prompt_mask must share one shape [B, P], got {prompts.shape}, {prompt_mask.shape}"
        )
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be >= 1, got {max_new_tokens}")
    if drawing.group_size < 1:
        raise ValueError(f"group_size must be >= 1, got {drawing.group_size}")
    if prompts.shape[1] + max_new_tokens > model_config.max_position_embeddings:
        raise ValueError(
            f"prompts of {prompts.shape[1]} columns and max_new_tokens={max_new_tokens} exceed the model's context of "
            f"{model_config.max_position_embeddings} (max_position_embeddings)"
        )
    if not drawing.temperature >= 0:
        raise ValueError(f"temperature must be >= 0, got {drawing.temperature}")
    if drawing.top_k is not None and not 1 <= drawing.top_k <= vocabulary:
        raise ValueError(f"top_k must be between 1 and the vocabulary's {vocabulary}, got {drawing.top_k}")
    if drawing.top_p is not None and not 0 < drawing.top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {drawing.top_p}")
    if drawing.min_p is not None and not 0 <= drawing.min_p <= 1:
        raise ValueError(f"min_p must be in [0, 1], got {drawing.min_p}")
    if not eos_ids or not all(0 <= token < vocabulary for token in (*eos_ids, drawing.pad_id)):
        raise ValueError(f"eos_id {eos_ids} and pad_id {drawing.pad_id} must be tokens below {vocabulary}")
    if isinstance(prompt_mask, jax.core.Tracer) or not getattr(prompt_mask, "is_fully_addressable", True):
        return
    mask = np.asarray(prompt_mask)
    wrong = ~mask[:, -1] | (np.diff(mask.astype(np.int8), axis=1) < 0).any(axis=1)
    if wrong.any():
        raise ValueError(
            f"prompts must be left-padded and not empty; rows {np.flatnonzero(wrong)[:8].tolist()} are not"
        )


def end_tokens(drawing: Drawing) -> tuple[int, ...]:
    end = drawing.eos_id
    return (int(end),) if np.ndim(end) == 0 else tuple(int(token) for token in end)


def sample(
    model: Model,
    params: Params,
    prompts: Array,
    prompt_mask: Array,
    rng: Array,
    *,
    instruction_levels: Array | None = None,
    **drawing: Any,
) -> Samples:
    """Draws `group_size` completions per prompt; compiled once per shape, group, top_k, end tokens and length.

    Args:
      model: as made by `decoder.build` (keep one: a rebuilt model compiles anew).
      prompts: i32 [B, P], left-padded.
      prompt_mask: bool [B, P], True on real tokens; a row's padding may hold any token.
      rng: key; step t draws from fold_in(rng, t).
      instruction_levels: i32 [B, P] of the prompts' tokens, for a model that has embeddings of them; those drawn have
        the assistant's level.
      drawing: the fields of `Drawing`; max_new_tokens, eos_id and pad_id have no default.

    Returns:
      Samples of B * group_size rows and T = max_new_tokens columns; row i * group_size + j is the j-th of prompt i.

    Raises:
      ValueError: a setting out of its range, a prompt that is empty or not left-padded, levels that are missing or that
        the model does not have, or P + T beyond the context.
      TypeError: no field of `Drawing`, or one missing.
    """
    models = (("model", model),)
    return run(
        models, only, {"model": params}, {}, prompts, prompt_mask, rng, Drawing(**drawing), levels=instruction_levels
    )


def run(
    models: tuple[tuple[str, Model], ...],
    combine: Callable[..., Array],
    params: Mapping[str, Params],
    settings: Mapping[str, Any],
    prompts: Array,
    prompt_mask: Array,
    rng: Array,
    drawing: Drawing,
    given: tuple[Array, Array] | None = None,
    scorer: Scorer | None = None,
    levels: Array | None = None,
) -> Samples:
    """`generate` after all checks, with the settings in the form that compiles least often."""
    prompt_mask = prompt_mask if isinstance(prompt_mask, jax.Array) else np.asarray(prompt_mask)
    prompts, prompt_mask = prompts.astype(np.int32), prompt_mask.astype(bool)
    judges = [("scorer", scorer.model)] if scorer else []
    for _, model in (*models, *judges):
        check(model.config, prompts, prompt_mask, drawing)
    with_levels = any(model.config.num_instruction_levels for _, model in (*models, *judges))
    if with_levels != (levels is not None) or (levels is not None and np.shape(levels) != prompts.shape):
        raise ValueError(
            f"instruction_levels of the prompts: {'needed' if with_levels else 'not of this model'}; must have the "
            f"prompts' shape {prompts.shape} for a model that has levels and be None otherwise, got "
            f"{None if levels is None else np.shape(levels)}"
        )
    greedy, top_p = drawing.temperature == 0, drawing.top_p
    # Split as a training batch is: left whole, every device would draw every row.
    prompts, prompt_mask, given, levels = mesh.put_beside(params, (prompts, prompt_mask, given, levels))
    return generate(
        models, combine, scorer and (scorer.model, int(scorer.count), scorer.tilt), params, settings,
        scorer and (scorer.params, dict(scorer.settings)), prompts, prompt_mask, given, levels, rng,
        None if greedy else jnp.float32(drawing.temperature),
        None if greedy or top_p is None or top_p == 1 else jnp.float32(top_p),
        None if greedy or not drawing.min_p else jnp.float32(drawing.min_p),
        max_new_tokens=drawing.max_new_tokens, group_size=int(drawing.group_size),
        top_k=None if greedy else drawing.top_k, eos_ids=end_tokens(drawing), pad_id=int(drawing.pad_id),
        with_entropies=drawing.with_entropies, with_support=drawing.with_support,
    )  # fmt: skip
