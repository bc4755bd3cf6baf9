"""Sums over the completions of one prompt, wherever they stand in the batch and on whichever device.

A group is all valid rows with the same `group_ids`: of any size, in any order. Everything goes through a table
`same` [n, N], True where row i of this device and row j of the whole batch belong together; n = N on one device.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep

Array = jax.Array
_stop = jax.lax.stop_gradient


class Moments(NamedTuple):
    """Of the rows that count for each row, f32 [n]; `std` is exactly 0 where all of their values are equal."""

    mean: Array
    std: Array
    count: Array
    low: Array
    high: Array


def checked_rewards(rewards: Array, group_ids: Array, valid: Array) -> Array:
    """Entry checks of an estimator; the rewards in float32, held fixed, 0 in rows that only pad."""
    (rewards,) = checks.floats(rewards=rewards)
    checks.integers(group_ids=group_ids)
    checks.boolean(valid=valid)
    checks.same_shape(rewards=rewards, group_ids=group_ids, valid=valid)
    if rewards.ndim != 1:
        raise AssertionError(f"rewards must have shape ('N',), the whole batch on one axis, got {rewards.shape}")
    return keep(_stop(rewards), valid)


def whole(values: Array, axis_name: Any) -> Array:
    """The rows of all devices, [n, ...] -> [N, ...]."""
    return values if axis_name is None else jax.lax.all_gather(values, axis_name, tiled=True)


def row_numbers(size: int, axis_name: Any) -> Array:
    """Where this device's rows stand in the whole batch, i32 [n]."""
    return jnp.arange(size) + (0 if axis_name is None else jax.lax.axis_index(axis_name) * size)


def same_group(group_ids: Array, valid: Array, axis_name: Any) -> Array:
    """Bool [n, N]: which rows of the whole batch are completions of this row's prompt (itself included)."""
    return (group_ids[:, None] == whole(group_ids, axis_name)[None, :]) & whole(valid, axis_name)[None, :]


def everyone(valid: Array, axis_name: Any) -> Array:
    """Bool [n, N]: the same table for the batch as one group."""
    valid_of_all = whole(valid, axis_name)
    return jnp.broadcast_to(valid_of_all, (valid.shape[0], valid_of_all.shape[0]))


def first_of_group(same: Array, valid: Array, axis_name: Any) -> Array:
    """Bool [n]: one row of each group, so that a sum over them counts each prompt once."""
    return valid & (jnp.argmax(same, axis=-1) == row_numbers(valid.shape[0], axis_name))


def total(values: Array, same: Array) -> Array:
    """Sum of `values` [N] over the rows that count for each row, [n]."""
    return jnp.sum(jnp.where(same, values[None, :], 0.0), axis=-1)


def moments(values: Array, same: Array, *, ddof: float) -> Moments:
    """Mean and standard deviation of `values` [N] over the rows that count for each row; 0 where there is none.

    Equal values have their own value for a mean and no deviation at all: in float32 the deviation of equal numbers from
    their rounded mean is some 1e-8, which divided by a standard deviation of 1e-8 would be an advantage of one.
    """
    count = jnp.sum(same, axis=-1).astype(values.dtype)
    low = jnp.min(jnp.where(same, values[None, :], jnp.inf), axis=-1)
    high = jnp.max(jnp.where(same, values[None, :], -jnp.inf), axis=-1)
    spread = high > low
    only = jnp.where(count > 0, high, 0.0)
    mean = jnp.where(spread, total(values, same) / jnp.maximum(count, 1), only)
    squares = jnp.sum(jnp.where(same, jnp.square(values[None, :] - mean[:, None]), 0.0), axis=-1)
    std = jnp.where(spread, jnp.sqrt(squares / jnp.maximum(count - ddof, 1)), 0.0)
    return Moments(mean, std, count, low, high)


def standardised(values: Array, mean: Array, std: Array, eps: float) -> Array:
    """(values - mean) / (std + eps), and 0 where nothing deviates (also with eps = 0)."""
    return jnp.where(std > 0, (values - mean) / (jnp.where(std > 0, std, 1.0) + eps), 0.0)


def best_of_group(values: Array, same: Array, axis_name: Any) -> Array:
    """Bool [n]: the row with the largest of `values` [n] among the rows that count for it; of equals the first."""
    everything = jnp.where(same, whole(values, axis_name)[None, :], -jnp.inf)
    return jnp.any(same, axis=-1) & (jnp.argmax(everything, axis=-1) == row_numbers(values.shape[0], axis_name))
