"""A matrix product whose gradient costs what the product costs."""

from __future__ import annotations

import jax

Array = jax.Array


@jax.custom_vjp
def matmul(x: Array, weight: Array) -> Array:
    """x [..., D] times weight [D, F] -> [..., F], both of one dtype.

    The gradient of the weight is x^T g or (g^T x)^T, and XLA copies the factor that is transposed; on a CPU the copy of
    the wider one takes longer than the product itself. jax always writes the second; here the narrower one is copied.
    """
    return x @ weight


def _forward(x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ weight, (x, weight)


def _backward(kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, weight = kept
    rows = tuple(range(x.ndim - 1))
    d_x = jax.lax.dot_general(g, weight, (((g.ndim - 1,), (1,)), ((), ())))
    if x.shape[-1] <= g.shape[-1]:
        d_weight = jax.lax.dot_general(x, g, ((rows, rows), ((), ())))
    else:
        d_weight = jax.lax.dot_general(g, x, ((rows, rows), ((), ()))).T
    return d_x, d_weight


matmul.defvjp(_forward, _backward)
