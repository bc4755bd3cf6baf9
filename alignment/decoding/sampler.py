"""Sampling with a key/value cache: one prefill of each prompt, then one token a step until every row has ended.

The log-probabilities returned are those of the distribution the token was drawn from, so that a scorer which applies
the same temperature and truncation to a full forward pass gets the same numbers.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignment import token_sets
from alignment.models.decoder import Model, Params, grow_cache, init_cache
from alignment.segments import BRANCHES

Array = jax.Array

# Vocabulary entries per block in `categorical`.
_BLOCK = 128


class Samples(NamedTuple):
    """Completions of T columns; a row that drew an end token holds it last, then pad_id with mask False and logps 0."""

    tokens: Array  # i32 [B, T]
    mask: Array  # bool [B, T], True up to and including the end token
    logps: Array  # f32 [B, T]
    entropies: Array | None = None  # f32 [B, T], of the distribution that each token was drawn from; if asked for
    support: Array | None = (
        None  # u32 [B, T, ceil(V / 32)], the tokens that could be drawn (`token_sets`); if asked for
    )


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
        "models", "combine", "max_new_tokens", "group_size", "top_k", "eos_ids", "pad_id", "with_entropies",
        "with_support",
    ),
)  # fmt: skip
def generate(
    models, combine, params, settings, prompts, prompt_mask, given, rng, temperature, top_p, min_p,
    *, max_new_tokens, group_size, top_k, eos_ids, pad_id, with_entropies, with_support,
):  # fmt: skip
    """The loop of `sample` and of `guided.sample`, which check what they pass on.

    `models` is a tuple of (name, Model), `params` a dict; each model has a cache of its own and makes one forward pass
    per token. `given` is None or (tokens [B, T], lengths [B]): what the rows begin with in place of drawing it.
    """
    width = prompts.shape[1]
    lengths = jnp.sum(prompt_mask, axis=-1, dtype=jnp.int32)
    positions = jnp.maximum(jnp.cumsum(prompt_mask, axis=-1, dtype=jnp.int32) - 1, 0)
    segments = jnp.where(prompt_mask, BRANCHES, 0).astype(jnp.int32)
    is_end = lambda token: functools.reduce(jnp.logical_or, [token == end for end in eos_ids])  # noqa: E731
    spread_group = lambda a: jnp.repeat(a, group_size, axis=0) if a.ndim else a  # noqa: E731

    # The prefill attends within the prompt only; the last token drawn is never fed back, hence one column less.
    last, caches = {}, {}
    for name, model in models:
        empty = init_cache(model.config, len(prompts), width)
        h, cache = model.hidden(params[name], prompts, positions, segments, empty)
        cache = grow_cache(cache, max_new_tokens - 1)
        last[name], caches[name] = jax.tree.map(spread_group, (h[:, -1], cache))
    lengths = spread_group(lengths)
    batch = len(lengths)

    def choose(step, hidden):
        """The columns of one step: token, log-prob, entropy, and the set it was drawn from."""
        logits = combine({name: model.unembed(params[name], hidden[name]) for name, model in models}, **settings)
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
        return columns

    first = choose(0, last)
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
            h, grown[name] = model.hidden(params[name], token[:, None], places, branch, caches[name])
            hidden[name] = h[:, 0]
        columns = choose(step, hidden)
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


def check(
    model_config, prompts, prompt_mask, max_new_tokens, group_size, temperature, top_k, top_p, min_p, eos_ids, pad_id
):
    """ValueError for what `sample` says that it refuses."""
    vocabulary = model_config.vocab_size
    if not model_config.causal:
        raise ValueError("token by token samples only a causal model; a bidirectional one is for decoding.unmasking")
    if prompts.ndim != 2 or prompts.shape != prompt_mask.shape:
        raise ValueError(
            f"prompts and prompt_mask must share one shape [B, P], got {prompts.shape}, {prompt_mask.shape}"
        )
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be >= 1, got {max_new_tokens}")
    if group_size < 1:
        raise ValueError(f"group_size must be >= 1, got {group_size}")
    if prompts.shape[1] + max_new_tokens > model_config.max_position_embeddings:
        raise ValueError(
            f"prompts of {prompts.shape[1]} columns and max_new_tokens={max_new_tokens} exceed the model's context of "
            f"{model_config.max_position_embeddings} (max_position_embeddings)"
        )
    if not temperature >= 0:
        raise ValueError(f"temperature must be >= 0, got {temperature}")
    if top_k is not None and not 1 <= top_k <= vocabulary:
        raise ValueError(f"top_k must be between 1 and the vocabulary's {vocabulary}, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {top_p}")
    if min_p is not None and not 0 <= min_p <= 1:
        raise ValueError(f"min_p must be in [0, 1], got {min_p}")
    if not eos_ids or not all(0 <= token < vocabulary for token in (*eos_ids, pad_id)):
        raise ValueError(f"eos_id {eos_ids} and pad_id {pad_id} must be tokens below {vocabulary}")
    if isinstance(prompt_mask, jax.core.Tracer) or not getattr(prompt_mask, "is_fully_addressable", True):
        return
    mask = np.asarray(prompt_mask)
    wrong = ~mask[:, -1] | (np.diff(mask.astype(np.int8), axis=1) < 0).any(axis=1)
    if wrong.any():
        raise ValueError(
            f"prompts must be left-padded and not empty; rows {np.flatnonzero(wrong)[:8].tolist()} are not"
        )


def sample(
    model: Model,
    params: Params,
    prompts: Array,
    prompt_mask: Array,
    rng: Array,
    *,
    max_new_tokens: int,
    group_size: int = 1,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    eos_id: int | tuple[int, ...],
    pad_id: int,
    with_entropies: bool = False,
    with_support: bool = False,
) -> Samples:
    """Draws `group_size` completions per prompt; compiled once per shape, group, top_k, end tokens and length.

    Args:
      model: as made by `decoder.build` (keep one: a rebuilt model compiles anew).
      prompts: i32 [B, P], left-padded.
      prompt_mask: bool [B, P], True on real tokens; a row's padding may hold any token.
      rng: key; step t draws from fold_in(rng, t).
      group_size: completions of each prompt; they share its prefill and stand side by side in the result.
      temperature: divides the logits; 0 takes the likeliest token and reports its log-probability at temperature 1
        (that of the point mass would always be 0), top_k and top_p then change nothing.
      top_k, top_p, min_p: see `truncate`; all after the temperature.
      eos_id: end token, or several. It may equal pad_id: the mask, not the token, says what counts.
      with_entropies: also returns the entropy of every distribution drawn from.
      with_support: also returns which tokens could be drawn at each place, as bits: a scorer that is given them has the
        log-probs of the truncated distribution, whatever truncated it.

    Returns:
      Samples of B * group_size rows and T = max_new_tokens columns; row i * group_size + j is the j-th of prompt i.

    Raises:
      ValueError: a setting out of its range, a prompt that is empty or not left-padded, or P + T beyond the context.
    """
    return run(
        (("model", model),), only, {"model": params}, {}, prompts, prompt_mask, None, rng,
        max_new_tokens=max_new_tokens, group_size=group_size, temperature=temperature, top_k=top_k, top_p=top_p,
        min_p=min_p, eos_id=eos_id, pad_id=pad_id, with_entropies=with_entropies, with_support=with_support,
    )  # fmt: skip


def run(
    models, combine, params, settings, prompts, prompt_mask, given, rng,
    *, max_new_tokens, group_size, temperature, top_k, top_p, min_p, eos_id, pad_id, with_entropies, with_support,
) -> Samples:  # fmt: skip
    """`generate` after all checks, with the settings in the form that compiles least often."""
    eos_ids = (int(eos_id),) if np.ndim(eos_id) == 0 else tuple(int(token) for token in eos_id)
    prompt_mask = prompt_mask if isinstance(prompt_mask, jax.Array) else np.asarray(prompt_mask)
    prompts, prompt_mask = prompts.astype(np.int32), prompt_mask.astype(bool)
    for _, model in models:
        check(
            model.config, prompts, prompt_mask, max_new_tokens, group_size, temperature, top_k, top_p, min_p, eos_ids,
            pad_id,
        )  # fmt: skip
    greedy = temperature == 0
    return generate(
        models, combine, params, settings, prompts, prompt_mask, given, rng,
        None if greedy else jnp.float32(temperature),
        None if greedy or top_p is None or top_p == 1 else jnp.float32(top_p),
        None if greedy or not min_p else jnp.float32(min_p),
        max_new_tokens=max_new_tokens, group_size=int(group_size), top_k=None if greedy else top_k, eos_ids=eos_ids,
        pad_id=int(pad_id), with_entropies=with_entropies, with_support=with_support,
    )  # fmt: skip
