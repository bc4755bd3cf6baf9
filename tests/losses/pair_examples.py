"""Pairs that the tests of pair losses share, and how these are looked at as functions of one log-ratio."""

import jax
import jax.numpy as jnp
import numpy as np

B = 6
RNG = np.random.default_rng(0)
PAIR = tuple(jnp.asarray(-10 + 3 * RNG.normal(size=B), jnp.float32) for _ in range(4))
SAME = (PAIR[0], PAIR[1], PAIR[0], PAIR[1])  # policy == reference
SWAPPED = (PAIR[1], PAIR[0], PAIR[3], PAIR[2])
A_W, A_L = PAIR[0] - PAIR[2], PAIR[1] - PAIR[3]
H = A_W - A_L
LENGTHS = (jnp.arange(1, B + 1), jnp.arange(2 * B, B, -1))
EQUAL_LENGTHS = (LENGTHS[0], LENGTHS[0])


def at(kernel, a_w, a_l=0.0, **hyper):
    """The loss of pairs with these log-ratios: the reference's log-probs are 0."""
    a_w, a_l = jnp.broadcast_arrays(jnp.asarray(a_w, jnp.float32), jnp.asarray(a_l, jnp.float32))
    zero = jnp.zeros_like(a_w)
    return kernel(a_w, a_l, zero, zero, **hyper)


def slopes(kernel, a_w, a_l=0.0, **hyper):
    """dL/da_w and dL/da_l at these log-ratios."""
    a_w, a_l = jnp.broadcast_arrays(jnp.asarray(a_w, jnp.float32), jnp.asarray(a_l, jnp.float32))
    return jax.grad(lambda w, l: jnp.sum(at(kernel, w, l, **hyper)), argnums=(0, 1))(a_w, a_l)


def gradients(loss, *args, argnums):
    return jax.grad(lambda *a: jnp.sum(loss(*a)), argnums=argnums)(*args)
