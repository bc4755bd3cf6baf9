"""One step for several objectives: weights for their gradients, from the Gram matrix of the gradients alone.

G_ij = <g_i, g_j>, g_k the gradient of objective k's *loss* (what is descended) on one batch. Each function gives
coefficients c, and the step descends sum_k c_k g_k: the gradients themselves, as large as the model, are combined by
`alignment.training.objective_gradients`.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from alignment import checks
from alignment.policy_gradients import objectives

Array = jax.Array
_stop = jax.lax.stop_gradient
_MOST = 8  # objectives that the exact solver of MGDA takes: it looks at all 2^K - 1 faces of the simplex


def _checked(gram: Array) -> Array:
    (gram,) = checks.floats(gram=gram)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not gram.shape[0]:
        raise AssertionError(f"gram must have shape ('K', 'K'), the products of K gradients, got {gram.shape}")
    return _stop(gram)


def mgda_weights(gram: Array) -> Array:
    """c = argmin over the simplex of |sum_k c_k g_k|^2: the shortest vector in the convex hull of the gradients.

    d = sum_k c_k g_k lowers every loss at once, <g_k, d> >= |d|^2, and is 0 exactly where no such direction exists (a
    Pareto-stationary point). It favours objectives with small gradients: where their scales differ normalise first
    (`l2_normalized_gram`, `loss_normalized_gram`).

    Two objectives have a closed form (the same gradient twice: 1/2 each). More are solved exactly: the optimum lies
    inside one of the 2^K - 1 faces of the simplex, where it solves a linear system.

    Args:
      gram: inner products of the gradients. Held fixed.

    Shapes: gram `[K, K]`, symmetric; result float32 `[K]`, on the simplex.

    Raises:
      AssertionError: gram not square or not floating.
      ValueError: more than 8 objectives.

    Paper: Sener and Koltun, 2018, arXiv 1810.04650. The paper solves more than two by Frank-Wolfe, whose limit this is.
    """
    gram = _checked(gram)
    count = gram.shape[0]
    if count > _MOST:
        raise ValueError(f"gram must be of 1 to {_MOST} objectives, got {count}")
    if count == 1:
        return jnp.ones(1, gram.dtype)
    # Products may differ by many orders; the minimiser does not depend on their scale.
    largest = jnp.max(jnp.abs(gram))
    gram = gram / jnp.where(largest > 0, largest, 1.0)
    if count == 2:
        apart = gram[0, 0] + gram[1, 1] - gram[0, 1] - gram[1, 0]
        first = (gram[1, 1] - gram[0, 1]) / jnp.where(apart > 0, apart, 1.0)
        first = jnp.where(apart > 0, jnp.clip(first, 0.0, 1.0), 0.5)
        return jnp.stack([first, 1 - first])
    candidates = []
    for size in range(1, count + 1):
        faces = np.array(list(itertools.combinations(range(count), size)))
        candidates.append(jax.vmap(lambda face, size=size: _on_face(gram, face, size))(jnp.asarray(faces)))
    candidates = jnp.concatenate(candidates)
    lengths = jnp.einsum("ci,ij,cj->c", candidates, gram, candidates)
    return candidates[jnp.argmin(lengths)]


def _on_face(gram: Array, face: Array, size: int) -> Array:
    """Where |d|^2 is stationary on the affine hull of some gradients, moved onto the simplex; [K]."""
    system = jnp.ones((size + 1, size + 1), gram.dtype).at[:size, :size].set(gram[face][:, face]).at[size, size].set(0)
    right = jnp.zeros(size + 1, gram.dtype).at[size].set(1)
    inside = jnp.linalg.solve(system, right)[:size]
    # A face whose gradients depend on each other has no single solution; a smaller face holds the optimum too.
    inside = jnp.where(jnp.isfinite(inside), jnp.clip(inside, 0.0, 1e6), 0.0)
    total = jnp.sum(inside)
    inside = jnp.where(total > 0, inside / jnp.where(total > 0, total, 1.0), 1.0 / size)
    return jnp.zeros(gram.shape[0], gram.dtype).at[face].set(inside)


def l2_normalized_gram(gram: Array) -> Array:
    """Inner products of g_k / |g_k|: for MGDA that ignores how large a gradient is. A gradient of 0 stays 0.

    The coefficients that come of it belong to the normalised gradients: divide them by |g_k|.

    Args:
      gram: inner products of the gradients. Held fixed.

    Shapes: gram `[K, K]`; result float32 `[K, K]`.

    Raises:
      AssertionError: gram not square or not floating.

    Paper: Sener and Koltun, 2018, arXiv 1810.04650 (the published code's `l2`).
    """
    gram = _checked(gram)
    squares = jnp.maximum(jnp.diagonal(gram), 0.0)
    inverse = jnp.where(squares > 0, jax.lax.rsqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
    return gram * inverse[:, None] * inverse[None]


def loss_normalized_gram(gram: Array, losses: Array) -> Array:
    """Inner products of g_k / L_k, L_k the objective's loss at the start. A loss that is not above 0 divides by 1.

    The coefficients that come of it belong to the normalised gradients: divide them by L_k.

    Args:
      gram: inner products of the gradients. Held fixed.
      losses: of each objective. Held fixed.

    Shapes: gram `[K, K]`, losses `[K]`; result float32 `[K, K]`.

    Raises:
      AssertionError: shapes do not agree, or not floating.

    Paper: Sener and Koltun, 2018, arXiv 1810.04650 (the published code's `loss`).
    """
    gram = _checked(gram)
    losses = objectives.vector(gram.shape[0], losses=losses)
    inverse = 1 / jnp.where(losses > 0, losses, 1.0)
    return gram * inverse[:, None] * inverse[None]


def pcgrad_weights(gram: Array, order: Array) -> Array:
    """Gradient surgery: each gradient is projected off those it conflicts with, one after another, then all are added.

        v_i = g_i;  for j in order_i, j != i:  if <v_i, g_j> < 0:  v_i <- v_i - <v_i, g_j> / |g_j|^2 g_j;  d = sum v_i

    g_j is the original gradient. Each v_i stays a combination of the gradients, so this works on coefficients. The
    order matters for three objectives and more; draw it anew for every step and objective.

    Args:
      gram: inner products of the gradients. Held fixed.
      order: integer; row i says in which order the others are looked at for objective i (i itself is passed over).

    Shapes: gram and order `[K, K]`; result float32 `[K]`, the coefficient of each g_k in d.

    Raises:
      AssertionError: shapes differ, gram not square or not floating, order not integer.

    Paper: Yu et al., 2020, arXiv 2001.06782.
    """
    gram = _checked(gram)
    checks.integers(order=order)
    checks.same_shape(gram=gram, order=order)

    def project(i, others):
        def off(place, coefficients):
            j = others[place]
            product = coefficients @ gram[:, j]
            conflict = (j != i) & (product < 0) & (gram[j, j] > 0)
            share = jnp.where(conflict, product / jnp.where(gram[j, j] > 0, gram[j, j], 1.0), 0.0)
            return coefficients.at[j].add(-share)

        start = jax.nn.one_hot(i, gram.shape[0], dtype=gram.dtype)
        return jax.lax.fori_loop(0, gram.shape[0], off, start)

    return jnp.sum(jax.vmap(project)(jnp.arange(gram.shape[0]), order), axis=0)


def gradient_weight_update(weights: Array, gram: Array, *, eta: float = 1e-6, mu: float = 1e-5) -> Array:
    """w_k <- w_k exp(eta I_k / mu) / Z,  I_k = <g_k, sum_j g_j>: an objective that helps all others gains weight.

    Mirror ascent on the simplex; a weight of 0 stays 0. The product with itself counts, so a large gradient gains by
    its size alone, and mu has to go with |g|^2. Equal influences leave the weights alone.

    Args:
      weights: w before, on the simplex. Held fixed.
      gram: inner products of each objective's own policy gradient; the weights do not enter it. Held fixed.
      eta: learning rate of the policy, in (0, inf).
      mu: how strongly the weights stay, in (0, inf).

    Shapes: weights `[K]`, gram `[K, K]`; result float32 `[K]`, on the simplex.

    Raises:
      AssertionError: shapes do not agree, or not floating.
      ValueError: static eta or mu out of range.

    Paper: Lu et al., 2025, arXiv 2509.11452; the published code sums rows of the whole Gram matrix, as here.
    """
    checks.number("eta", eta, 0.0)
    checks.number("mu", mu, 0.0)
    gram = _checked(gram)
    weights = objectives.vector(gram.shape[0], weights=weights)
    there = weights > 0
    logits = jnp.where(there, jnp.log(jnp.where(there, weights, 1.0)) + eta / mu * jnp.sum(gram, axis=1), -jnp.inf)
    # Weights that are none at all (all 0) have no softmax.
    return jnp.where(jnp.any(there), jax.nn.softmax(jnp.where(jnp.any(there), logits, 0.0)), weights)
