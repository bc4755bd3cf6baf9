"""Frozen matrices in 4 or 8 bits, by qwix: stored as codes with a scale for every block of inputs of every output."""

import math
from typing import Any

import jax

Array = jax.Array

FORMATS = ("nf4", "int8")
BLOCK = 64


def quantize(weight: Array, form: str) -> Any:
    """A `qwix.QArray` of a matrix [..., in, out], in float32 when read back.

    A block is 64 inputs of one output (fewer where 64 does not divide them: the greatest common divisor), as large as
    QLoRA's; its scale is the largest magnitude in it, so that one stays exact. The scales are kept in float32: QLoRA's
    second quantisation, of the scales, is not done, which costs 0.5 bits per weight instead of 0.127.

    Args:
      form: "nf4", the 16 quantiles of a normal variable of Dettmers et al. (2023), arXiv:2305.14314, or "int8".

    Raises:
      ValueError: unknown form. ImportError: qwix is not installed.
    """
    if form not in FORMATS:
        raise ValueError(f"quantisation must be one of {FORMATS}, got {form!r}")
    channels = (*range(weight.ndim - 2), weight.ndim - 1)
    block = math.gcd(weight.shape[-2], BLOCK)
    return _qwix().quantize(
        weight.astype("float32"), form, channelwise_axes=channels, tiled_axes={weight.ndim - 2: block}
    )


def dense(weight: Any) -> Array:
    """The matrix as it is computed with: a `qwix.QArray` read back, any other as it is."""
    return _qwix().dequantize(weight) if hasattr(weight, "qvalue") else weight


def _qwix():
    try:
        import qwix
    except ImportError as error:
        raise ImportError("quantised weights need qwix: pip install alignment[qlora]") from error
    return qwix
