"""Link functions: what turns a margin (how far the chosen side is ahead, in nats) into a loss.

A preference loss is a margin (`alignment.losses.margins`) followed by a link, so crossing a new margin with every link
is one call each: `alignment.losses.composition.compose`, or `margin` and `link` in a config. All are elementwise,
differentiable almost everywhere, and finite in value and gradient for margins up to 1e4 in size and beyond. s is the
sigmoid. What follows the margins is a hyperparameter; static values out of range raise ValueError with the range.
"""

import jax
import jax.numpy as jnp

from alignment import checks

Array = jax.Array

__all__ = [
    "discopop",
    "exponential",
    "focal",
    "hinge",
    "logistic",
    "reverse_kl",
    "robust",
    "sigmoid",
    "squared",
]

# exp is continued by its tangent from here on: e^88 leaves float32, while e^30 times 1e4 squared, which the norm of a
# gradient needs, is still inside.
_STEEPEST = 30.0


def logistic(margins: Array, label_smoothing: float = 0.0) -> Array:
    """-(1 - e) log s(z) - e log s(-z), s the sigmoid: the label is right with probability 1 - e.

    Computed as (1 - e) softplus(-z) + e softplus(z); `log(s(z))` would be -inf from z = -104 on.
    Shapes: margins `[...]`; result `[...]`. `label_smoothing` e in [0, 1/2] (static values are checked).
    """
    checks.number("label_smoothing", label_smoothing, 0.0, 0.5, closed="both")
    return (1 - label_smoothing) * jax.nn.softplus(-margins) + label_smoothing * jax.nn.softplus(margins)


def squared(margins: Array, target: float = 0.5) -> Array:
    """(z - target)^2: pulls the margin to a finite target, and back when it has gone past.

    With the target 1/2 on beta * h it is IPO with tau = beta, up to a factor beta^2.
    Shapes: margins `[...]`; result `[...]`. `target` in (-inf, inf) (static values are checked).
    """
    checks.number("target", target, -jnp.inf, jnp.inf)
    return jnp.square(margins - target)


def focal(margins: Array, gamma: float = 0.05) -> Array:
    """-p^gamma log p with p = s(z): a pair the model ranks wrongly weighs less. The factor is differentiated.

    Computed from log p alone, as -exp(gamma log p) log p. gamma = 0 is `logistic`.
    Shapes: margins `[...]`; result `[...]`. `gamma` in [0, inf) (static values are checked).
    """
    checks.number("gamma", gamma, 0.0, closed="left")
    log_p = -jax.nn.softplus(-margins)
    return -jnp.exp(gamma * log_p) * log_p


def hinge(margins: Array, offset: float = 1.0) -> Array:
    """max(0, offset - z): no gradient once the margin has reached the offset.

    Shapes: margins `[...]`; result `[...]`. `offset` in [0, inf) (static values are checked).
    """
    checks.number("offset", offset, 0.0, closed="left")
    return jax.nn.relu(offset - margins)


def sigmoid(margins: Array) -> Array:
    """1 - s(z), computed as s(-z): between 0 and 1, so that a pair far off on either side no longer pulls.

    Shapes: margins `[...]`; result `[...]`.
    """
    return jax.nn.sigmoid(-margins)


def robust(margins: Array, flip_rate: float = 0.1) -> Array:
    """(-(1 - e) log s(z) + e log s(-z)) / (1 - 2e): its mean over labels flipped at rate e is the clean `logistic`.

    Computed as logistic(z) - z e / (1 - 2e), which is the same number without the cancellation. Unbounded below.
    Shapes: margins `[...]`; result `[...]`. `flip_rate` e in [0, 1/2) (static values are checked).
    """
    checks.number("flip_rate", flip_rate, 0.0, 0.5, closed="left")
    return logistic(margins) - margins * (flip_rate / (1 - 2 * flip_rate))


def exponential(margins: Array) -> Array:
    """exp(-z), continued by its tangent where z < -30, since exp(-z) leaves float32 at z = -88.7.

    Shapes: margins `[...]`; result `[...]`.
    """
    return _with_tangent(jnp.exp, 0.0, margins)


def exponential_minus_one(margins: Array) -> Array:
    """`exponential` less one, accurate near z = 0; what `margins.alpha_divergence` is made of."""
    return _with_tangent(jnp.expm1, 1.0, margins)


def _with_tangent(exp_minus, less, margins: Array) -> Array:
    calm = jnp.minimum(-margins, _STEEPEST)  # exp is never evaluated, nor differentiated, where it overflows
    tangent = jnp.exp(_STEEPEST) * (1 - margins - _STEEPEST) - less
    return jnp.where(margins < -_STEEPEST, tangent, exp_minus(calm))


def discopop(margins: Array, tau: float = 0.05) -> Array:
    """(1 - m) * -log s(z) + m * exp(-z) with m = s(z / tau): logistic for wrong pairs, exponential for right ones.

    The second product is computed as exp(log s(z / tau) - z), which is bounded for tau <= 1; exp(-z) alone overflows
    where m is zero. Not convex: for tau = 0.05 it has a local minimum at z = -0.119.
    Shapes: margins `[...]`; result `[...]`. `tau` in (0, 1] (static values are checked).
    """
    checks.number("tau", tau, 0.0, 1.0, closed="right")
    gate = margins / tau
    return jax.nn.sigmoid(-gate) * logistic(margins) + jnp.exp(-jax.nn.softplus(-gate) - margins)


def reverse_kl(margins: Array, label_smoothing: float = 1e-3) -> Array:
    """KL((q, 1 - q) || (1 - e, e)) with q = s(z): the model's preference against a label right with probability 1 - e.

    `logistic` with the same e is the other direction (plus the label's entropy), and has the same minimiser,
    z = log((1 - e) / e).
    Shapes: margins `[...]`; result `[...]`. `label_smoothing` e in (0, 1/2), at 0 it would be infinite (static values
    are checked).
    """
    checks.number("label_smoothing", label_smoothing, 0.0, 0.5)
    log_q, log_other = -jax.nn.softplus(-margins), -jax.nn.softplus(margins)
    right, wrong = log_q - jnp.log1p(-label_smoothing), log_other - jnp.log(label_smoothing)
    return jax.nn.sigmoid(margins) * right + jax.nn.sigmoid(-margins) * wrong
