"""The two gradients of every pair, one pair at a time: how they pull on each other, and a step that weighs them alike.

For objectives whose terms read the policy through `policy_chosen_logps` and `policy_rejected_logps` only. The gradient
of the loss with respect to the parameters is then d_l * g_l - d_w * g_w per pair (`alignment.analysis.gradients`). A
scan over the pairs holds the two gradients of one pair in memory, beside one sum: twice the backward passes of the
ordinary step, and no batch parallelism between pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from alignment import analysis, objective, statistics
from alignment.training import step

Array = jax.Array

SIDES = ("chosen", "rejected")
READABLE = tuple(f"policy_{side}_logps" for side in SIDES)


def check_terms(terms: Iterable[objective.Term], key: str) -> None:
    """ValueError that names the term and the config key if the gradient does not go through the two sums alone."""
    read = set()
    for term in terms:
        for name in term.arguments:
            parsed = statistics.parse(name)
            if parsed.whose == "head" or (parsed.whose in ("policy", "mixed") and name not in READABLE):
                raise ValueError(
                    f"{key}: {term.name!r} trains {name!r}; the gradients of the two sides serve only objectives that "
                    f"read the policy as {' and '.join(READABLE)}"
                )
            read |= {name} & set(READABLE)
    if not read:
        raise ValueError(f"{key}: no term of the objective reads {' or '.join(READABLE)}")


def dot(a: Any, b: Any) -> Array:
    products = jax.tree.map(lambda x, y: jnp.sum(x.astype(jnp.float32) * y.astype(jnp.float32)), a, b)
    return sum(jax.tree.leaves(products))


def _make_pair_gradients(model, sides: tuple[str, ...], **scoring) -> Callable:
    """`(params, row) -> (g_w, g_l)`, trees like the parameters; `row` is one row of a batch, without its axis."""
    needs = statistics.needs_of(READABLE)

    def pair_gradients(params, row: Mapping[str, Array]):
        rows = {k: v[None] for k, v in row.items()}

        def logps(params):
            computed = statistics.compute(needs, model, params, {}, rows, **scoring)
            return [statistics.deliver(name, sides, computed, rows)[0] for name in READABLE]

        values, pull = jax.vjp(logps, params)
        one, zero = jnp.ones_like(values[0]), jnp.zeros_like(values[0])
        return pull([one, zero])[0], pull([zero, one])[0]

    return pair_gradients


def _coefficients(
    terms: tuple[objective.Term, ...], method_state, sides: tuple[str, ...], computed: Mapping, rows: Mapping, reduce
) -> tuple[tuple[Array, Any], tuple[Array, Array]]:
    """`reduce(sums, kept) -> (loss, aux)` of the terms, and (d_w, d_l) of that loss for every pair."""

    def loss_of(shift: Array):
        # A summed log-prob moves as its first token's does, and the terms see nothing but the sums.
        moved = computed["policy_token_logps"].at[..., 0].add(shift)
        return reduce(*objective.evaluate(terms, method_state, sides, {**computed, "policy_token_logps": moved}, rows))

    out, slopes = jax.value_and_grad(loss_of, has_aux=True)(jnp.zeros(rows["mask"].shape[:2], jnp.float32))
    chosen, rejected = (slopes[:, sides.index(side)] for side in SIDES)
    return out, (-chosen, rejected)


def make_gradient(
    model,
    frozen_models: Mapping[str, Any],
    terms: tuple[objective.Term, ...],
    metrics: tuple[objective.Term, ...],
    sides: tuple[str, ...],
    *,
    chunk_size: int | None = None,
    temperature: float = 1.0,
) -> Callable:
    """What `step.make_update` descends in pairwise normalised training (Yuan et al., 2024, arXiv 2410.13828).

    Minus the mean over pairs of `analysis.pairwise_normalized_direction`, C = (d_w + d_l) / 2 by differentiating the
    objective; weights and denominators of the terms are in C. Loss, metrics and method state are those of the ordinary
    step, and where |g_w| = |g_l| = 1 for every pair and d_w = d_l so is the gradient.
    """
    check_terms(terms, "config.training.gradient")
    needs = statistics.needs_of(objective.names_of((*terms, *metrics)))
    scoring = {"chunk_size": chunk_size, "temperature": temperature}
    pair_gradients = _make_pair_gradients(model, sides, **scoring)

    def gradient(params, frozen_params, method_state, denominators, rows):
        frozen = {whose: (frozen_models[whose], frozen_params[whose]) for whose in frozen_params}
        computed = statistics.compute(needs, model, params, frozen, rows, **scoring)

        def reduce(sums, kept):
            parts = step.divide(sums, denominators)
            return sum(t.weight * parts[t.name] for t in terms), (parts, kept)

        (loss, (parts, kept)), (d_w, d_l) = _coefficients(terms, method_state, sides, computed, rows, reduce)
        logged, _ = objective.evaluate(metrics, {}, sides, computed, rows)

        def add(total, pair):
            row, coefficient = pair
            g_w, g_l = pair_gradients(params, row)
            up, down = analysis.pairwise_normalized_factors(dot(g_w, g_w), dot(g_l, g_l), coefficient)
            return jax.tree.map(lambda t, w, l: t - (up * w - down * l).astype(t.dtype), total, g_w, g_l), None

        pairs = ({k: rows[k] for k in statistics.ROW_COLUMNS if k in rows}, (d_w + d_l) / 2)
        grads, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), pairs)
        return (loss, (parts, logged, kept)), grads

    return gradient


def make_entanglement(
    model,
    frozen_models: Mapping[str, Any],
    terms: tuple[objective.Term, ...],
    sides: tuple[str, ...],
    *,
    chunk_size: int | None = None,
    temperature: float = 1.0,
) -> Callable[..., analysis.Entanglement]:
    """`(params, frozen_params, method_state, batch) -> analysis.Entanglement` of [B]: every pair on its own.

    The coefficients are those of each pair's own loss (terms times weights, nothing divided by the batch), so the
    changes are per unit of learning rate of a plain gradient step on that pair alone.
    """
    check_terms(terms, "config.diagnostics.gradient_entanglement")
    needs = statistics.needs_of([*READABLE, *objective.names_of(terms)])
    scoring = {"chunk_size": chunk_size, "temperature": temperature}
    pair_gradients = _make_pair_gradients(model, sides, **scoring)

    def entanglement(params, frozen_params, method_state, batch):
        frozen = {whose: (frozen_models[whose], frozen_params[whose]) for whose in frozen_params}
        computed = statistics.compute(needs, model, params, frozen, batch, **scoring)

        def reduce(sums, kept):
            del kept
            return sum(t.weight * sums[t.name] for t in terms), ()

        _, coefficients = _coefficients(terms, method_state, sides, computed, batch, reduce)

        def products(_, row):
            g_w, g_l = pair_gradients(params, row)
            return None, (dot(g_w, g_w), dot(g_l, g_l), dot(g_w, g_l))

        _, found = jax.lax.scan(products, None, {k: batch[k] for k in statistics.ROW_COLUMNS if k in batch})
        return analysis.entanglement_of_products(*found, *coefficients)

    return entanglement


def make_evaluation(*arguments, **scoring) -> Callable:
    """`make_entanglement` as an evaluation: ({name: sum}, {name: weight}) over the pairs that are no padding."""
    entanglement = make_entanglement(*arguments, **scoring)

    def evaluate(params, frozen_params, method_state, batch):
        found = entanglement(params, frozen_params, method_state, batch)
        sums = {
            f"entanglement/{name}": jnp.sum(jnp.where(batch["valid"], value.astype(jnp.float32), 0.0))
            for name, value in found._asdict().items()
        }
        return sums, {name: jnp.sum(batch["valid"], dtype=jnp.float32) for name in sums}

    return evaluate
