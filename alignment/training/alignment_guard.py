"""AlignGuard-LoRA: a penalty on adapters that keeps their update away from where an aligned behaviour is sensitive.

Of each adapted matrix W [d, k] (as the models hold them: d inputs, k outputs) with the update dW = scale A B:

    F = mean over examples of G G',  G [d, k] the gradient of log p(answer | prompt)    once, before training
    dW_A = U U' dW, dW_T = dW - dW_A                                     U: the top eigenvectors of F
    penalty = lam_A tr(dW_A' F dW_A) + lam_T sum_ij H_i dW_T,ij^2 + lam_NC [alpha E_RM + (1 - alpha) E_geo]

summed over the matrices. F may be its diagonal alone, for d x d numbers are too many in big models; U then picks rows.
As U is exact here, dW_A and dW_T are orthogonal, and E_geo, the squared cosine between them, is 0 and has no gradient.

Das et al., 2025, arXiv 2508.02079. The repository under an author's name computes other terms (silhouette coefficients,
null spaces); the paper's formula is followed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks, statistics
from alignment.models import lora
from alignment.models.quantized import dense

Array = jax.Array

_NEEDS = statistics.needs_of(["policy_token_logps"])


class Terms(NamedTuple):
    """The four terms of a matrix, `[...]` each: unweighted, at least 0."""

    fisher: Array  # tr(dW_A' F dW_A)
    task: Array  # sum_ij H_i dW_T,ij^2
    overlap: Array  # E_RM
    cosine: Array  # E_geo, at most 1


# --- the Fisher matrix -----------------------------------------------------------------------------------------------


def fisher_matrix(gradients: Array) -> Array:
    """F = mean_n G_n G_n', symmetric and positive semi-definite.

    Args:
      gradients: of the log-likelihood of N examples with respect to a matrix.

    Shapes: `[N, ..., d, k]`; result float32 `[..., d, d]`.

    Paper: Das et al., 2025, arXiv 2508.02079.
    """
    (gradients,) = checks.floats(gradients=gradients)
    return jnp.mean(jnp.einsum("...ik,...jk->...ij", gradients, gradients, precision="highest"), axis=0)


def fisher_diagonal(gradients: Array) -> Array:
    """The diagonal of `fisher_matrix` without the matrix: mean_n sum_k G_n,ik^2.

    Shapes: `[N, ..., d, k]`; result float32 `[..., d]`.

    Paper: Das et al., 2025, arXiv 2508.02079.
    """
    (gradients,) = checks.floats(gradients=gradients)
    return jnp.mean(jnp.sum(gradients**2, axis=-1), axis=0)


def _descending(values: Array, mass: float) -> Array:
    """How many of the values, in descending order, it takes to have a share `mass` of their sum."""
    values = jnp.maximum(values, 0.0)  # rounding may leave an eigenvalue a little below
    before = jnp.cumsum(values, axis=-1) - values
    return jnp.sum(before < mass * jnp.sum(values, axis=-1, keepdims=True), axis=-1)


def top_eigenvectors(fisher: Array, count: int) -> Array:
    """U, the eigenvectors of the `count` largest eigenvalues, largest first.

    Args:
      fisher: symmetric.
      count: m, in 0 .. d; with 0 all of an update is dW_T, with d all of it is dW_A.

    Shapes: fisher `[..., d, d]`; result float32 `[..., d, m]`, orthonormal columns.

    Raises:
      ValueError: count out of range.

    Paper: Das et al., 2025, arXiv 2508.02079.
    """
    (fisher,) = checks.floats(fisher=fisher)
    checks.number("count", count, 0, fisher.shape[-1], closed="both")
    return jnp.linalg.eigh(fisher)[1][..., ::-1][..., :count]


def eigenvectors_covering(fisher: Array, *, mass: float = 0.9) -> Array:
    """The fewest top eigenvectors that have a share `mass` of the eigenvalues' sum; zeros in place of the others.

    Leading axes are so many matrices, each with a count of its own. A zero column changes no projection.

    Args:
      fisher: symmetric, positive semi-definite.
      mass: in [0, 1].

    Shapes: fisher `[..., d, d]`; result float32 `[..., d, d]`.

    Raises:
      ValueError: mass out of range.

    Paper: Das et al., 2025, arXiv 2508.02079, which asks for "most" of the mass.
    """
    (fisher,) = checks.floats(fisher=fisher)
    checks.number("mass", mass, 0.0, 1.0, closed="both")
    values, vectors = jnp.linalg.eigh(fisher)
    needed = _descending(values[..., ::-1], mass)
    kept = jnp.arange(fisher.shape[-1]) < needed[..., None]
    return vectors[..., ::-1] * kept[..., None, :]


def rows_covering(diagonal: Array, *, mass: float = 0.9) -> Array:
    """The same of a diagonal Fisher matrix, whose eigenvectors are rows of the update: the largest ones, as a mask.

    Args:
      diagonal: of the Fisher matrix, at least 0.
      mass: in [0, 1].

    Shapes: diagonal `[..., d]`; result bool `[..., d]`.

    Raises:
      ValueError: mass out of range.

    Paper: Das et al., 2025, arXiv 2508.02079.
    """
    (diagonal,) = checks.floats(diagonal=diagonal)
    checks.number("mass", mass, 0.0, 1.0, closed="both")
    order = jnp.argsort(-diagonal, axis=-1)
    needed = _descending(jnp.take_along_axis(diagonal, order, axis=-1), mass)
    return jnp.argsort(order, axis=-1) < needed[..., None]


# --- the terms -------------------------------------------------------------------------------------------------------


def split(update: Array, vectors: Array) -> tuple[Array, Array]:
    """(dW_A, dW_T) = (U U' dW, dW - U U' dW): what lies in the span of U, and the rest.

    Shapes: update `[..., d, k]`, vectors U `[..., d, m]` with orthonormal or zero columns; both results `[..., d, k]`.

    Paper: Das et al., 2025, arXiv 2508.02079.
    """
    (update,), (vectors,) = checks.floats(update=update), checks.floats(vectors=vectors)
    inside = jnp.einsum("...ik,...im->...mk", update, vectors, precision="highest")
    aligned = jnp.einsum("...im,...mk->...ik", vectors, inside, precision="highest")
    return aligned, update - aligned


def overlap_energy(aligned: Array, rest: Array, weights: Array, *, beta: float = 4.0, tau: float = 0.01) -> Array:
    """E_RM = sum_ij eta_ij |dW_A,ij dW_T,ij|, eta_ij = 1 + beta sigmoid(|W_ij| - tau): where both move one entry.

    A sum, not a mean: a mean would change lam_NC by d k. eta lies within (1, 1 + beta) and grows with |W| by a quarter
    of beta per unit at most, so it tells entries of trained matrices apart little.

    Args:
      aligned, rest: dW_A and dW_T.
      weights: W, the current weights. Held fixed.
      beta: in [0, inf); 0 weighs all entries by 1.
      tau: any number.

    Shapes: all `[..., d, k]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or arrays are not floating.
      ValueError: static beta out of range.

    Paper: Das et al., 2025, arXiv 2508.02079. A third party's code has eta of |dW_A + dW_T| and a mean.
    """
    checks.number("beta", beta, 0.0, closed="left")
    aligned, rest, weights = checks.floats(aligned=aligned, rest=rest, weights=weights)
    eta = 1 + beta * jax.nn.sigmoid(jnp.abs(jax.lax.stop_gradient(weights)) - tau)
    return jnp.sum(eta * jnp.abs(aligned * rest), axis=(-2, -1))


def squared_cosine(aligned: Array, rest: Array, *, eps: float = 1e-12) -> Array:
    """E_geo = <dW_A, dW_T>^2 / (|dW_A|^2 |dW_T|^2 + eps), in [0, 1]: 0 of an exact split, and without a gradient there.

    It acts only on parts that are parametrised separately, or split by vectors that are not orthonormal.

    Shapes: `[..., d, k]` both; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or arrays are not floating.
      ValueError: static eps outside (0, inf).

    Paper: Das et al., 2025, arXiv 2508.02079; eps is not given there.
    """
    checks.number("eps", eps, 0.0)
    aligned, rest = checks.floats(aligned=aligned, rest=rest)
    inner, one, other = (jnp.sum(x, axis=(-2, -1)) for x in (aligned * rest, aligned**2, rest**2))
    return inner**2 / (one * other + eps)


def terms(
    update: Array, weights: Array, fisher: Array, vectors: Array, curvature: Array,
    *, beta: float = 4.0, tau: float = 0.01,
) -> Terms:  # fmt: skip
    """The four terms with a full Fisher matrix.

    Args:
      update: dW = scale A B.
      weights: W, the current weights. Held fixed.
      fisher: F. Held fixed, as are vectors and curvature.
      vectors: U, the top eigenvectors of F.
      curvature: H, the diagonal of the task's metric; ones for the identity.
      beta, tau: of `overlap_energy`.

    Shapes: update and weights `[..., d, k]`, fisher `[..., d, d]`, vectors `[..., d, m]`, curvature `[..., d]`.

    Raises:
      AssertionError: shapes differ or arrays are not floating.
      ValueError: static beta out of range.

    Paper: Das et al., 2025, arXiv 2508.02079.
    """
    (fisher,) = checks.floats(fisher=fisher)
    aligned, rest = split(update, jax.lax.stop_gradient(vectors))
    moved = jnp.einsum("...ij,...jk->...ik", jax.lax.stop_gradient(fisher), aligned, precision="highest")
    return _terms(jnp.sum(aligned * moved, axis=(-2, -1)), aligned, rest, weights, curvature, beta, tau)


def diagonal_terms(
    update: Array, weights: Array, diagonal: Array, rows: Array, curvature: Array,
    *, beta: float = 4.0, tau: float = 0.01,
) -> Terms:  # fmt: skip
    """The four terms with a diagonal Fisher matrix: dW_A are rows of dW, and E_RM is 0 too, for no entry is shared.

    Args:
      update, weights, curvature, beta, tau: as of `terms`.
      diagonal: of F. Held fixed.
      rows: bool, the rows that are dW_A.

    Shapes: update and weights `[..., d, k]`, diagonal, rows and curvature `[..., d]`.

    Raises:
      AssertionError: shapes differ, arrays are not floating, rows not bool.
      ValueError: static beta out of range.

    Paper: Das et al., 2025, arXiv 2508.02079.
    """
    (diagonal,), (update,) = checks.floats(diagonal=diagonal), checks.floats(update=update)
    checks.boolean(rows=rows)
    aligned = jnp.where(rows[..., None], update, 0.0)
    in_fisher = jnp.sum(jax.lax.stop_gradient(diagonal)[..., None] * aligned**2, axis=(-2, -1))
    return _terms(in_fisher, aligned, update - aligned, weights, curvature, beta, tau)


def _terms(in_fisher, aligned, rest, weights, curvature, beta, tau) -> Terms:
    task = jnp.sum(jax.lax.stop_gradient(curvature)[..., None] * rest**2, axis=(-2, -1))
    overlap = overlap_energy(aligned, rest, weights, beta=beta, tau=tau)
    return Terms(in_fisher, task, overlap, squared_cosine(aligned, rest))


def total(
    of: Terms, *, fisher_weight: float = 0.25, task_weight: float = 0.5, collision_weight: float = 0.1,
    alpha: float = 0.5,
) -> Array:  # fmt: skip
    """lam_A |F^(1/2) dW_A|^2 + lam_T |H^(1/2) dW_T|^2 + lam_NC [alpha E_RM + (1 - alpha) E_geo].

    Args:
      of: the terms of a matrix.
      fisher_weight, task_weight, collision_weight: lam_A, lam_T, lam_NC, in [0, inf); all 0 is plain LoRA.
      alpha: share of E_RM, in [0, 1].

    Shapes: terms `[...]`; result `[...]`, to be summed over the matrices.

    Raises:
      ValueError: a static number out of range.

    Paper: Das et al., 2025, arXiv 2508.02079.
    """
    weights = {"fisher_weight": fisher_weight, "task_weight": task_weight, "collision_weight": collision_weight}
    for name, value in weights.items():
        checks.number(name, value, 0.0, closed="left")
    checks.number("alpha", alpha, 0.0, 1.0, closed="both")
    collision = alpha * of.overlap + (1 - alpha) * of.cosine
    return fisher_weight * of.fisher + task_weight * of.task + collision_weight * collision


# --- of a model with adapters ----------------------------------------------------------------------------------------


def estimate_fisher(
    model: Any, targets: tuple[str, ...], params: Any, batch: Mapping[str, Array], of_gradients: Callable
) -> dict[str, Array]:
    """`fisher_matrix` or `fisher_diagonal` (`of_gradients`) of every target, over the rows of a batch, one at a time.

    An example is a row with one completion; its gradient is that of the sum of its tokens' log-probs. Quantised
    matrices are read back first. Targets are stacked `[layers, d, k]`, and so are the results.
    """
    examples = {k: jnp.asarray(batch[k]) for k in statistics.ROW_COLUMNS if k in batch}
    whole = {name: dense(params["layers"][name]).astype(jnp.float32) for name in targets}

    def log_likelihood(matrices, row):
        changed = params | {"layers": params["layers"] | matrices}
        rows = {k: v[None] for k, v in row.items()}
        logps = statistics.compute(_NEEDS, model, changed, {}, rows)["policy_token_logps"]
        return jnp.sum(jnp.where(rows["mask"], logps, 0.0))

    def one(row):
        gradient = jax.grad(log_likelihood)(whole, row)
        return {name: of_gradients(g[None]) for name, g in gradient.items()}

    def add(sums, row):
        return jax.tree.map(jnp.add, sums, one(row)), None

    shapes = jax.eval_shape(one, {k: v[0] for k, v in examples.items()})
    sums, _ = jax.lax.scan(add, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), examples)
    return {name: value / len(examples["mask"]) for name, value in sums.items()}


def make_penalty(
    adapter: lora.Adapter, of_matrix: Callable[..., Terms], weighed: Callable[[Terms], Array]
) -> Callable[[Any, Mapping[str, Any]], Array]:
    """`(adapters, fixed) -> penalty`, a scalar for `step.make_update`: the sum over all targets and layers.

    Args:
      adapter: without magnitudes, for these change W beyond dW.
      of_matrix: `terms` or `diagonal_terms`, with its hyperparameters.
      weighed: `total`, with its weights.

    `fixed` is `{"layers": base matrices, "fisher": {name: F}, "subspace": {name: U or rows}}`, by the targets' names;
    H is the identity.

    Raises:
      ValueError: an adapter with magnitudes.
    """
    if adapter.magnitudes:
        raise ValueError("the update of adapters with magnitudes is not A B alone; switch them off")

    def penalty(adapters: Any, fixed: Mapping[str, Any]) -> Array:
        value = jnp.zeros(())
        for name in adapter.targets:
            a, b = (adapters["layers"][f"{name}_lora_{part}"] for part in ("a", "b"))
            update = adapter.scale * jnp.matmul(a, b, precision="highest")
            weights = dense(fixed["layers"][name]).astype(jnp.float32) + update
            ones = jnp.ones(update.shape[:-1])
            value += jnp.sum(weighed(of_matrix(update, weights, fixed["fisher"][name], fixed["subspace"][name], ones)))
        return value

    return penalty
