"""What every kernel does at its door: check rank, shape, dtype and range, and lift the arithmetic to float32.

Kernels are called with fixed-name arrays from many places (the training step, notebooks, other people's loops), and a
`[B]` array that silently broadcasts against `[B, T]` is the classic wrong loss. So nothing broadcasts here.
"""

import math
import numbers
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

Array = jax.Array


def floats(**arrays: Array) -> list[Array]:
    """Returns the named arrays in order, as float32 (float64 stays float64, for derivative checks).

    Raises AssertionError (chex) that names the arrays if one is not floating or if their shapes differ.
    """
    values = [jnp.asarray(array) for array in arrays.values()]
    names = ", ".join(arrays)
    try:
        chex.assert_type(values, float)
    except AssertionError as error:
        raise AssertionError(f"{error} (arguments in order: {names})") from None
    chex.assert_equal_shape(values, custom_message=f"arguments in order: {names}")
    return [value.astype(jnp.promote_types(value.dtype, jnp.float32)) for value in values]


def same_shape(**arrays: Array) -> None:
    """Raises AssertionError (chex) that names the arrays if their shapes differ."""
    chex.assert_equal_shape([jnp.asarray(a) for a in arrays.values()], custom_message=f"arguments: {', '.join(arrays)}")


def boolean(**arrays: Array) -> None:
    """Raises AssertionError if an array is not bool: a 0/1 float mask invites `values * mask`, and 0 * NaN is NaN."""
    for name, array in arrays.items():
        if jnp.asarray(array).dtype != jnp.bool_:
            raise AssertionError(f"{name} must have dtype bool, got {jnp.asarray(array).dtype}")


def integers(**arrays: Array) -> None:
    """Raises AssertionError if an array is not of an integer type."""
    for name, array in arrays.items():
        if not jnp.issubdtype(jnp.asarray(array).dtype, jnp.integer):
            raise AssertionError(f"{name} must have an integer dtype, got {jnp.asarray(array).dtype}")


def leading_shape(**arrays: Array) -> None:
    """Checks that the first named array, `[...]`, has the shape of the second, `[..., T]`, without its last axis."""
    (short_name, short), (long_name, long) = arrays.items()
    short_shape, long_shape = jnp.shape(short), jnp.shape(long)
    if len(long_shape) != len(short_shape) + 1 or long_shape[:-1] != short_shape:
        raise AssertionError(f"{long_name} must have shape {(*short_shape, 'T')} to go with {short_name} "
                             f"{short_shape}, got {long_shape}")


def number(name: str, value, low: float, high: float = math.inf, *, closed: str = "neither") -> None:
    """Raises ValueError that states the range if a static hyperparameter lies outside the interval (or is NaN).

    Tracers and arrays pass: a hyperparameter may be vmapped over, and then its value is not known here.

    Args:
      name: of the hyperparameter, for the message.
      value: Python or numpy number; anything else is not looked at.
      low, high: ends of the interval.
      closed: which ends belong to it: "neither", "left", "right" or "both".
    """
    if not isinstance(value, numbers.Real):
        return
    left, right = closed in ("left", "both"), closed in ("right", "both")
    if (low <= value if left else low < value) and (value <= high if right else value < high):
        return
    raise ValueError(f"{name} must lie in {'[' if left else '('}{low:g}, {high:g}{']' if right else ')'}, got {value}")


def positive_integer(name: str, value) -> None:
    """Raises ValueError unless `value` is a whole number of at least one (a static size, never traced)."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{name} must be an integer in [1, inf), got {value!r}")


def constants(name: str, values: Sequence[float], count: int, low: float = -math.inf) -> Array:
    """A hyperparameter with one number per objective as `[count]`; ValueError that says what is wrong with it."""
    if isinstance(values, numbers.Real):
        raise ValueError(f"{name} must have one number for each of the {count} objectives, got {values}")
    if len(values) != count:
        raise ValueError(f"{name} must have one number for each of the {count} objectives, got {len(values)}")
    for value in values:
        number(f"each of {name}", value, low, closed="left" if math.isfinite(low) else "neither")
    return jnp.asarray(values, float)


def simplex(name: str, values: Sequence[float], count: int) -> Array:
    """`constants` that are at least 0 and sum to 1: weights of the objectives."""
    weights = constants(name, values, count, 0.0)
    if all(isinstance(v, numbers.Real) for v in values) and abs(sum(values) - 1) > 1e-4:
        raise ValueError(f"{name} must sum to 1, got {sum(values):g}")
    return weights
