"""A step that treats every term of the objective as an objective of its own and weighs their gradients anew each time.

`config.training.gradient` chooses how: `mgda` (the shortest convex combination), `pcgrad` (each projected off those it
conflicts with) or `gradient_weights` (weights by mirror ascent on how much each gradient helps all). A term's `weight`
scales its gradient before they are combined. The gradients of K terms are in memory at once, and take K backward
passes; they have to be those of the whole batch, so the batch is not split into micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alignment import multi_objective, objective
from alignment.losses import reductions
from alignment.losses.stateful import StatefulKernel
from alignment.training import side_gradients, step

Array = jax.Array

MEMORY = "combined_gradients"  # name of the term whose state is kept between steps


class State(NamedTuple):
    """count: int32 [], steps taken; weights: float32 [K], of the terms."""

    count: Array
    weights: Array


def _weights(name: str, state: State, gram: Array, eta: float, mu: float) -> Array:
    """What each gradient is multiplied by, given their inner products."""
    if name == "mgda":
        return multi_objective.mgda_weights(gram)
    if name == "pcgrad":
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), state.count), gram.shape[0])
        order = jax.vmap(lambda key: jax.random.permutation(key, gram.shape[0]))(keys)
        return multi_objective.pcgrad_weights(gram, order)
    return multi_objective.gradient_weight_update(state.weights, gram, eta=eta, mu=mu)


def _memory(count: int) -> StatefulKernel:
    """A method that adds nothing to the loss: what it keeps is the weights of the last step and how many there were."""

    def init() -> State:
        return State(jnp.zeros((), jnp.int32), jnp.full(count, 1 / count, jnp.float32))

    def loss(valid: Array, state: State) -> tuple[Array, Array]:
        return jnp.zeros(valid.shape, jnp.float32), state.weights

    def update(state: State, aux: Array, *, axis_name: Any = None) -> State:
        del axis_name
        return State(state.count + 1, aux)

    return StatefulKernel(init, loss, update)


def with_memory(terms: tuple[objective.Term, ...], accumulate: int) -> tuple[objective.Term, ...]:
    """The terms and one more, whose state the combination keeps; ValueError if there is nothing to combine."""
    if len(terms) < 2:
        raise ValueError("config.training.gradient: combines the gradients of two terms or more; the objective has one")
    if accumulate > 1:
        raise ValueError(
            f"config.training.accumulate: {accumulate} micro-batches would each combine gradients of their own; set it "
            "to 1 or config.training.gradient='ordinary'"
        )
    method = _memory(len(terms))
    memory = objective.Term(
        MEMORY, method.loss, ("valid", "state"), {}, 0.0, reductions.example_mean, "", method, False
    )
    return (*terms, memory)


def make_gradient(losses: Callable, terms: tuple[objective.Term, ...], name: str, *, eta: float, mu: float) -> Callable:
    """What `step.make_update` descends; `losses` and `terms` are those of `with_memory`.

    Sener and Koltun, 2018, arXiv 1810.04650 (mgda); Yu et al., 2020, arXiv 2001.06782 (pcgrad); Lu et al., 2025, arXiv
    2509.11452 (gradient_weights; the paper recomputes advantages of the newly weighted reward, where here the gradients
    of each objective's own advantages are added with the new weights).
    """
    objectives = [term for term in terms if term.name != MEMORY]

    def gradient(params, frozen_params, method_state, denominators, rows):
        def each(params):
            sums, logged, kept = losses(params, frozen_params, method_state, rows)
            parts = step.divide(sums, denominators)
            return jnp.stack([t.weight * parts[t.name] for t in objectives]), (parts, logged, kept)

        values, pull, (parts, logged, kept) = jax.vjp(each, params, has_aux=True)
        gradients = [pull(one)[0] for one in jnp.eye(len(objectives), dtype=values.dtype)]
        gram = jnp.stack([jnp.stack([side_gradients.dot(a, b) for b in gradients]) for a in gradients])
        weights = _weights(name, method_state[MEMORY], gram, eta, mu)
        combined = jax.tree.map(lambda *g: sum(w * x for w, x in zip(weights, g, strict=True)), *gradients)
        parts = {k: v for k, v in parts.items() if k != MEMORY}
        parts |= {f"{t.name}_weight": w for t, w in zip(objectives, weights, strict=True)}
        return (jnp.sum(weights * values), (parts, logged, kept | {MEMORY: weights})), combined

    return gradient
