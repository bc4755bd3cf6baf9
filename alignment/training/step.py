"""One training step and one evaluation step, for every objective: statistics, kernels, one division, one update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from alignment import objective, statistics
from alignment.training.references import tr_dpo_soft_update
from alignment.training.state import TrainState

PENALTY = "penalty"  # key of `frozen_params` for what a penalty on the parameters holds fixed


def _micro_batches(batch: Mapping[str, jax.Array], count: int) -> dict[str, jax.Array]:
    # Row r goes to micro-batch r % count, so that every device splits the rows it already holds.
    return {k: v.reshape(-1, count, *v.shape[1:]).swapaxes(0, 1) for k, v in batch.items()}


def _rejoin(x: jax.Array) -> jax.Array:
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])


def make_losses(
    model,
    frozen_models: Mapping[str, Any],
    terms: tuple[objective.Term, ...],
    metrics: tuple[objective.Term, ...],
    sides: tuple[str, ...],
    **scoring: Any,
) -> Callable:
    """`(params, frozen_params, method_state, batch) -> ({term: sum}, {metric: sum}, kept)`, unreduced by design.

    `scoring` are the settings of `statistics.compute`.
    """
    needs = statistics.needs_of(objective.names_of((*terms, *metrics)))
    random = objective.draws((*terms, *metrics))

    def losses(params, frozen_params, method_state, batch):
        frozen = {whose: (frozen_models[whose], frozen_params[whose]) for whose in frozen_params}
        if random and "random_bits" not in batch:  # outside of training nothing new is drawn
            batch = {**batch, "random_bits": batch["ids"]}
        computed = statistics.compute(needs, model, params, frozen, batch, **scoring)
        sums, kept = objective.evaluate(terms, method_state, sides, computed, batch)
        logged, _ = objective.evaluate(metrics, {}, sides, computed, batch)
        return sums, logged, kept

    return losses


def divide(sums: Mapping[str, jax.Array], weights: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    return {k: sums[k] / jnp.maximum(weights[k], 1e-30) for k in sums}


def with_reference(frozen_params: Mapping[str, Any], state: TrainState) -> dict[str, Any]:
    """The parameters of all models but the policy: those that never change, and the state's own reference."""
    return {**frozen_params} | ({} if state.reference is None else {"reference": state.reference})


def make_step(
    losses: Callable,
    terms: tuple[objective.Term, ...],
    metrics: tuple[objective.Term, ...],
    sides: tuple[str, ...],
    optimizer: optax.GradientTransformation,
    **settings: Any,
) -> Callable[[TrainState, Any, Mapping[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]]:
    """The step along the gradient of the loss; `settings` are those of `make_update`, which says what it gives.

    The loss is of the terms that are active at `state.step`; the logs have them all.
    """

    def step(state: TrainState, frozen_params, batch):
        def gradient(params, frozen_params, method_state, denominators, rows):
            def loss_of(params):
                sums, logged, kept = losses(params, frozen_params, method_state, rows)
                parts = divide(sums, denominators)
                return objective.total(terms, parts, state.step), (parts, logged, kept)

            return jax.value_and_grad(loss_of, has_aux=True)(params)

        return make_update(gradient, terms, metrics, sides, optimizer, **settings)(state, frozen_params, batch)

    return step


def make_update(
    gradient: Callable,
    terms: tuple[objective.Term, ...],
    metrics: tuple[objective.Term, ...],
    sides: tuple[str, ...],
    optimizer: optax.GradientTransformation,
    *,
    accumulate: int = 1,
    draws_from_rng: bool = False,
    reference_every: int = 0,
    reference_at: int = 0,
    reference_weight: float = 1.0,
    penalty: Callable[[Any, Any], jax.Array] | None = None,
) -> Callable[[TrainState, Any, Mapping[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]]:
    """`(state, frozen_params, batch) -> (state, logs)`: whatever is to be descended, summed over micro-batches.

    `gradient(params, frozen_params, method_state, denominators, rows)` gives `(loss, (parts, logged, kept)), grads` of
    some rows of the batch: their share of the loss and of its terms, the metrics' sums, and what the methods keep.

    Every term's weight is summed over the whole batch before the first micro-batch runs, so `accumulate` micro-batches
    give the loss and the gradient of the one big batch. A step whose loss or gradient is not finite changes nothing but
    the counters and the random key.

    A state with a `reference` is scored against that one, and after every `reference_every` steps (0: never) it moves
    towards the new policy by `reference_weight`, unless that very step was skipped; with `reference_at` after that one
    of every so many steps rather than after the last.

    With `draws_from_rng` each row of the batch gets a number of its own, new at every step, to draw tokens from.

    `penalty(params, frozen_params["penalty"])` is a scalar of the parameters alone: it and its gradient are added once
    to those of the whole batch, however many micro-batches and devices these came from.
    """

    random = objective.draws((*terms, *metrics))

    def step(state: TrainState, frozen_params, batch):
        frozen_params = with_reference(frozen_params, state)
        fixed = frozen_params.pop(PENALTY, None)
        if random:
            bits = jax.random.bits(state.rng, batch["ids"].shape, jnp.uint32)
            batch = {**batch, "random_bits": jax.lax.bitcast_convert_type(bits, jnp.int32)}
        if draws_from_rng:
            batch = {**batch, "seeds": jax.random.bits(state.rng, batch["ids"].shape[:1], jnp.uint32)}
        denominators = objective.weights(terms, sides, batch)
        metric_weights = objective.weights(metrics, sides, batch)

        def gradient_of(params, rows):
            return gradient(params, frozen_params, state.method_state, denominators, rows)

        if accumulate == 1:
            (loss, (parts, logged, kept)), grads = gradient_of(state.params, batch)
        else:

            def body(total, rows):
                (value, (parts, logged, kept)), grads = gradient_of(state.params, rows)
                return jax.tree.map(jnp.add, total, (value, parts, logged, grads)), kept

            micro = _micro_batches(batch, accumulate)
            shapes = jax.eval_shape(gradient_of, state.params, {k: v[0] for k, v in micro.items()})
            (value, (parts, logged, _)), grads = shapes
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (value, parts, logged, grads))
            (loss, parts, logged, grads), kept = jax.lax.scan(body, zeros, micro)
            kept = jax.tree.map(_rejoin, kept)

        if penalty is not None:
            penalised, of_penalty = jax.value_and_grad(penalty)(state.params, fixed)
            loss, grads = loss + penalised, jax.tree.map(jnp.add, grads, of_penalty)

        norm = optax.global_norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        proposed = (
            optax.apply_updates(state.params, updates),
            opt_state,
            objective.update_states(terms, state.method_state, kept, state.step),
        )
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        current = (state.params, state.opt_state, state.method_state)
        params, opt_state, method_state = jax.tree.map(lambda n, o: jnp.where(finite, n, o), proposed, current)
        reference = state.reference
        if reference is not None and reference_every:
            reference = jax.lax.cond(
                finite & ((state.step + 1) % reference_every == reference_at),
                lambda old, new: tr_dpo_soft_update(old, new, alpha=reference_weight),
                lambda old, new: old,
                reference,
                {name: params[name] for name in reference},  # a value model is no part of it
            )
        bad = 1 - finite.astype(jnp.int32)
        new_state = TrainState(
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            method_state=method_state,
            rng=jax.random.split(state.rng, 1)[0],
            skipped=state.skipped + bad,
            skipped_in_a_row=(state.skipped_in_a_row + 1) * bad,
            reference=reference,
        )
        logs = {"loss": loss, "grad_norm": norm, "skipped": new_state.skipped}
        logs["skipped_in_a_row"] = new_state.skipped_in_a_row
        logs |= {f"loss/{k}": v for k, v in parts.items()} if len(terms) > 1 else {}
        logs |= {} if penalty is None else {"penalty": penalised}
        logs |= divide(logged, metric_weights)
        return new_state, logs

    return step


def make_evaluation(losses: Callable, terms, metrics, sides) -> Callable:
    """`(params, frozen_params, method_state, batch) -> ({name: sum}, {name: weight})`: add both up, divide last."""

    def evaluate(params, frozen_params, method_state, batch):
        sums, logged, _ = losses(params, frozen_params, method_state, batch)
        weights = objective.weights((*terms, *metrics), sides, batch)
        return sums | logged, weights

    return evaluate
