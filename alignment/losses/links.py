"""Link functions: what turns a margin (how far the chosen side is ahead, in nats) into a loss.

A preference loss is a margin followed by a link, so crossing a new margin with every link is one call each. All are
elementwise, differentiable, and finite in value and gradient for margins up to 1e4 in size and far beyond.
"""

import jax
import jax.numpy as jnp

from alignment import checks

Array = jax.Array


def logistic(margins: Array, label_smoothing: float = 0.0) -> Array:
    """-(1 - e) log s(z) - e log s(-z), s the sigmoid: the label is right with probability 1 - e.

    Computed as (1 - e) softplus(-z) + e softplus(z); `log(s(z))` would be -inf from z = -104 on.
    Shapes: margins `[...]`; result `[...]`. `label_smoothing` e in [0, 1/2] (static values are checked).
    """
    checks.number("label_smoothing", label_smoothing, 0.0, 0.5, closed="both")
    return (1 - label_smoothing) * jax.nn.softplus(-margins) + label_smoothing * jax.nn.softplus(margins)


def squared(margins: Array, target: float) -> Array:
    """(z - target)^2: pulls the margin to a finite target, and back when it has gone past.

    Shapes: margins `[...]`; result `[...]`.
    """
    return jnp.square(margins - target)


def focal(margins: Array, gamma: float) -> Array:
    """-p^gamma log p with p = s(z): a pair the model ranks wrongly weighs less. The factor is differentiated.

    Computed from log p alone, as -exp(gamma log p) log p. gamma = 0 is `logistic`.
    Shapes: margins `[...]`; result `[...]`. `gamma` in [0, inf) (static values are checked).
    """
    checks.number("gamma", gamma, 0.0, closed="left")
    log_p = -jax.nn.softplus(-margins)
    return -jnp.exp(gamma * log_p) * log_p
