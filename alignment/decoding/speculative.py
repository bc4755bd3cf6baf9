"""Speculative sampling: a small draft model proposes several tokens, the target looks at all of them in one pass.

What comes out is distributed as the target's own samples, exactly, whatever the draft proposes: a good draft only makes
it faster. Arithmetic first, then the loop with key/value caches.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignment import checks
from alignment.decoding import sampler
from alignment.decoding.sampler import Drawing, Samples
from alignment.models.decoder import Model, Params, grow_cache, init_cache
from alignment.segments import BRANCHES

Array = jax.Array


def acceptance(draft_tokens: Array, draft_logps: Array, target_logps: Array) -> Array:
    """min(1, p(x) / q(x)), the probability that the target accepts each proposed token.

    Args:
      draft_tokens: int32 `[..., g]`, each drawn from q of its place.
      draft_logps: `[..., g, V]`, log q: normalised, after temperature and truncation.
      target_logps: `[..., g, V]`, log p, likewise.

    Returns:
      float32 `[..., g]`.
    """
    checks.integers(draft_tokens=draft_tokens)
    draft, target = checks.floats(draft_logps=draft_logps, target_logps=target_logps)
    q, p = (jnp.take_along_axis(z, draft_tokens[..., None], axis=-1)[..., 0] for z in (draft, target))
    return jnp.exp(jnp.minimum(p - q, 0.0))


def acceptance_rate(draft_logps: Array, target_logps: Array) -> Array:
    """sum_x min(p(x), q(x)) = 1 - TV(p, q): how often a proposal is accepted. `[..., V]` to `[...]`."""
    draft, target = checks.floats(draft_logps=draft_logps, target_logps=target_logps)
    return jnp.sum(jnp.exp(jnp.minimum(draft, target)), axis=-1)


def expected_tokens(rate: Array, proposals: int) -> Array:
    """(1 - a^(g + 1)) / (1 - a) tokens per pass of the target, if each of g proposals is accepted with probability a.

    g + 1 at a = 1. Raises ValueError for less than one proposal, or a rate outside [0, 1].
    """
    checks.positive_integer("proposals", proposals)
    checks.number("rate", rate, 0.0, 1.0, closed="both")
    return jnp.sum(jnp.power(jnp.asarray(rate, float)[..., None], jnp.arange(proposals + 1)), axis=-1)


def accepted_count(accept_probs: Array, uniforms: Array) -> Array:
    """How many proposals are accepted before the first that is not: `[..., g]` and as many uniform numbers to `[...]`.
    """
    accepted = uniforms < accept_probs
    return jnp.sum(jnp.cumprod(accepted.astype(jnp.int32), axis=-1), axis=-1)


def residual_logits(draft_logps: Array, target_logps: Array) -> Array:
    """log max(p - q, 0), what a rejected token is drawn from instead; the target itself where the two are equal.

    `[..., V]` of both to float32 `[..., V]`, not normalised.
    """
    draft, target = checks.floats(draft_logps=draft_logps, target_logps=target_logps)
    left = jnp.maximum(jnp.exp(target) - jnp.exp(draft), 0.0)
    # Nothing is left only if p = q, and then nothing is rejected either; the row must still be one to draw from.
    some = jnp.any(left > 0, axis=-1, keepdims=True)
    return jnp.where(some, jnp.log(left), target)


def next_logits(draft_logps: Array, target_logps: Array, count: Array) -> Array:
    """What the token after `count` accepted proposals is drawn from: the residual, or the target if none was rejected.

    Args:
      draft_logps: `[..., g, V]`. target_logps: `[..., g + 1, V]`, one place more. count: int32 `[...]`, 0 to g.

    Returns:
      float32 `[..., V]`, not normalised.
    """
    residuals = residual_logits(draft_logps, target_logps[..., :-1, :])
    choices = jnp.concatenate([residuals, target_logps[..., -1:, :].astype(residuals.dtype)], axis=-2)
    return jnp.take_along_axis(choices, count[..., None, None], axis=-2)[..., 0, :]


class Speculated(NamedTuple):
    samples: Samples  # as of `sampler.sample`; log-probs are the target's
    rounds: Array  # i32 [], passes of the target after the prompt's
    proposed: Array  # i32 [B], proposals that rows saw before they ended
    accepted: Array  # i32 [B], those of them that became tokens


@functools.partial(
    jax.jit,
    static_argnames=("target", "draft", "greedy", "proposals", "max_new_tokens", "top_k", "eos_ids", "pad_id"),
)
def _generate(
    target, draft, target_params, draft_params, prompts, prompt_mask, rng, temperature, top_p, min_p,
    *, greedy, proposals, max_new_tokens, top_k, eos_ids, pad_id,
):  # fmt: skip
    batch, width = prompts.shape
    g = proposals
    lengths = jnp.sum(prompt_mask, axis=-1, dtype=jnp.int32)
    positions = jnp.maximum(jnp.cumsum(prompt_mask, axis=-1, dtype=jnp.int32) - 1, 0)
    segments = jnp.where(prompt_mask, BRANCHES, 0).astype(jnp.int32)
    is_end = lambda token: functools.reduce(jnp.logical_or, [token == end for end in eos_ids])  # noqa: E731
    row, stem = jnp.arange(batch)[:, None], jnp.full((batch, 1), BRANCHES, jnp.int32)

    def law(logits):
        """(log-probs of what tokens are drawn from, log-probs to report)."""
        if greedy:
            certain = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=bool)
            return jnp.where(certain, 0.0, -jnp.inf), jax.nn.log_softmax(logits, axis=-1)
        logps = jax.nn.log_softmax(sampler.truncate(logits / temperature, top_k, top_p, min_p), axis=-1)
        return logps, logps

    def prefill(model, params):
        # Every round writes g + 1 columns and gives back those that no row accepted; a row needs a round per token at
        # most, the first token none.
        h, cache = model.hidden(params, prompts, positions, segments, init_cache(model.config, batch, width))
        return h[:, -1], grow_cache(cache, max(max_new_tokens - 1, 0) * (g + 1))

    def draw(key, logps):
        return jax.random.categorical(key, logps).astype(jnp.int32)

    last, target_cache = prefill(target, target_params)
    _, draft_cache = prefill(draft, draft_params)
    logps, reported = law(target.unembed(target_params, last))
    token = draw(jax.random.fold_in(rng, 0), logps)
    tokens = jnp.full((batch, max_new_tokens), pad_id, jnp.int32).at[:, 0].set(token)
    found = jnp.take_along_axis(reported, token[:, None], axis=-1)[:, 0]
    token_logps = jnp.zeros((batch, max_new_tokens), jnp.float32).at[:, 0].set(found)

    def unfinished(state):
        return ~jnp.all(state[2])

    def one_round(state):
        number, token, done, count, caches, tokens, token_logps, proposed, accepted = state
        target_cache, draft_cache = caches
        propose_rng, accept_rng, last_rng = jax.random.split(jax.random.fold_in(rng, number), 3)
        start, first = target_cache.length, lengths + count - 1  # the column and the position of `token`

        def propose(carry, i):
            current, cache = carry
            h, cache = draft.hidden(draft_params, current[:, None], (first + i)[:, None], stem, cache)
            logps, _ = law(draft.unembed(draft_params, h[:, 0]))
            return (draw(jax.random.fold_in(propose_rng, i), logps), cache), (current, logps)

        # One pass more than there are proposals: the last of them must be in the draft's cache too.
        (_, draft_cache), (fed, draft_logps) = jax.lax.scan(propose, (token, draft_cache), jnp.arange(g + 1))
        fed, draft_logps = fed.T, jnp.moveaxis(draft_logps, 0, 1)[:, :g]  # [B, g + 1], `token` first; [B, g, V]
        places = first[:, None] + jnp.arange(g + 1)
        h, target_cache = target.hidden(
            target_params, fed, places, jnp.broadcast_to(stem, fed.shape), target_cache
        )
        target_logps, reported = law(target.unembed(target_params, h))

        probs = acceptance(fed[:, 1:], draft_logps, target_logps[:, :-1])
        good = accepted_count(probs, jax.random.uniform(accept_rng, probs.shape))
        new = draw(last_rng, next_logits(draft_logps, target_logps, good))
        emitted = jnp.concatenate([fed[:, 1:], new[:, None]], axis=1)
        emitted = jnp.where(jnp.arange(g + 1) == good[:, None], new[:, None], emitted)
        ends = jnp.cumsum(is_end(emitted), axis=1) - is_end(emitted) > 0  # after an end token
        at = count[:, None] + jnp.arange(g + 1)
        kept = (jnp.arange(g + 1) <= good[:, None]) & ~ends & (at < max_new_tokens) & ~done[:, None]
        where = jnp.where(kept, at, max_new_tokens)  # beyond the buffer: not written
        tokens = tokens.at[row, where].set(emitted, mode="drop")
        found = jnp.take_along_axis(reported, emitted[..., None], axis=-1)[..., 0]
        token_logps = token_logps.at[row, where].set(found, mode="drop")

        # Rejected columns are hidden from all that follows, and those that no row goes on from are used again.
        good_now = jnp.where(done, 0, good)
        alive = jnp.arange(g + 1) <= good_now[:, None]
        visible = jnp.where(alive, BRANCHES, 0).astype(jnp.int32)

        def settle(cache):
            marked = jax.lax.dynamic_update_slice(cache.segment_ids, visible, (0, start))
            return cache._replace(segment_ids=marked, length=start + 1 + jnp.max(good_now))

        taken = jnp.sum(kept, axis=1, dtype=jnp.int32)
        proposed = proposed + jnp.where(done, 0, g)
        accepted = accepted + jnp.minimum(taken, good_now)
        count = count + taken
        done = done | jnp.any(kept & is_end(emitted), axis=1) | (count >= max_new_tokens)
        caches = settle(target_cache), settle(draft_cache)
        return number + 1, new, done, count, caches, tokens, token_logps, proposed, accepted

    none = jnp.zeros(batch, jnp.int32)
    done = is_end(token) | (max_new_tokens == 1)
    caches = target_cache, draft_cache
    state = (jnp.ones((), jnp.int32), token, done, none + 1, caches, tokens, token_logps, none, none)
    number, _, _, count, _, tokens, token_logps, proposed, accepted = jax.lax.while_loop(unfinished, one_round, state)
    mask = jnp.arange(max_new_tokens) < count[:, None]
    return Speculated(Samples(tokens, mask, token_logps), number - 1, proposed, accepted)


def sample(
    target: Model,
    target_params: Params,
    draft: Model,
    draft_params: Params,
    prompts: Array,
    prompt_mask: Array,
    rng: Array,
    *,
    proposals: int = 4,
    **drawing: Any,
) -> Speculated:
    """Completions of the target, drawn with a draft's help: the law of `sampler.sample`, in fewer passes of the target.

    Temperature and truncation act on both models. Rows accept different numbers of proposals; a round goes as far as
    the row that accepts most, and the others carry columns that nothing sees, so that many rows cost memory and time
    that one row does not.

    Args:
      target, draft: models of one vocabulary, as made by `decoder.build`.
      prompts, prompt_mask: [B, P], left-padded.
      rng: key.
      proposals: gamma, tokens that the draft proposes in each round, at least 1 (usual: 3 to 7).
      drawing: fields of `sampler.Drawing`; group_size is 1 here, and there are no entropies and no support.

    Raises:
      ValueError: vocabularies differ, no proposals, a group, or what `sampler.sample` refuses. A context needs room for
        `proposals` tokens beyond max_new_tokens.

    Paper: Leviathan et al., 2022, arXiv 2211.17192.
    """
    checks.positive_integer("proposals", proposals)
    drawing = Drawing(**drawing)
    for name in ("group_size", "with_entropies", "with_support"):
        if getattr(drawing, name) != Drawing._field_defaults[name]:
            raise ValueError(f"{name}={getattr(drawing, name)}: speculative sampling has no such option; leave it out")
    sizes = {"target": target.config.vocab_size, "draft": draft.config.vocab_size}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"models that decode together must share one vocabulary, got sizes {sizes}")
    prompt_mask = prompt_mask if isinstance(prompt_mask, jax.Array) else np.asarray(prompt_mask)
    prompts, prompt_mask = prompts.astype(np.int32), prompt_mask.astype(bool)
    for model in (target, draft):
        sampler.check(model.config, prompts, prompt_mask, drawing)
        context = prompts.shape[1] + drawing.max_new_tokens + proposals
        if context > model.config.max_position_embeddings:
            raise ValueError(
                f"prompts of {prompts.shape[1]} columns, max_new_tokens={drawing.max_new_tokens} and {proposals} "
                f"proposals exceed the model's context of {model.config.max_position_embeddings}"
            )
    greedy, top_p = drawing.temperature == 0, drawing.top_p
    return _generate(
        target, draft, target_params, draft_params, prompts, prompt_mask, rng,
        None if greedy else jnp.float32(drawing.temperature),
        None if greedy or top_p is None or top_p == 1 else jnp.float32(top_p),
        None if greedy or not drawing.min_p else jnp.float32(drawing.min_p),
        greedy=greedy, proposals=int(proposals), max_new_tokens=drawing.max_new_tokens,
        top_k=None if greedy else drawing.top_k, eos_ids=sampler.end_tokens(drawing), pad_id=int(drawing.pad_id),
    )  # fmt: skip
