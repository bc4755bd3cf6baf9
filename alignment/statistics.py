"""The vocabulary of kernel arguments, the resolver that reads signatures, and the chunked scoring pass.

A kernel (a loss or a metric) asks for what it needs by the names of its arguments. A name is either

* a statistic of a model on the completions, `WHOSE_[SIDE_]STATISTIC`, for example `policy_chosen_logps`:

  WHOSE       `policy` (differentiated) | `reference`, `teacher` (frozen models) | `behaviour` (stored when sampled)
  SIDE        `chosen`, `rejected` (a pair) | `responses` (a ranked list, adds an axis K) | `forget`, `retain` |
              `gold` (a third, best completion) | `mismatched` (a completion of another prompt) | nothing
  STATISTIC   `logps`               [B]     log-probability, summed over the completion's tokens
              `token_logps`         [B, T]  log-probability of each completion token
              `token_entropies`     [B, T]  entropy of the next-token distribution, in nats
              `token_kls`           [B, T]  KL(policy || reference) over the whole vocabulary, in nats
              `token_forward_kls`   [B, T]  KL(reference || policy) over the whole vocabulary, in nats
              or a name of `FULL_VOCABULARY` below, [B, T]; the last three kinds belong to `policy` only

* something known from the batch, `[SIDE_]mask` [B, T] bool, `[SIDE_]lengths` [B] int32;
* `[SIDE_]rewards` [B] float32: the scalar head of the trained model at the last completion token; without a side, when
  the data set has a column `rewards`, that column;
* a label of the data set under its own name (`LABELS`);
* `state`: the memory between steps of a method that has one.

With `responses` every shape gains K after B. Position t of a `[B, T]` array scores completion token t; the shift by one
token happens here (through `predict_from`) and nowhere else. What stands behind the mask is zero.

`needs_of` turns signatures into the set of statistics to compute, `compute` delivers them. The vocabulary is walked in
chunks with a running log-sum-exp and a custom gradient, so no array of shape [batch, time, vocabulary] exists, neither
forward nor backward.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from alignment.models import heads

Array = jax.Array

WHOSE = ("policy", "reference", "teacher", "behaviour")
SIDES = ("chosen", "rejected", "responses", "forget", "retain", "gold", "mismatched")
ONE_MODEL = ("logps", "token_logps", "token_entropies")
WITH_REFERENCE = ("token_kls", "token_forward_kls")
LABELS = {
    "labels": "[B, K] graded label of each response of a list, best first",
    "margins": "[B] by how much the chosen completion is preferred",
    "preference_proportions": "[B] share of raters who prefer the chosen completion, strictly between 0 and 1",
    "annotator_ids": "[B] int32, who labelled the pair",
    "weights": "[B] weight of the example",
    "rewards": "[B] reward of the completion, from the data",
    "advantages": "[B] advantage of the completion",
    "group_ids": "[B] int32, examples that share a prompt share the number",
    "ids": "[B] int32, number of the example in the data set",
    "desirable": "[B] bool, whether the completion is a wanted one",
    "valid": "[B] bool, False for rows that only pad the batch; every batch has it",
}


def _jensen_shannon(logp: Array, logq: Array, target_logp: Array) -> Array:
    del target_logp
    middle = jnp.logaddexp(logp, logq) - jnp.log(2.0)
    return 0.5 * (jnp.exp(logp) * (logp - middle) + jnp.exp(logq) * (logq - middle))


def _rank(logp: Array, logq: Array, target_logp: Array) -> Array:
    del logq
    return (logp > target_logp).astype(jnp.float32)


# The hook for statistics that are sums over the vocabulary of f(log p_v, log q_v, log p_target), p the policy, q the
# reference, target the token of the sample. Differentiated with respect to log p_v; log q_v and log p_target are fixed.
FULL_VOCABULARY: dict[str, Callable[[Array, Array, Array], Array]] = {
    "token_jsds": _jensen_shannon,  # Jensen-Shannon divergence between policy and reference, in nats
    "token_ranks": _rank,  # how many tokens the policy finds likelier than the sampled one
}


class Name(NamedTuple):
    """A parsed argument name; `whose` is "batch", "head", "label" or "state" where no model's log-probs are meant."""

    whose: str
    side: str
    statistic: str


class Needs(NamedTuple):
    """What a run has to compute per step: token statistics of each model, and whether the reward head is read."""

    policy: frozenset[str]
    frozen: Mapping[str, frozenset[str]]  # {"reference": {"token_logps"}}
    reward_head: bool

    @property
    def models(self) -> frozenset[str]:
        """The frozen models that have to be in memory."""
        with_reference = bool(self.policy & pairwise_names())
        return frozenset(w for w, s in self.frozen.items() if s) | ({"reference"} if with_reference else frozenset())


def pairwise_names() -> frozenset[str]:
    """Statistics that look at the policy's and the reference's whole distributions at once."""
    return frozenset(WITH_REFERENCE) | frozenset(FULL_VOCABULARY)


def _statistics_of(whose: str) -> tuple[str, ...]:
    if whose == "policy":
        return ONE_MODEL + WITH_REFERENCE + tuple(FULL_VOCABULARY)
    return ("logps", "token_logps") if whose == "behaviour" else ONE_MODEL


def known_names() -> list[str]:
    """Every name a kernel may use, for the message about one it may not."""
    sides = ("", *(f"{side}_" for side in SIDES))
    names = [f"{whose}_{side}{s}" for whose in WHOSE for side in sides for s in _statistics_of(whose)]
    names += [f"{side}{s}" for side in sides for s in ("mask", "lengths", "rewards")]
    return [*names, *LABELS, "state"]


def parse(name: str) -> Name:
    """Splits an argument name by the grammar above; ValueError with the nearest known names otherwise."""
    if name == "state":
        return Name("state", "", "state")
    if name in LABELS and name != "rewards":
        return Name("label", "", name)
    whose, _, rest = name.partition("_")
    if whose not in WHOSE:
        whose, rest = "", name
    side = next((s for s in SIDES if rest.startswith(s + "_")), "")
    statistic = rest[len(side) + 1 :] if side else rest
    if whose and statistic in _statistics_of(whose):
        return Name(whose, side, statistic)
    if not whose and statistic in ("mask", "lengths"):
        return Name("batch", side, statistic)
    if not whose and statistic == "rewards":
        return Name("head" if side else "label", side, statistic)
    nearest = difflib.get_close_matches(name, known_names(), n=3, cutoff=0.5)
    raise ValueError(f"unknown statistic {name!r}" + (f"; nearest known: {', '.join(nearest)}" if nearest else ""))


def arguments_of(kernel: Callable) -> tuple[str, ...]:
    """The array arguments of a kernel: its parameters that are not keyword-only."""
    parameters = inspect.signature(kernel).parameters.values()
    return tuple(p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY)


def hyperparameters_of(kernel: Callable) -> dict[str, Any]:
    """The keyword-only parameters of a kernel with their defaults (`inspect.Parameter.empty` where there is none)."""
    parameters = inspect.signature(kernel).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def on_side(name: str, side: str) -> str:
    """The same name on a side: `policy_token_logps` on `chosen` is `policy_chosen_token_logps`."""
    parsed = parse(name)
    if not side or parsed.side or parsed.whose in ("label", "state"):
        return name
    return "_".join(p for p in (parsed.whose if parsed.whose in WHOSE else "", side, parsed.statistic) if p)


def needs_of(names: Iterable[str]) -> Needs:
    """The statistics to compute so that every one of `names` can be delivered."""
    policy: set[str] = set()
    frozen: dict[str, set[str]] = {}
    head = False
    for parsed in map(parse, names):
        statistic = "token_logps" if parsed.statistic == "logps" else parsed.statistic
        if parsed.whose == "policy":
            policy.add(statistic)
        elif parsed.whose in ("reference", "teacher"):
            frozen.setdefault(parsed.whose, set()).add(statistic)
        head = head or parsed.whose == "head"
    return Needs(frozenset(policy), {k: frozenset(v) for k, v in frozen.items()}, head)


# --- the walk over the vocabulary ------------------------------------------------------------------------------------

_NEVER = -1e30  # a logit that no softmax sees; finite, because 0 * -inf would be NaN in the running sums


class _Plan(NamedTuple):
    """Everything static about a walk (hashable, so that it can be a non-differentiated argument)."""

    names: tuple[str, ...]
    chunk: int
    softcap: float | None
    temperature: float

    @property
    def pairwise(self) -> bool:
        return bool(set(self.names) & pairwise_names())

    @property
    def hooks(self) -> tuple[str, ...]:
        return tuple(n for n in self.names if n in FULL_VOCABULARY)


def default_chunk(positions: int, vocabulary: int) -> int:
    """Vocabulary entries per chunk: about 8 million logits (32 MB) at a time, between 512 and the vocabulary."""
    return min(vocabulary, max(512, 2**23 // max(positions, 1) // 128 * 128))


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


def _softmax_sums(hidden, head, reference_hidden, reference_head, targets, plan: _Plan):
    """One walk: running maximum, normaliser and the expectations that entropy and both divergences are made of."""
    n, vocabulary = hidden.shape[0], head.shape[0]
    zero = jnp.zeros(n, jnp.float32)
    with_entropy = "token_entropies" in plan.names

    def body(carry, index):
        top, total, centred, target, ref = carry
        start, ids = _bounds(plan, vocabulary, index)
        fresh = ids >= index * plan.chunk
        z, _ = _logits(hidden, head, start, fresh, plan)
        hit = (targets >= index * plan.chunk) & (targets < (index + 1) * plan.chunk)
        at = jnp.clip(targets - start, 0, plan.chunk - 1)[:, None]
        target = target + jnp.where(hit, jnp.take_along_axis(z, at, axis=1)[:, 0], 0.0)
        new_top = jnp.maximum(top, z.max(axis=1))
        shrink = jnp.exp(top - new_top)
        e = jnp.exp(z - new_top[:, None])
        if with_entropy:
            centred = (centred + total * (top - new_top)) * shrink + (e * (z - new_top[:, None])).sum(axis=1)
        total = total * shrink + e.sum(axis=1)
        if plan.pairwise:
            r_top, r_total, p_gap, q_gap = ref
            r, _ = _logits(reference_hidden, reference_head, start, fresh, plan)
            new_r_top = jnp.maximum(r_top, r.max(axis=1))
            r_shrink = jnp.exp(r_top - new_r_top)
            r_e = jnp.exp(r - new_r_top[:, None])
            # Expectations of the difference of logits, not of the logits: near policy == reference nothing cancels.
            gap = jnp.where(fresh, z - r, 0.0)
            p_gap = p_gap * shrink + (e * gap).sum(axis=1)
            q_gap = q_gap * r_shrink + (r_e * gap).sum(axis=1)
            ref = (new_r_top, r_total * r_shrink + r_e.sum(axis=1), p_gap, q_gap)
        return (new_top, total, centred, target, ref), None

    ref = (zero + _NEVER, zero, zero, zero) if plan.pairwise else ()
    init = (zero + _NEVER, zero, zero, zero, ref)
    (top, total, centred, target, ref), _ = lax.scan(body, init, jnp.arange(-(-vocabulary // plan.chunk)))
    lse = top + jnp.log(total)
    out = {"token_logps": target - lse}
    if with_entropy:
        out["token_entropies"] = jnp.log(total) - centred / total
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
    f = functools.partial(FULL_VOCABULARY[name], logq=logq, target_logp=target_logp[:, None])
    value, slope = jax.jvp(f, (logp,), (jnp.ones_like(logp),))
    return jnp.where(fresh, value, 0.0), jnp.where(fresh, slope, 0.0)


def _hook_sums(hidden, head, reference_hidden, reference_head, lse, r_lse, target_logp, plan: _Plan):
    """A second walk, now that both normalisers are known: sum and summed derivative of each hooked statistic."""

    def body(carry, index):
        start, ids = _bounds(plan, head.shape[0], index)
        fresh = ids >= index * plan.chunk
        logp = _logits(hidden, head, start, fresh, plan)[0] - lse[:, None]
        logq = _logits(reference_hidden, reference_head, start, fresh, plan)[0] - r_lse[:, None]
        pieces = [_hook(name, logp, logq, target_logp, fresh) for name in plan.hooks]
        return [(v + x.sum(axis=1), d + y.sum(axis=1)) for (v, d), (x, y) in zip(carry, pieces, strict=True)], None

    zero = jnp.zeros_like(lse)
    sums, _ = lax.scan(body, [(zero, zero)] * len(plan.hooks), jnp.arange(-(-head.shape[0] // plan.chunk)))
    return {n: v for n, (v, _) in zip(plan.hooks, sums, strict=True)}, {
        n: d for n, (_, d) in zip(plan.hooks, sums, strict=True)
    }


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _walk(hidden, head, reference_hidden, reference_head, targets, plan: _Plan):
    return _walk_forward(hidden, head, reference_hidden, reference_head, targets, plan)[0]


def _walk_forward(hidden, head, reference_hidden, reference_head, targets, plan: _Plan):
    out, lse, r_lse = _softmax_sums(hidden, head, reference_hidden, reference_head, targets, plan)
    slopes = {}
    if plan.hooks:
        sums, slopes = _hook_sums(hidden, head, reference_hidden, reference_head, lse, r_lse, out["token_logps"], plan)
        out |= sums
    residuals = (hidden, head, reference_hidden, reference_head, targets, lse, r_lse, out, slopes)
    return {name: out[name] for name in plan.names}, residuals


def _walk_backward(plan: _Plan, residuals, cotangents):
    hidden, head, reference_hidden, reference_head, targets, lse, r_lse, out, slopes = residuals
    g = {name: c.astype(jnp.float32)[:, None] for name, c in cotangents.items()}
    vocabulary = head.shape[0]

    def body(carry, index):
        d_hidden, d_head = carry
        start, ids = _bounds(plan, vocabulary, index)
        fresh = ids >= index * plan.chunk
        z, raw_slope = _logits(hidden, head, start, fresh, plan)
        logp = z - lse[:, None]
        p = jnp.exp(logp)
        # d/dz of each statistic, times its cotangent; `along` is everything that has the form p_v * (...).
        along, other = jnp.zeros_like(p), jnp.zeros_like(p)
        if "token_logps" in g:
            along -= g["token_logps"]
            other += jnp.where(ids[None, :] == targets[:, None], g["token_logps"], 0.0)
        if "token_entropies" in g:
            along -= g["token_entropies"] * (logp + out["token_entropies"][:, None])
        if plan.pairwise:
            logq = _logits(reference_hidden, reference_head, start, fresh, plan)[0] - r_lse[:, None]
            if "token_kls" in g:
                along += g["token_kls"] * (logp - logq - out["token_kls"][:, None])
            if "token_forward_kls" in g:
                along += g["token_forward_kls"]
                other -= g["token_forward_kls"] * jnp.exp(logq)
            for name in plan.hooks:
                _, slope = _hook(name, logp, logq, out["token_logps"], fresh)
                along -= g[name] * slopes[name][:, None]
                other += g[name] * slope
        dz = jnp.where(fresh, (p * along + other) * raw_slope, 0.0).astype(hidden.dtype)
        rows = lax.dynamic_slice_in_dim(head, start, plan.chunk)
        d_hidden += lax.dot_general(dz, rows, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)
        d_rows = lax.dot_general(dz, hidden, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
        d_rows += lax.dynamic_slice_in_dim(d_head, start, plan.chunk)
        return (d_hidden, lax.dynamic_update_slice_in_dim(d_head, d_rows, start, 0)), None

    init = (jnp.zeros(hidden.shape, jnp.float32), jnp.zeros(head.shape, jnp.float32))
    (d_hidden, d_head), _ = lax.scan(body, init, jnp.arange(-(-vocabulary // plan.chunk)))
    frozen = None if reference_hidden is None else jnp.zeros_like(reference_hidden)
    frozen_head = None if reference_head is None else jnp.zeros_like(reference_head)
    return d_hidden.astype(hidden.dtype), d_head.astype(head.dtype), frozen, frozen_head, None


_walk.defvjp(_walk_forward, _walk_backward)


def token_statistics(
    names: Iterable[str],
    hidden: Array,
    head: Array,
    targets: Array,
    mask: Array | None = None,
    reference_hidden: Array | None = None,
    reference_head: Array | None = None,
    *,
    chunk_size: int | None = None,
    logit_softcap: float | None = None,
    temperature: float = 1.0,
) -> dict[str, Array]:
    """Token statistics of next-token distributions softmax(softcap(hidden @ head.T) / temperature).

    Shapes: hidden [..., D], head [V, D], targets int [...] and mask bool [...]; the same of the reference where a
    statistic compares with it (its vocabulary must be the same; its width may differ). Returns {name: float32 [...]},
    zero behind the mask. Differentiable with respect to hidden and head; the reference is held fixed.

    Memory: O(positions * chunk) beside inputs and gradients, whatever the vocabulary. ValueError for unknown names, a
    missing reference, vocabularies that differ, or a temperature that is not above 0.
    """
    names = tuple(dict.fromkeys(names))
    allowed = ("token_logps", "token_entropies", *WITH_REFERENCE, *FULL_VOCABULARY)
    if unknown := [n for n in names if n not in allowed]:
        raise ValueError(f"unknown token statistics {unknown}; known: {', '.join(allowed)}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    if not names:
        return {}
    pairwise = bool(set(names) & pairwise_names())
    if pairwise and (reference_hidden is None or reference_head is None):
        raise ValueError(f"{', '.join(n for n in names if n in pairwise_names())} need a reference model")
    if pairwise and reference_head.shape[0] != head.shape[0]:
        raise ValueError(f"policy and reference vocabularies differ: {head.shape[0]} and {reference_head.shape[0]}")

    def flat(h: Array) -> Array:
        # The hidden state behind the mask may be anything; 0 keeps NaN out of the gradient of the head.
        h = h if mask is None else jnp.where(mask[..., None], h, 0)
        return h.reshape(-1, h.shape[-1])

    shape = targets.shape
    positions = targets.size
    chunk = min(chunk_size or default_chunk(positions, head.shape[0]), head.shape[0])
    plan = _Plan(names, chunk, logit_softcap, temperature)
    reference = (None, None)
    if pairwise:
        reference = (lax.stop_gradient(flat(reference_hidden)), lax.stop_gradient(reference_head))
    # Behind the mask the target may be anything too; token 0 is always in range.
    wanted = targets if mask is None else jnp.where(mask, targets, 0)
    out = _walk(flat(hidden), head, *reference, wanted.reshape(-1), plan)
    out = {name: value.reshape(shape) for name, value in out.items()}
    return out if mask is None else {name: jnp.where(mask, value, 0.0) for name, value in out.items()}


# --- from batch to named statistics ----------------------------------------------------------------------------------


def completion_hidden(model, params, batch: Mapping[str, Array]) -> tuple[Array, Array]:
    """Hidden states of the rows [B, L, D], and of the positions that predict each completion token [B, S, T, D]."""
    hidden, _ = model.hidden(params, batch["tokens"], batch["positions"], batch["segment_ids"])
    return hidden, jax.vmap(lambda h, index: h[index])(hidden, batch["predict_from"])


def compute(
    needs: Needs,
    model,
    params,
    frozen: Mapping[str, tuple[Any, Any]],
    batch: Mapping[str, Array],
    *,
    chunk_size: int | None = None,
    temperature: float = 1.0,
) -> dict[str, Array]:
    """Every statistic of `needs` on a batch: {"policy_token_logps": [B, S, T], ..., "rewards": [B, S]}, side by side.

    `frozen` maps "reference" (and "teacher") to (model, params). Stored log-probs in the batch
    ("reference_token_logps" [B, S, T]) take the place of a forward pass of that model.
    """
    out: dict[str, Array] = {}
    score = functools.partial(
        token_statistics, targets=batch["targets"], mask=batch["mask"], chunk_size=chunk_size, temperature=temperature
    )
    hidden, completions = completion_hidden(model, params, batch)
    pairwise = needs.policy & pairwise_names()
    reference = (None, None)
    for whose, names in needs.frozen.items():
        names = [n for n in names if f"{whose}_{n}" not in batch]
        if not names:
            continue
        other, other_params = frozen[whose]
        other_params = lax.stop_gradient(other_params)
        _, h = completion_hidden(other, other_params, batch)
        head = other.head(other_params)
        if whose == "reference":
            reference = (h, head)
        scored = score(names, h, head, logit_softcap=other.config.logit_softcap)
        out |= {f"{whose}_{n}": lax.stop_gradient(v) for n, v in scored.items()}
    if pairwise and reference[0] is None:
        other, other_params = frozen["reference"]
        reference = (completion_hidden(other, other_params, batch)[1], other.head(other_params))
    if needs.policy:
        scored = score(
            sorted(needs.policy),
            completions,
            model.head(params),
            reference_hidden=reference[0],
            reference_head=reference[1],
            logit_softcap=model.config.logit_softcap,
        )
        out |= {f"policy_{n}": v for n, v in scored.items()}
    if needs.reward_head:
        out["rewards"] = heads.rewards(params, hidden, batch["last_index"])[..., 0]
    return out


def deliver(name: str, sides: tuple[str, ...], computed: Mapping[str, Array], batch: Mapping[str, Array]) -> Array:
    """The array that a kernel's argument `name` stands for, given what `compute` returned for the same batch."""
    parsed = parse(name)
    if parsed.whose == "label":
        return batch[parsed.statistic]

    def side(x: Array) -> Array:
        return x if parsed.side == "responses" else x[:, sides.index(parsed.side)]

    if parsed.whose == "head":
        return side(computed["rewards"])
    if parsed.whose == "batch":
        mask = side(batch["mask"])
        return mask if parsed.statistic == "mask" else mask.sum(axis=-1, dtype=jnp.int32)
    statistic = "token_logps" if parsed.statistic == "logps" else parsed.statistic
    key = f"{parsed.whose}_{statistic}"
    values = side(computed[key] if key in computed else batch[key])
    return values.sum(axis=-1) if parsed.statistic == "logps" else values


def check_available(name: str, sides: tuple[str, ...], columns: Iterable[str], kernel: str) -> None:
    """ValueError, before any compilation, if the data cannot serve a kernel's argument."""
    try:
        parsed = parse(name)
    except ValueError as error:
        raise ValueError(f"kernel {kernel!r}: {error}") from None
    columns = tuple(columns)
    if parsed.whose == "label":
        if parsed.statistic not in columns:
            there = ", ".join(columns) or "none"
            raise ValueError(f"kernel {kernel!r} needs the column {name!r}; the data set has: {there}")
        return
    if parsed.whose == "behaviour" and "behaviour_token_logps" not in columns:
        raise ValueError(f"kernel {kernel!r} needs {name!r}, but the data set stores no behaviour log-probs")
    if parsed.whose != "state" and parsed.side not in sides:
        offered = ", ".join(repr(s) for s in sides if s) or "one completion per example (no side)"
        hint = "; give the term a `side`" if not parsed.side else ""
        raise ValueError(f"kernel {kernel!r} needs {name!r}, but the data set offers {offered}{hint}")
