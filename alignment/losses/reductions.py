"""From per-example or per-token values to one number, as (sum, weight): the loss is sum / weight.

Papers differ exactly here. Sums and weights add exactly over micro-batches and devices, so whoever holds the whole
batch divides, once. The weight depends on the mask alone and can be had before any value is computed: a training step
takes the weight of the whole batch from its masks and then runs micro-batches against that one denominator.

    total, weight = token_mean(values, mask)        # both at once
    total = token_mean.total(values, mask)          # the numerator of one micro-batch
    weight = token_mean.weight(mask)                # the denominator, from the mask of the whole batch

Masks are bool, True counts, and have the shape of the values. Values behind the mask (NaN too) reach neither the sum
nor the gradient. A weight may be 0 (nothing counts); the sum is then 0, and it is for the caller to say what 0 / 0
means.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep, masked_sum

Array = jax.Array


class Reduction(NamedTuple):
    """total(values, mask) -> f32 [], the sum; weight(mask) -> f32 [], what the sum is to be divided by."""

    total: Callable[[Array, Array], Array]
    weight: Callable[[Array], Array]

    def __call__(self, values: Array, mask: Array) -> tuple[Array, Array]:
        """Returns (sum, weight)."""
        return self.total(values, mask), self.weight(mask)


def _count(mask: Array) -> Array:
    """How many entries count, as float32. Counted in integers: exact whatever the order of the sum, which past 2^24
    float32 promises only where the backend sums in a tree."""
    checks.boolean(mask=mask)
    return jnp.sum(mask, dtype=jnp.int32).astype(jnp.float32)


def _sum(values: Array, mask: Array) -> Array:
    (values,) = checks.floats(values=values)
    return jnp.sum(keep(values, mask))


def _sum_of_row_means(values: Array, mask: Array) -> Array:
    (values,) = checks.floats(values=values)
    # max(1, .) only touches rows without a token, whose sum is 0.
    return jnp.sum(masked_sum(values, mask) / jnp.maximum(jnp.sum(mask, axis=-1), 1))


def _rows(mask: Array) -> Array:
    """How many rows have a token that counts."""
    checks.boolean(mask=mask)
    return _count(jnp.any(mask, axis=-1))


token_mean = Reduction(total=_sum, weight=_count)
"""Values and mask [..., T]: every token of the batch weighs the same, so long sequences weigh more."""

sequence_mean = Reduction(total=_sum_of_row_means, weight=_rows)
"""Values and mask [..., T]: mean within each row, then over rows. Rows without a token do not count."""

sequence_sum = Reduction(total=_sum, weight=_rows)
"""Values and mask [..., T]: sum within each row, then the mean over rows; a row is one action. Rows without a token do
not count."""

example_mean = Reduction(total=_sum, weight=_count)
"""Values [B] and valid [B]: every example that is not padding weighs the same."""


def constant(length: float) -> Reduction:
    """Values and mask `[..., T]`: the sum over tokens divided by rows * `length`, whatever the rows' own lengths.

    A token then weighs the same in every batch (no length bias); `length=1` is `sequence_sum`.
    Rows without a token do not count. Raises ValueError for a length outside (0, inf).
    """
    checks.number("length", length, 0.0)
    return Reduction(total=_sum, weight=lambda mask: _rows(mask) * length)
