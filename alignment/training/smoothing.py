"""Gradients that make a forget loss low in a whole neighbourhood, so that the forgotten is harder to learn again.

Five smoothers of a function L of parameters: the gradient at the worst nearby weights (SAM), the mean over noise (RS),
a penalty on the gradient's norm (GP), one on the curvature along it (CR), and the average of the iterates (WA, in
`alignment.training.optimizer`). Only the forget terms are smoothed; the retain terms keep their gradient at the current
weights. `make_gradient` brings that into a training step.

Fan et al., 2025, arXiv 2502.05374. In its code the norms of GP and CR are accumulated as Python numbers, so that these
penalties have no gradient; here they have, by second derivatives (a derivative along a direction, no matrix).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from alignment import checks, objective, statistics
from alignment.training import step

Array = jax.Array
KINDS = ("sam", "randomized_smoothing", "gradient_penalty", "curvature_penalty")
EPSILON = 1e-12  # in a norm, where the gradient is 0


def _along(params: Any, direction: Any, scale: float | Array = 1.0) -> Any:
    return jax.tree.map(lambda p, d: p + (scale * d).astype(p.dtype), params, direction)


def _unit(tree: Any) -> Any:
    norm = optax.global_norm(tree)
    return jax.tree.map(lambda x: x / (norm + EPSILON), tree)


def sam_gradient(gradient: Callable[[Any], Any], params: Any, *, rho: float = 0.01) -> Any:
    """grad L(theta + rho g / |g|), g = grad L(theta): to first order the gradient of L + rho |grad L|.

    One norm over all parameters. No gradient passes through the step. For L = x'Ax / 2 it is g + rho A g / |g|.

    Args:
      gradient: of L.
      params: theta.
      rho: radius, in [0, inf); 0 is the plain gradient.

    Raises:
      ValueError: a static rho out of range.

    Paper: Fan et al., 2025, arXiv 2502.05374; Foret et al., 2020, arXiv 2010.01412. optax.contrib.sam perturbs all of
      a loss and takes two steps of the loop; here one term is perturbed, within the step.
    """
    checks.number("rho", rho, 0.0, closed="left")
    return gradient(_along(params, _unit(gradient(params)), rho))


def randomized_smoothing_gradient(gradient: Callable[[Any], Any], params: Any, noises: Any) -> Any:
    """Mean of grad L(theta + d) over K noises: the gradient of E[L(theta + d)], estimated.

    Args:
      gradient: of L.
      params: theta.
      noises: like the parameters, with a leading axis of K (`gaussian_noises`). A noise and its negative together make
        it exact for quadratic L.

    Paper: Fan et al., 2025, arXiv 2502.05374 (K = 3). Its code takes an optimizer step inside
      the mean.
    """
    count = jax.tree.leaves(noises)[0].shape[0]

    def add(total, noise):
        return jax.tree.map(lambda t, g: t + g / count, total, gradient(_along(params, noise))), None

    return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), noises)[0]


def gaussian_noises(key: Array, params: Any, *, sigma: float = 1e-4, draws: int = 3) -> Any:
    """`draws` independent noises of deviation `sigma` for every parameter, with a leading axis.

    Raises:
      ValueError: sigma outside [0, inf), or draws below 1.
    """
    checks.number("sigma", sigma, 0.0, closed="left")
    checks.positive_integer("draws", draws)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    drawn = [sigma * jax.random.normal(k, (draws, *x.shape), x.dtype) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, drawn)


def gradient_penalty_gradient(gradient: Callable[[Any], Any], params: Any, *, rho: float = 10.0) -> Any:
    """Gradient of L + rho |grad L|: g + rho H g / |g|, H the Hessian.

    Args:
      gradient: of L, itself differentiable forward.
      params: theta.
      rho: in [0, inf); 0 is the plain gradient.

    Raises:
      ValueError: a static rho out of range.

    Paper: Fan et al., 2025, arXiv 2502.05374.
    """
    checks.number("rho", rho, 0.0, closed="left")
    g = gradient(params)
    return _along(g, jax.jvp(gradient, (params,), (_unit(g),))[1], rho)


def curvature_penalty_gradient(
    gradient: Callable[[Any], Any], params: Any, *, rho: float = 10.0, mu: float = 0.01
) -> Any:
    """Gradient of L + rho |grad L(theta + mu v) - grad L(theta)|, v = g / |g| held fixed.

    g + rho [H(theta + mu v) - H(theta)] u, u the unit vector of the difference. For L = x'Ax / 2 the penalty is
    rho mu |A g| / |g|, which with v held has no gradient.

    Args:
      gradient: of L, itself differentiable forward.
      params: theta.
      rho: in [0, inf); 0 is the plain gradient.
      mu: how far the second gradient is taken, in (0, inf).

    Raises:
      ValueError: a static number out of range.

    Paper: Fan et al., 2025, arXiv 2502.05374.
    """
    checks.number("rho", rho, 0.0, closed="left")
    checks.number("mu", mu, 0.0)
    g = gradient(params)
    ahead = _along(params, _unit(g), mu)
    u = _unit(jax.tree.map(jnp.subtract, gradient(ahead), g))
    there, here = (jax.jvp(gradient, (at,), (u,))[1] for at in (ahead, params))
    return _along(g, jax.tree.map(jnp.subtract, there, here), rho)


def is_forget(term: objective.Term) -> bool:
    """Whether the term trains the policy on what is to be forgotten."""
    parsed = map(statistics.parse, term.arguments)
    return any(p.whose == "policy" and p.side == "forget" for p in parsed)


def make_gradient(
    losses: Callable, terms: tuple[objective.Term, ...], kind: str, settings: Mapping[str, Any]
) -> Callable:
    """What `step.make_update` descends: the smoothed gradient of the forget terms plus the plain one of the others.

    `losses` as `step.make_losses` makes them; `settings` are the section `config.smoothing`. The noise of randomised
    smoothing follows from the batch's `random_bits`, which training makes anew at every step (`draws_from_rng`). Loss
    and metrics are those at the current weights. ValueError if no term of the objective is a forget term.
    """
    if kind not in KINDS:
        raise ValueError(f"config.training.gradient: {kind!r} is not one of {', '.join(KINDS)}")
    forget = [is_forget(term) for term in terms]
    if not any(forget):
        raise ValueError(f"config.training.gradient: {kind!r} smooths terms that read policy_forget_..., and none does")

    def gradient(params, frozen_params, method_state, denominators, rows):
        def loss_of(params, chosen):
            sums, logged, kept = losses(params, frozen_params, method_state, rows)
            parts = step.divide(sums, denominators)
            of_chosen = [t.weight * parts[t.name] for t, c in zip(terms, chosen, strict=True) if c]
            return sum(of_chosen, start=jnp.zeros(())), (parts, logged, kept)

        plain = jax.grad(lambda p: loss_of(p, forget)[0])
        (_, aux), rest = jax.value_and_grad(loss_of, has_aux=True)(params, [not f for f in forget])
        if kind == "sam":
            smoothed = sam_gradient(plain, params, rho=settings["rho"])
        elif kind == "randomized_smoothing":
            key = jax.random.key(rows["seeds"].reshape(-1)[0])
            noises = gaussian_noises(key, params, sigma=settings["sigma"], draws=settings["draws"])
            smoothed = randomized_smoothing_gradient(plain, params, noises)
        elif kind == "gradient_penalty":
            smoothed = gradient_penalty_gradient(plain, params, rho=settings["rho"])
        else:
            smoothed = curvature_penalty_gradient(plain, params, rho=settings["rho"], mu=settings["mu"])
        loss = sum(t.weight * aux[0][t.name] for t in terms)
        return (loss, aux), jax.tree.map(jnp.add, smoothed, rest)

    return gradient
