"""Sums that forget what is behind the mask.

`values * mask` keeps a NaN (0 * NaN is NaN), so the hidden values are replaced first. The replacement also cuts their
gradient, as long as it happens *before* any function that is singular there: call these on a kernel's raw inputs.
"""

import jax
import jax.numpy as jnp

from alignment import checks

Array = jax.Array


def keep(values: Array, mask: Array, fill: float = 0.0) -> Array:
    """`values` where `mask` is True, `fill` elsewhere.

    Shapes: values `[...]` and mask `[...]` bool, equal; result `[...]`.
    Raises: AssertionError if the shapes differ or the mask is not bool.
    """
    checks.boolean(mask=mask)
    checks.same_shape(values=values, mask=mask)
    return jnp.where(mask, values, fill)


def masked_sum(values: Array, mask: Array) -> Array:
    """Sum over the last axis of the values that count; 0 for a row with none.

    Shapes: values and mask `[..., T]`; result `[...]`.
    """
    return jnp.sum(keep(values, mask), axis=-1)


def log_softmax(values: Array, mask: Array) -> Array:
    """Log-softmax over the last axis of the values that count; elsewhere a very negative, finite number.

    A row with none has no distribution: what comes back for it means nothing, but is finite, and so is its gradient.

    Shapes: values and mask `[..., K]`; result `[..., K]`.
    """
    # Finite, because 0 * -inf would be NaN in an expectation; so far down that the softmax is exactly 0 there.
    return jax.nn.log_softmax(keep(values, mask, -1e30))


def indicator(condition: Array, difference: Array) -> Array:
    """1 where the condition holds, 0 elsewhere, NaN where the difference that it is about is; no gradient.

    Shapes: both `[...]`; result `[...]` of the difference's type.
    """
    # A NaN compares as False and would pass for an honest miss.
    found = jnp.where(jnp.isnan(difference), difference, condition.astype(difference.dtype))
    return jax.lax.stop_gradient(found)
