"""ScaleBiO: how much of each data source to train on, so that the trained model does well on validation data."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks

Array = jax.Array


class ScaleBiORun(NamedTuple):
    """Where a run ended, and the weights of the sources after every step."""

    logits: Array  # [S]; the weights are their softmax
    params: Any  # w, trained on the mixture and the validation data
    shadow: Any  # u, which follows the minimiser of the mixture's loss
    weights: Array  # [steps, S]


def scalebio_weight_gradient(logits: Array, losses: Array, shadow_losses: Array, *, alpha: float = 10.0) -> Array:
    """Gradient of alpha [L2(lam, w) - L2(lam, u)] in lam: alpha s_i (d_i - s . d), s = softmax(lam), d = L(w) - L(u).

    L2(lam, w) = sum_i s_i L_i(w) is the mixture's loss. A source that the model w, pulled towards the validation data,
    is worse at than the shadow u loses weight. The gradient sums to 0, and is 0 where w and u agree.

    Args:
      logits: lam.
      losses, shadow_losses: mean loss of each source under w and under u, on the same examples; 0 in both for a source
        of which the batch has none.
      alpha: penalty, in (0, inf).

    Shapes: all `[S]`; result float32 `[S]`.

    Raises:
      AssertionError: shapes differ or not floating. ValueError: a static alpha out of range.

    Paper: Pan et al., 2024, arXiv 2406.19976.
    """
    checks.number("alpha", alpha, 0.0)
    logits, losses, shadow = checks.floats(logits=logits, losses=losses, shadow_losses=shadow_losses)
    weights, gap = jax.nn.softmax(logits), losses - shadow
    return alpha * weights * (gap - jnp.sum(weights * gap))


def scalebio(
    source_losses: Callable[[Any, Any], Array],
    validation_loss: Callable[[Any, Any], Array],
    logits: Array,
    params: Any,
    batches: Any,
    *,
    alpha: float = 10.0,
    growth: float = 1.0,
    weight_rate: float = 1e-2,
    model_rate: float = 1e-2,
    shadow_rate: float = 1e-2,
) -> ScaleBiORun:
    """min over lam and w, max over u, of L1(w) + alpha [L2(lam, w) - L2(lam, u)], one gradient step of each in turn.

    L1 is the validation loss and L2 the loss of the mixture with weights softmax(lam). The bracket is how far w is from
    minimising L2: for alpha -> infinity w does, and the gradient in lam is that of L1(w*(lam)), with an error of
    O(1 / alpha). Plain gradient steps here; the published code has AdamW for all three and resamples which layers
    move (LISA) for memory. Watch the entropy of the weights: a softmax that has saturated does not come back.

    Args:
      source_losses: (params, batch) -> `[S]`, mean loss of each source.
      validation_loss: (params, batch) -> `[]`.
      logits: `[S]`, where lam begins; zeros are equal weights.
      params: where w and u begin.
      batches: pytree whose leaves have a leading axis of steps; w and u see the same one.
      alpha: in (0, inf).
      growth: alpha is multiplied by it after every step, in [1, inf).
      weight_rate, model_rate, shadow_rate: learning rates of lam, w and u, in (0, inf). u is to keep up:
        shadow_rate times alpha not too small.

    Raises:
      ValueError: a static number out of range.

    Paper: Pan et al., 2024, arXiv 2406.19976; python/minmax.py of its code.
    """
    rates = {"weight_rate": weight_rate, "model_rate": model_rate, "shadow_rate": shadow_rate}
    for name, value in {"alpha": alpha, **rates}.items():
        checks.number(name, value, 0.0)
    checks.number("growth", growth, 1.0, closed="left")
    (logits,) = checks.floats(logits=logits)

    def mixture(params, logits, batch):
        losses = source_losses(params, batch)
        return jnp.sum(jax.nn.softmax(logits) * losses), losses

    def moved(params, gradient, rate):
        return jax.tree.map(lambda p, g: p - rate * g, params, gradient)

    def step(carry, batch):
        logits, w, u, alpha = carry
        (_, shadow_losses), of_u = jax.value_and_grad(mixture, has_aux=True)(u, logits, batch)
        (_, losses), of_w = jax.value_and_grad(mixture, has_aux=True)(w, logits, batch)
        of_validation = jax.grad(validation_loss)(w, batch)
        u = moved(u, of_u, shadow_rate * alpha)
        w = moved(w, jax.tree.map(lambda v, m: v + alpha * m, of_validation, of_w), model_rate)
        logits = logits - weight_rate * scalebio_weight_gradient(logits, losses, shadow_losses, alpha=alpha)
        return (logits, w, u, alpha * growth), jax.nn.softmax(logits)

    start = (logits, params, params, jnp.asarray(alpha, logits.dtype))
    (logits, w, u, _), weights = jax.lax.scan(step, start, batches)
    return ScaleBiORun(logits, w, u, weights)
