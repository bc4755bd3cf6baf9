"""The chunked scoring pass: statistics of next-token distributions without ever holding one at every position.

The vocabulary is walked in chunks with a running log-sum-exp, and log-probs, entropies, collision probabilities and
both divergences are running sums under softmax weights, so one walk serves them all, for policy and reference
together. A custom gradient walks once more instead of keeping anything: no array of shape [batch, time, vocabulary]
exists, neither forward nor backward. The "reference" of this module is whatever fixed model the policy is compared
with: a teacher stands in its place as well.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from alignment import token_sets

Array = jax.Array

ONE_MODEL = ("token_logps", "token_entropies", "token_collision_probs")
WITH_REFERENCE = ("token_kls", "token_forward_kls")


def _jensen_shannon(logp: Array, logq: Array, target_logp: Array) -> Array:
    del target_logp
    middle = jnp.logaddexp(logp, logq) - jnp.log(2.0)
    return 0.5 * (jnp.exp(logp) * (logp - middle) + jnp.exp(logq) * (logq - middle))


def _rank(logp: Array, logq: Array, target_logp: Array) -> Array:
    del logq
    return (logp > target_logp).astype(jnp.float32)


def _total_variation(logp: Array, logq: Array, target_logp: Array) -> Array:
    del target_logp
    return 0.5 * jnp.abs(jnp.exp(logp) - jnp.exp(logq))


# The hook for statistics that are sums over the vocabulary of f(log p_v, log q_v, log p_target), p the policy, q the
# reference, target the token of the sample. Differentiated with respect to log p_v; log q_v and log p_target are fixed.
FULL_VOCABULARY: dict[str, Callable[[Array, Array, Array], Array]] = {
    "token_jsds": _jensen_shannon,  # Jensen-Shannon divergence between policy and reference, in nats
    "token_ranks": _rank,  # how many tokens the policy finds likelier than the sampled one
    "token_total_variations": _total_variation,  # half the L1 distance between policy and reference
}


def _mixture(logp: Array, logq: Array, beta: float) -> Array:
    """log m, m = beta q + (1 - beta) p; the ends are written out, since log(0) has no place in a derivative."""
    if beta in (0.0, 1.0):
        return logq if beta else logp
    return jnp.logaddexp(logp + math.log1p(-beta), logq + math.log(beta))


def _mixture_kl(logp: Array, logq: Array, target_logp: Array, beta: float) -> Array:
    del target_logp
    return jnp.exp(logp) * (logp - _mixture(logp, logq, beta))


def _forward_mixture_kl(logp: Array, logq: Array, target_logp: Array, beta: float) -> Array:
    del target_logp
    return jnp.exp(logq) * (logq - _mixture(logp, logq, beta))


# The same for statistics with a number of their own, which stands in the name: "token_mixture_kls@0.5".
WITH_NUMBER: dict[str, Callable[[Array, Array, Array, float], Array]] = {
    "token_mixture_kls": _mixture_kl,  # KL(policy || m), m = number * reference + (1 - number) * policy
    "token_forward_mixture_kls": _forward_mixture_kl,  # KL(reference || m)
}


def numbered(name: str, number: float) -> str:
    """The name of a statistic for one value of its number."""
    return f"{name}@{float(number)!r}"


def number_of(name: str) -> tuple[str, float | None]:
    """The plain name and its number, None where there is none; ValueError for what is no number."""
    plain, at, number = name.partition("@")
    return plain, float(number) if at else None


def _function_of(name: str) -> Callable[[Array, Array, Array], Array]:
    plain, number = number_of(name)
    return FULL_VOCABULARY[plain] if number is None else functools.partial(WITH_NUMBER[plain], beta=number)


def pairwise_names() -> frozenset[str]:
    """Statistics that look at the policy's and the reference's whole distributions at once."""
    return frozenset(WITH_REFERENCE) | frozenset(FULL_VOCABULARY) | frozenset(WITH_NUMBER)


def _pairwise(names: Iterable[str]) -> list[str]:
    return [n for n in names if number_of(n)[0] in pairwise_names()]


_NEVER = -1e30  # a logit that no softmax sees; finite, because 0 * -inf would be NaN in the running sums


class _Plan(NamedTuple):
    """Everything static about a walk (hashable, so that it can be a non-differentiated argument)."""

    names: tuple[str, ...]
    chunk: int
    softcap: float | None
    temperature: float
    reference_softcap: float | None = None

    @property
    def pairwise(self) -> bool:
        return bool(_pairwise(self.names))

    @property
    def hooks(self) -> tuple[str, ...]:
        return tuple(n for n in self.names if number_of(n)[0] in (*FULL_VOCABULARY, *WITH_NUMBER))

    @property
    def of_reference(self) -> _Plan:
        return self._replace(softcap=self.reference_softcap)


def default_chunk(positions: int, vocabulary: int) -> int:
    """Vocabulary entries per chunk: about 8 million logits (32 MB) at a time, between 512 and the vocabulary."""
    return min(vocabulary, max(512, 2**23 // max(positions, 1) // 128 * 128))


def _allowed(fresh: Array, ids: Array, support: Array | None) -> Array:
    """`fresh` [chunk], or [N, chunk] where each position has a set of tokens of its own."""
    return fresh if support is None else fresh & token_sets.contains(support, ids)


def _bounds(plan: _Plan, vocabulary: int, index: Array) -> tuple[Array, Array]:
    # The last chunk is moved back to fit; what it then shares with its predecessor is not `fresh`: not counted twice.
    start = jnp.minimum(index * plan.chunk, vocabulary - plan.chunk)
    ids = start + jnp.arange(plan.chunk)
    return start, ids


def _logits(hidden: Array, head: Array, start: Array, fresh: Array, plan: _Plan) -> tuple[Array, Array]:
    """Logits [N, chunk] of one chunk and the derivative of each with respect to its raw dot product."""
    rows = lax.dynamic_slice_in_dim(head, start, plan.chunk)
    raw = lax.dot_general(hidden, rows, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    slope = jnp.ones((), jnp.float32)
    if plan.softcap is not None:
        squashed = jnp.tanh(raw / plan.softcap)
        raw, slope = plan.softcap * squashed, 1.0 - squashed**2
    return jnp.where(fresh, raw / plan.temperature, _NEVER), slope / plan.temperature


def _softmax_sums(hidden, head, reference_hidden, reference_head, targets, support, plan: _Plan):
    """One walk: running maximum, normaliser and the expectations that entropy and both divergences are made of."""
    n, vocabulary = hidden.shape[0], head.shape[0]
    zero = jnp.zeros(n, jnp.float32)
    with_entropy, with_collision = "token_entropies" in plan.names, "token_collision_probs" in plan.names

    def body(carry, index):
        top, total, centred, squares, target, ref = carry
        start, ids = _bounds(plan, vocabulary, index)
        fresh = ids >= index * plan.chunk
        allowed = _allowed(fresh, ids, support)
        z, _ = _logits(hidden, head, start, allowed, plan)
        hit = (targets >= index * plan.chunk) & (targets < (index + 1) * plan.chunk)
        at = jnp.clip(targets - start, 0, plan.chunk - 1)[:, None]
        target = target + jnp.where(hit, jnp.take_along_axis(z, at, axis=1)[:, 0], 0.0)
        new_top = jnp.maximum(top, z.max(axis=1))
        shrink = jnp.exp(top - new_top)
        e = jnp.exp(z - new_top[:, None])
        if with_entropy:
            centred = (centred + total * (top - new_top)) * shrink + (e * (z - new_top[:, None])).sum(axis=1)
        if with_collision:
            squares = squares * shrink**2 + (e * e).sum(axis=1)
        total = total * shrink + e.sum(axis=1)
        if plan.pairwise:
            r_top, r_total, p_gap, q_gap = ref
            r, _ = _logits(reference_hidden, reference_head, start, fresh, plan.of_reference)
            new_r_top = jnp.maximum(r_top, r.max(axis=1))
            r_shrink = jnp.exp(r_top - new_r_top)
            r_e = jnp.exp(r - new_r_top[:, None])
            # Expectations of the difference of logits, not of the logits: near policy == reference nothing cancels.
            gap = jnp.where(allowed, z - r, 0.0)
            p_gap = p_gap * shrink + (e * gap).sum(axis=1)
            q_gap = q_gap * r_shrink + (r_e * gap).sum(axis=1)
            ref = (new_r_top, r_total * r_shrink + r_e.sum(axis=1), p_gap, q_gap)
        return (new_top, total, centred, squares, target, ref), None

    ref = (zero + _NEVER, zero, zero, zero) if plan.pairwise else ()
    init = (zero + _NEVER, zero, zero, zero, zero, ref)
    (top, total, centred, squares, target, ref), _ = lax.scan(body, init, jnp.arange(-(-vocabulary // plan.chunk)))
    lse = top + jnp.log(total)
    out = {"token_logps": target - lse}
    if with_entropy:
        out["token_entropies"] = jnp.log(total) - centred / total
    if with_collision:
        out["token_collision_probs"] = squares / total**2
    r_lse = zero
    if plan.pairwise:
        r_top, r_total, p_gap, q_gap = ref
        r_lse = r_top + jnp.log(r_total)
        out["token_kls"] = p_gap / total - (lse - r_lse)
        out["token_forward_kls"] = (lse - r_lse) - q_gap / r_total
    return out, lse, r_lse


def _hook(name: str, logp: Array, logq: Array, target_logp: Array, fresh: Array) -> tuple[Array, Array]:
    """Value and derivative with respect to log p of one hooked statistic, entry by entry, zero outside the chunk."""
    logp, logq = jnp.where(fresh, logp, 0.0), jnp.where(fresh, logq, 0.0)
    f = functools.partial(_function_of(name), logq=logq, target_logp=target_logp[:, None])
    value, slope = jax.jvp(f, (logp,), (jnp.ones_like(logp),))
    return jnp.where(fresh, value, 0.0), jnp.where(fresh, slope, 0.0)


def _hook_sums(hidden, head, reference_hidden, reference_head, lse, r_lse, target_logp, plan: _Plan):
    """A second walk, now that both normalisers are known: sum and summed derivative of each hooked statistic."""

    def body(carry, index):
        start, ids = _bounds(plan, head.shape[0], index)
        fresh = ids >= index * plan.chunk
        logp = _logits(hidden, head, start, fresh, plan)[0] - lse[:, None]
        logq = _logits(reference_hidden, reference_head, start, fresh, plan.of_reference)[0] - r_lse[:, None]
        pieces = [_hook(name, logp, logq, target_logp, fresh) for name in plan.hooks]
        return [(v + x.sum(axis=1), d + y.sum(axis=1)) for (v, d), (x, y) in zip(carry, pieces, strict=True)], None

    zero = jnp.zeros_like(lse)
    sums, _ = lax.scan(body, [(zero, zero)] * len(plan.hooks), jnp.arange(-(-head.shape[0] // plan.chunk)))
    return {n: v for n, (v, _) in zip(plan.hooks, sums, strict=True)}, {
        n: d for n, (_, d) in zip(plan.hooks, sums, strict=True)
    }


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def _walk(hidden, head, reference_hidden, reference_head, targets, support, plan: _Plan):
    return _walk_forward(hidden, head, reference_hidden, reference_head, targets, support, plan)[0]


def _walk_forward(hidden, head, reference_hidden, reference_head, targets, support, plan: _Plan):
    out, lse, r_lse = _softmax_sums(hidden, head, reference_hidden, reference_head, targets, support, plan)
    slopes = {}
    if plan.hooks:
        sums, slopes = _hook_sums(hidden, head, reference_hidden, reference_head, lse, r_lse, out["token_logps"], plan)
        out |= sums
    residuals = (hidden, head, reference_hidden, reference_head, targets, support, lse, r_lse, out, slopes)
    return {name: out[name] for name in plan.names}, residuals


def _walk_backward(plan: _Plan, residuals, cotangents):
    hidden, head, reference_hidden, reference_head, targets, support, lse, r_lse, out, slopes = residuals
    g = {name: c.astype(jnp.float32)[:, None] for name, c in cotangents.items()}
    vocabulary = head.shape[0]

    def body(carry, index):
        d_hidden, d_head = carry
        start, ids = _bounds(plan, vocabulary, index)
        fresh = ids >= index * plan.chunk
        allowed = _allowed(fresh, ids, support)
        z, raw_slope = _logits(hidden, head, start, allowed, plan)
        logp = z - lse[:, None]
        p = jnp.exp(logp)
        # d/dz of each statistic, times its cotangent; `along` is everything that has the form p_v * (...).
        along, other = jnp.zeros_like(p), jnp.zeros_like(p)
        if "token_logps" in g:
            along -= g["token_logps"]
            other += jnp.where(ids[None, :] == targets[:, None], g["token_logps"], 0.0)
        if "token_entropies" in g:
            along -= g["token_entropies"] * (logp + out["token_entropies"][:, None])
        if "token_collision_probs" in g:
            along += g["token_collision_probs"] * 2.0 * (p - out["token_collision_probs"][:, None])
        if plan.pairwise:
            logq = _logits(reference_hidden, reference_head, start, fresh, plan.of_reference)[0] - r_lse[:, None]
            if "token_kls" in g:
                along += g["token_kls"] * (logp - logq - out["token_kls"][:, None])
            if "token_forward_kls" in g:
                along += g["token_forward_kls"]
                other -= g["token_forward_kls"] * jnp.exp(logq)
            for name in plan.hooks:
                _, slope = _hook(name, logp, logq, out["token_logps"], fresh)
                along -= g[name] * slopes[name][:, None]
                other += g[name] * slope
        dz = jnp.where(allowed, (p * along + other) * raw_slope, 0.0).astype(hidden.dtype)
        rows = lax.dynamic_slice_in_dim(head, start, plan.chunk)
        d_hidden += lax.dot_general(dz, rows, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)
        d_rows = lax.dot_general(dz, hidden, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
        d_rows += lax.dynamic_slice_in_dim(d_head, start, plan.chunk)
        return (d_hidden, lax.dynamic_update_slice_in_dim(d_head, d_rows, start, 0)), None

    init = (jnp.zeros(hidden.shape, jnp.float32), jnp.zeros(head.shape, jnp.float32))
    (d_hidden, d_head), _ = lax.scan(body, init, jnp.arange(-(-vocabulary // plan.chunk)))
    frozen = None if reference_hidden is None else jnp.zeros_like(reference_hidden)
    frozen_head = None if reference_head is None else jnp.zeros_like(reference_head)
    return d_hidden.astype(hidden.dtype), d_head.astype(head.dtype), frozen, frozen_head, None, None


_walk.defvjp(_walk_forward, _walk_backward)


# --- tokens drawn from the distributions ------------------------------------------------------------------------------


def _normalisers(hidden: Array, head: Array, plan: _Plan) -> Array:
    return _softmax_sums(hidden, head, None, None, jnp.zeros(hidden.shape[0], jnp.int32), None, plan)[1]


def _draw(hidden: Array, head: Array, uniforms: Array, plan: _Plan) -> Array:
    """Inversion of the running mass: the number of tokens whose mass, with all before them, stays below the number."""
    lse, vocabulary = _normalisers(hidden, head, plan), head.shape[0]

    def body(carry, index):
        mass, drawn = carry
        start, ids = _bounds(plan, vocabulary, index)
        fresh = ids >= index * plan.chunk
        z, _ = _logits(hidden, head, start, fresh, plan)
        running = mass[:, None] + jnp.cumsum(jnp.exp(z - lse[:, None]), axis=1)
        passed = jax.vmap(functools.partial(jnp.searchsorted, side="right"))(running, uniforms)
        # What a chunk shares with its predecessor stands first in it, without mass, and is not counted again.
        stale = plan.chunk - fresh.sum()
        return (running[:, -1], drawn + jnp.maximum(passed - stale, 0)), None

    init = (jnp.zeros_like(lse), jnp.zeros(uniforms.shape, jnp.int32))
    (_, drawn), _ = lax.scan(body, init, jnp.arange(-(-vocabulary // plan.chunk)))
    return jnp.minimum(drawn, vocabulary - 1)  # the masses can add up to a little less than 1


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _logps_of(hidden, head, drawn, plan: _Plan):
    return _logps_of_forward(hidden, head, drawn, plan)[0]


def _logps_of_forward(hidden, head, drawn, plan: _Plan):
    lse = _normalisers(hidden, head, plan)

    def body(logits, index):
        start, ids = _bounds(plan, head.shape[0], index)
        z, _ = _logits(hidden, head, start, ids >= index * plan.chunk, plan)
        hit = drawn // plan.chunk == index
        picked = jnp.take_along_axis(z, jnp.clip(drawn - start, 0, plan.chunk - 1), axis=1)
        return logits + jnp.where(hit, picked, 0.0), None

    zeros = jnp.zeros(drawn.shape, jnp.float32)
    logits, _ = lax.scan(body, zeros, jnp.arange(-(-head.shape[0] // plan.chunk)))
    return logits - lse[:, None], (hidden, head, drawn, lse)


def _logps_of_backward(plan: _Plan, residuals, cotangent):
    hidden, head, drawn, lse = residuals
    total = cotangent.sum(axis=1, keepdims=True)
    rows = jnp.arange(hidden.shape[0])[:, None]

    def body(carry, index):
        d_hidden, d_head = carry
        start, ids = _bounds(plan, head.shape[0], index)
        fresh = ids >= index * plan.chunk
        z, slope = _logits(hidden, head, start, fresh, plan)
        hit = jnp.where(drawn // plan.chunk == index, cotangent, 0.0)
        own = jnp.zeros_like(z).at[rows, jnp.clip(drawn - start, 0, plan.chunk - 1)].add(hit)
        dz = jnp.where(fresh, (own - jnp.exp(z - lse[:, None]) * total) * slope, 0.0).astype(hidden.dtype)
        piece = lax.dynamic_slice_in_dim(head, start, plan.chunk)
        d_hidden += lax.dot_general(dz, piece, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)
        d_rows = lax.dot_general(dz, hidden, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
        d_rows += lax.dynamic_slice_in_dim(d_head, start, plan.chunk)
        return (d_hidden, lax.dynamic_update_slice_in_dim(d_head, d_rows, start, 0)), None

    init = (jnp.zeros(hidden.shape, jnp.float32), jnp.zeros(head.shape, jnp.float32))
    (d_hidden, d_head), _ = lax.scan(body, init, jnp.arange(-(-head.shape[0] // plan.chunk)))
    return d_hidden.astype(hidden.dtype), d_head.astype(head.dtype), None


_logps_of.defvjp(_logps_of_forward, _logps_of_backward)


def sampled_statistics(
    hidden: Array,
    head: Array,
    uniforms: Array,
    mask: Array,
    *,
    draw_temperature: float = 1.0,
    chunk_size: int | None = None,
    logit_softcap: float | None = None,
    temperature: float = 1.0,
) -> tuple[Array, Array]:
    """K tokens drawn at each position from softmax(logits / draw_temperature), and their log-probs at `temperature`.

    Shapes: hidden [..., D], head [V, D], mask bool [...], uniforms in [0, 1) [..., K]. Returns (tokens int32 [..., K],
    log-probs float32 [..., K]), 0 behind the mask. The draw is not differentiated; the log-probs are, with respect to
    hidden and head. A token is the place where the running mass of the vocabulary passes its uniform number, so that
    one walk serves all K: memory is O(positions * (chunk + K)). Float32 sums put tokens of a mass below about 1e-7 out
    of reach. ValueError for a temperature that is not above 0.
    """
    for name, value in (("draw_temperature", draw_temperature), ("temperature", temperature)):
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")
    kept = jnp.where(mask[..., None], hidden, 0).reshape(-1, hidden.shape[-1])
    chunk = min(chunk_size or default_chunk(kept.shape[0], head.shape[0]), head.shape[0])
    plan = _Plan((), chunk, logit_softcap, temperature)
    numbers = uniforms.reshape(-1, uniforms.shape[-1])
    drawn = _draw(
        lax.stop_gradient(kept), lax.stop_gradient(head), numbers, plan._replace(temperature=draw_temperature)
    )
    logps = _logps_of(kept, head, drawn, plan)
    shape, inside = uniforms.shape, mask[..., None]
    return jnp.where(inside, drawn.reshape(shape), 0), jnp.where(inside, logps.reshape(shape), 0.0)


# --- the statistics by name -------------------------------------------------------------------------------------------


def token_statistics(
    names: Iterable[str],
    hidden: Array,
    head: Array,
    targets: Array,
    mask: Array | None = None,
    reference_hidden: Array | None = None,
    reference_head: Array | None = None,
    support: Array | None = None,
    *,
    chunk_size: int | None = None,
    logit_softcap: float | None = None,
    reference_softcap: float | None = None,
    temperature: float = 1.0,
) -> dict[str, Array]:
    """Token statistics of next-token distributions softmax(softcap(hidden @ head.T) / temperature).

    Shapes: hidden [..., D], head [V, D], targets int [...] and mask bool [...]; the same of the reference where a
    statistic compares with it (its vocabulary must be the same; its width and its soft cap may differ). A name of
    `WITH_NUMBER` brings its number along (`numbered`). Returns {name: float32 [...]}, zero behind the mask.
    Differentiable with respect to hidden and head; the reference is held fixed.

    With `support`, uint32 [..., ceil(V / 32)] (`token_sets`), the distribution is the policy's restricted to a set of
    tokens at each position and renormalised; what is outside has no probability and no gradient. The reference stays
    whole, so that of the statistics that compare with it only KL(policy || reference) is finite, and allowed.

    Memory: O(positions * chunk) beside inputs and gradients, whatever the vocabulary. ValueError for unknown names, a
    missing reference, vocabularies that differ, or a temperature that is not above 0.
    """
    names = tuple(dict.fromkeys(names))
    allowed = (*ONE_MODEL, *WITH_REFERENCE, *FULL_VOCABULARY, *(f"{n}@NUMBER" for n in WITH_NUMBER))
    if unknown := [n for n in names if n not in allowed and not ("@" in n and number_of(n)[0] in WITH_NUMBER)]:
        raise ValueError(f"unknown token statistics {unknown}; known: {', '.join(allowed)}")
    if outside := [n for n in names if "@" in n and not 0 <= number_of(n)[1] <= 1]:
        raise ValueError(f"{outside[0]}: the share of the reference in a mixture must lie in [0, 1]")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    if not names:
        return {}
    pairwise = bool(_pairwise(names))
    if support is not None and (infinite := sorted(set(_pairwise(names)) - {"token_kls"})):
        raise ValueError(f"{', '.join(infinite)} of a policy restricted to a set of tokens: not finite")
    if support is not None and support.shape != (*targets.shape, token_sets.words(head.shape[0])):
        raise ValueError(
            f"support must have shape {(*targets.shape, token_sets.words(head.shape[0]))}, got {support.shape}"
        )
    if pairwise and (reference_hidden is None or reference_head is None):
        raise ValueError(f"{', '.join(_pairwise(names))} need a reference model")
    if pairwise and reference_head.shape[0] != head.shape[0]:
        raise ValueError(f"policy and reference vocabularies differ: {head.shape[0]} and {reference_head.shape[0]}")

    def flat(h: Array) -> Array:
        # The hidden state behind the mask may be anything; 0 keeps NaN out of the gradient of the head.
        h = h if mask is None else jnp.where(mask[..., None], h, 0)
        return h.reshape(-1, h.shape[-1])

    shape = targets.shape
    positions = targets.size
    chunk = min(chunk_size or default_chunk(positions, head.shape[0]), head.shape[0])
    plan = _Plan(names, chunk, logit_softcap, temperature, reference_softcap)
    reference = (None, None)
    if pairwise:
        reference = (lax.stop_gradient(flat(reference_hidden)), lax.stop_gradient(reference_head))
    # Behind the mask the target may be anything too; token 0 is always in range.
    wanted = targets if mask is None else jnp.where(mask, targets, 0)
    sets = None if support is None else support.reshape(-1, support.shape[-1])
    out = _walk(flat(hidden), head, *reference, wanted.reshape(-1), sets, plan)
    out = {name: value.reshape(shape) for name, value in out.items()}
    return out if mask is None else {name: jnp.where(mask, value, 0.0) for name, value in out.items()}
