"""Steerability: did a rewriting model move a text's attributes as far as asked, and only those."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignment import checks

Array = jax.Array


class Steerability(NamedTuple):
    """Means over probes with a request; null_requests is how many asked for nothing and were left out."""

    steering_error: float
    miscalibration: float
    orthogonality: float
    n: int
    null_requests: int


def steering_error(target_attributes: Array, output_attributes: Array) -> Array:
    """|z* - z_hat|_2. Its negative is the reward of the paper's training runs.

    Shapes: `[..., D]` each; result float32 `[...]`. Raises: AssertionError for shapes that differ or integers.
    Paper: Chang et al., 2025 (A Course Correction in Steerability Evaluation), arXiv 2505.23816.
    """
    target, output = checks.floats(target_attributes=target_attributes, output_attributes=output_attributes)
    square = jnp.sum((target - output) ** 2, axis=-1)
    # The root has no gradient at 0, where the target is met.
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def miscalibration(source_attributes: Array, target_attributes: Array, output_attributes: Array) -> Array:
    """|<z* - z_hat, z* - z0>| / |z* - z0|^2: too far or too short along what was asked for.

    1 for a text that was left as it was, 0 on target, |1 - a| for an overshoot by the factor a. 1e-8 is added to the
    squared norm, so a null request (z* = z0) gives 0: leave it out.

    Shapes: `[..., D]` each; result float32 `[...]`. Raises: AssertionError for shapes that differ or integers.
    Paper: Chang et al., 2025, arXiv 2505.23816; the code's unbinned form.
    """
    missing, asked, _ = _vectors(source_attributes, target_attributes, output_attributes)
    return jnp.abs(jnp.sum(missing * asked, axis=-1)) / (jnp.sum(asked * asked, axis=-1) + 1e-8)


def orthogonality(source_attributes: Array, target_attributes: Array, output_attributes: Array) -> Array:
    """|rejection of (z* - z_hat) from (z* - z0)| / |z_hat - z0|, in [0, 1]: the share of the movement that is sideways.

    rejection(a, b) = a - <a, b> / |b|^2 b. It is |sin| of the angle between movement and request. 1e-4 |z* - z0| is
    added to the denominator, so that a text left as it was has 0.

    Shapes: `[..., D]` each; result float32 `[...]`. Raises: AssertionError for shapes that differ or integers.
    Paper: Chang et al., 2025, arXiv 2505.23816. The code's default bins all distances around the source but, in this
    one function, forgets to bin the request; its unbinned form is followed.
    """
    missing, asked, moved = _vectors(source_attributes, target_attributes, output_attributes)
    along = jnp.sum(missing * asked, axis=-1, keepdims=True) / (jnp.sum(asked * asked, axis=-1, keepdims=True) + 1e-8)
    sideways = jnp.linalg.norm(missing - along * asked, axis=-1)
    distance = jnp.linalg.norm(moved, axis=-1) + 1e-4 * (jnp.linalg.norm(asked, axis=-1) + 1e-8)
    return jnp.clip(sideways / distance, 0.0, 1.0)


def steerability(source_attributes: Array, target_attributes: Array, output_attributes: Array) -> Steerability:
    """Mean `steering_error`, `miscalibration` and `orthogonality` (side effects) over the probes that ask for anything.

    Args:
      source_attributes: z0, attributes of the text to rewrite, each scaled to [0, 1]: otherwise the one with the widest
        range (the length, as a rule) decides alone.
      target_attributes: z*, those asked for; NaN where nothing is asked of an attribute, which then is to stay.
      output_attributes: z_hat, those of the model's text.

    Shapes: `[N, D]` each.

    Raises: ValueError if every probe is a null request; AssertionError for shapes that differ.
    Paper: Chang et al., 2025, arXiv 2505.23816.
    """
    source = jnp.asarray(source_attributes, jnp.float32)
    target, output = jnp.asarray(target_attributes, jnp.float32), jnp.asarray(output_attributes, jnp.float32)
    checks.same_shape(source_attributes=source, target_attributes=target, output_attributes=output)
    target = jnp.where(jnp.isnan(target), source, target)
    asked = np.asarray(jnp.any(target != source, axis=-1))
    if not asked.any():
        raise ValueError("target_attributes equal source_attributes in every probe: nothing was asked for")
    probes = source, target, output
    each = steering_error(target, output), miscalibration(*probes), orthogonality(*probes)
    means = [float(np.asarray(values)[asked].mean()) for values in each]
    return Steerability(*means, int(asked.sum()), int((~asked).sum()))


def _vectors(source: Array, target: Array, output: Array) -> tuple[Array, Array, Array]:
    source, target, output = checks.floats(source_attributes=source, target_attributes=target, output_attributes=output)
    return target - output, target - source, output - source
