"""A gradient taken elsewhere: MetaRM looks from weights that keep unlabelled samples further apart.

    theta' = theta + meta_step * grad J(theta),  theta <- theta - rate * grad L(theta')

J is `alignment.losses.meta_rm_separation` on samples of the shifted policy and L the objective. The gradient at theta'
is applied to theta: first order, as in the paper. With meta_step 0 it is the ordinary gradient.

Wang et al., 2024 (Secrets of RLHF Part II), arXiv 2401.06080; Dou et al., 2024 (MetaRM), arXiv 2405.00438.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

import alignment.losses
from alignment import objective
from alignment.training import step


def make_gradient(
    model,
    frozen_models: Mapping[str, Any],
    terms: tuple[objective.Term, ...],
    metrics: tuple[objective.Term, ...],
    sides: tuple[str, ...],
    columns: Iterable[str],
    *,
    meta_step: float,
    **scoring: Any,
) -> Callable:
    """What `step.make_update` descends; ValueError if the data have no samples."""
    apart = objective.bind({"meta_rm_separation": {}}, alignment.losses, "training.gradient", sides, columns)
    losses = step.make_losses(model, frozen_models, terms, metrics, sides, **scoring)
    separations = step.make_losses(model, {}, apart, (), sides, **scoring)

    def gradient(params, frozen_params, method_state, denominators, rows):
        def separation(params):
            sums, _, _ = separations(params, {}, {}, rows)
            return sum(step.divide(sums, objective.weights(apart, sides, rows)).values())

        up = jax.grad(separation)(params)
        moved = jax.tree.map(lambda p, g: p + (meta_step * g).astype(p.dtype), params, up)

        def loss_of(params):
            sums, logged, kept = losses(params, frozen_params, method_state, rows)
            parts = step.divide(sums, denominators)
            return sum(t.weight * parts[t.name] for t in terms), (parts, logged, kept)

        return jax.value_and_grad(loss_of, has_aux=True)(moved)

    return gradient
