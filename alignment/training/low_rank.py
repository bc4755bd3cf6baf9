"""Optimizers that keep Adam's moments of every matrix in a low-rank projection of its gradient: GaLore and Fira.

optax.contrib.galore (0.2.8) is not used: it takes matrices of two axes only (ours are stacked, layers first), projects
the other side than the paper, and leaves the signs of the singular vectors to the backend, on which moments that
survive a new projection depend.

A matrix [m, n] is looked at with its longer side first, [long, short]; leading axes are so many matrices. The rows of
the projector P [rank, short] are the top right singular vectors of the gradient, renewed every `gap` steps, the
largest entry of each positive. With R = G P', M and V its Adam moments and N = M / (sqrt(V) + eps), the direction in
the full space is scale * N P; parameters that are no such matrices get Adam's direction, unscaled.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from alignment import checks

Array = jax.Array


class LowRankState(NamedTuple):
    count: Array
    projector: Any  # per matrix [..., rank, short]; of other leaves 0 (a checkpoint holds no empty array)
    mu: Any
    nu: Any
    residual_norm: Any  # per matrix [...]; GaLore does not look at it


def every_matrix(path: tuple, leaf: Array) -> bool:
    """Leaves of two or more axes."""
    del path
    return leaf.ndim >= 2


def scale_by_galore(
    rank: int = 128,
    *,
    gap: int = 200,
    scale: float = 0.25,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    matrices: Callable[[tuple, Array], bool] = every_matrix,
) -> optax.GradientTransformation:
    """GaLore: Adam on R, back in the full space; moments are neither reset nor turned when the projection is renewed.

    The update lies in the span of P. With rank = min(m, n) and no renewal it is Adam in a rotated basis. The bias
    correction is sqrt(1 - b2^t) / (1 - b1^t) with eps beside the uncorrected root, as in the paper's code.

    Args:
      rank: of the projection, at least 1. Matrices whose shorter side is below it have a square projector.
      gap: steps between two projections, at least 1.
      scale: of the update of matrices, in (0, inf).
      b1, b2: in [0, 1).
      eps: in (0, inf).
      matrices: (path, leaf) -> whether the last two axes of a leaf are such a matrix.

    Raises:
      ValueError: a number out of range.

    Paper: Zhao et al., 2024, arXiv 2403.03507.
    """
    return _scale_by_low_rank(rank, gap, scale, b1, b2, eps, matrices, None)


def scale_by_fira(
    rank: int = 128,
    *,
    gap: int = 200,
    scale: float = 0.25,
    limit: float = 1.01,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    matrices: Callable[[tuple, Array], bool] = every_matrix,
) -> optax.GradientTransformation:
    """Fira: GaLore plus what of the gradient lies outside of the subspace, scaled as Adam scales what lies inside.

        C = phi (G - R P),   phi_i = |N_i| / (|R_i| + 1e-8) for each row i of the longer side

    and |C| may grow by the factor `limit` from step to step at most. Bias correction is of the whole direction. With
    rank = min(m, n) nothing lies outside, and it is GaLore.

    Args:
      limit: gamma, above 1 (or 1: C may not grow).
      rank, gap, scale, b1, b2, eps, matrices: as for `scale_by_galore`.

    Raises:
      ValueError: a number out of range.

    Paper: Chen et al., 2024, arXiv 2410.01623. Its code subtracts scale * R P instead of R P, so that for a scale below
      1 part of the gradient inside the subspace is in C too; the paper's form is followed.
    """
    checks.number("limit", limit, 1.0, closed="left")
    return _scale_by_low_rank(rank, gap, scale, b1, b2, eps, matrices, functools.partial(_outside, limit))


def _outside(limit: float, g: Array, projected: Array, normed: Array, projector: Array, previous: Array, count: Array):
    """C and its norm, of one leaf."""
    ratio = jnp.linalg.norm(normed, axis=-1) / (jnp.linalg.norm(projected, axis=-1) + 1e-8)
    c = ratio[..., None] * (g - projected @ projector)
    norm = jnp.sqrt(jnp.sum(c * c, axis=(-2, -1)))
    growth = jnp.maximum(norm / (previous + 1e-8), limit) / limit
    shrink = jnp.where(count > 0, 1 / growth, 1.0)
    return shrink[..., None, None] * c, shrink * norm


def _long_first(x: Array, of: tuple[int, ...]) -> Array:
    """Turns a matrix of the shape `of` so that the longer side comes first; applied twice it is undone."""
    return x if of[-2] >= of[-1] else jnp.swapaxes(x, -1, -2)


def _projector(g: Array, rank: int) -> Array:
    vectors = jnp.linalg.svd(g, full_matrices=False)[2][..., :rank, :]
    largest = jnp.take_along_axis(vectors, jnp.argmax(jnp.abs(vectors), axis=-1, keepdims=True), axis=-1)
    return vectors * jnp.where(largest < 0, -1.0, 1.0)


def _scale_by_low_rank(rank, gap, scale, b1, b2, eps, matrices, outside) -> optax.GradientTransformation:
    checks.positive_integer("rank", rank)
    checks.positive_integer("gap", gap)
    for name, value in (("scale", scale), ("eps", eps)):
        checks.number(name, value, 0.0)
    for name, value in (("b1", b1), ("b2", b2)):
        checks.number(name, value, 0.0, 1.0, closed="left")

    def init(params):
        def first(path, p):
            if not matrices(path, p):
                return jnp.zeros(()), jnp.zeros(p.shape), jnp.zeros(p.shape), jnp.zeros(())
            *lead, m, n = p.shape
            size = min(rank, m, n)
            moment = jnp.zeros((*lead, max(m, n), size))
            return jnp.zeros((*lead, size, min(m, n))), moment, moment, jnp.zeros(tuple(lead))

        parts = jax.tree_util.tree_map_with_path(first, params)
        return LowRankState(jnp.zeros((), jnp.int32), *_transposed(params, parts, 4))

    def update(updates, state, params=None):
        del params
        count = state.count + 1
        correction = jnp.sqrt(1 - b2**count) / (1 - b1**count)

        def one(path, g, projector, mu, nu, norm):
            g32, is_matrix = g.astype(jnp.float32), matrices(path, g)
            low = g32
            if is_matrix:
                g32 = _long_first(g32, g.shape)
                projector = jax.lax.cond(
                    state.count % gap == 0, lambda g, p: _projector(g, p.shape[-2]), lambda g, p: p, g32, projector
                )
                low = g32 @ jnp.swapaxes(projector, -1, -2)
            mu, nu = b1 * mu + (1 - b1) * low, b2 * nu + (1 - b2) * low**2
            direction = mu / (jnp.sqrt(nu) + eps)
            if is_matrix:
                inside = scale * (direction @ projector)
                if outside is not None:
                    beyond, norm = outside(g32, low, direction, projector, norm, state.count)
                    inside = inside + beyond
                direction = _long_first(inside, g.shape)
            return (correction * direction).astype(g.dtype), projector, mu, nu, norm

        trees = (state.projector, state.mu, state.nu, state.residual_norm)
        parts = jax.tree_util.tree_map_with_path(one, updates, *trees)
        direction, *rest = _transposed(updates, parts, 5)
        return direction, LowRankState(count, *rest)

    return optax.GradientTransformation(init, update)


def _transposed(like: Any, tree: Any, width: int) -> tuple:
    """A tree of tuples as a tuple of trees."""
    return jax.tree.transpose(jax.tree.structure(like), jax.tree.structure((0,) * width), tree)
