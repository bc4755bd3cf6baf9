"""Entry checks of what takes several rewards per completion, and sets of points that lie on several devices."""

from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks

Array = jax.Array
_stop = jax.lax.stop_gradient


def checked(valid: Array, **arrays: Array) -> Array:
    """One named array `[..., K]` in float32, held fixed, 0 in the rows that do not count (valid `[...]`)."""
    ((name, array),) = arrays.items()
    (array,) = checks.floats(**{name: array})
    checks.boolean(valid=valid)
    checks.leading_shape(**{"valid": valid, name: array})
    return jnp.where(valid[..., None], _stop(array), 0.0)


def vector(count: int, **arrays: Array) -> Array:
    """One named array `[count]` in float32, held fixed: a number for each objective."""
    ((name, array),) = arrays.items()
    (array,) = checks.floats(**{name: array})
    if array.shape != (count,):
        raise AssertionError(f"{name} must have shape ({count},), one number for each objective, got {array.shape}")
    return _stop(array)


def everywhere(values: Array, axis_name: Any) -> Array:
    """The rows of all devices, [n, ...] -> [N, ...], the same array on each of them."""
    if axis_name is None:
        return values
    size = values.shape[0]
    count, at = jax.lax.psum(1, axis_name), jax.lax.axis_index(axis_name)
    # A sum of disjoint parts, and not a gather: its result is known to be the same on all devices.
    plain = values.astype(jnp.int32) if values.dtype == jnp.bool_ else values
    whole = jnp.zeros((size * count, *values.shape[1:]), plain.dtype)
    whole = jax.lax.dynamic_update_slice_in_dim(whole, plain, at * size, axis=0)
    return jax.lax.psum(whole, axis_name).astype(values.dtype)


def total(values: Array, axis_name: Any) -> Array:
    """Sum over all rows of all devices; what is left of `values` [n, ...] is its trailing axes."""
    summed = jnp.sum(values, axis=0)
    return summed if axis_name is None else jax.lax.psum(summed, axis_name)
