"""Maximum likelihood of a model without a normaliser, whose partition function is estimated from samples of noise."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks

Array = jax.Array


class MecoRun(NamedTuple):
    params: Any
    log_partition: Array  # log u, the tracked estimate of the partition function
    path: Any  # parameters after every step


def unnormalized_nll(data_scores: Array, noise_scores: Array, noise_logps: Array) -> Array:
    """-mean f(x) + log mean exp(f(x~) - log q(x~)): the negative log-likelihood, x~ drawn from q.

    A constant added to f changes nothing. The importance weights explode where q has no mass that the model has.

    Args:
      data_scores: f(x) of the data `[N]`.
      noise_scores, noise_logps: f(x~) and log q(x~) of samples of q `[M]`.

    Raises:
      AssertionError: the two of the noise differ in shape, or not floating.

    Paper: Jiang et al., 2023, Learning Unnormalized Statistical Models via Compositional Optimization (ICML).
    """
    (data,) = checks.floats(data_scores=data_scores)
    noise, logq = checks.floats(noise_scores=noise_scores, noise_logps=noise_logps)
    return -jnp.mean(data) + jax.nn.logsumexp(noise - logq) - jnp.log(noise.size)


def nce_loss(
    data_scores: Array, data_noise_logps: Array, noise_scores: Array, noise_logps: Array, log_partition: Array
) -> Array:
    """-mean log s(f(x) - log c - log q(x)) - mean log s(-(f(x~) - log c - log q(x~))): data against noise.

    log c is a parameter of its own, and takes up what the model's constant is. Where q is far from the data the loss is
    flat around its minimum. 2 log 2 where f - log c = log q.

    Args:
      data_scores, data_noise_logps: f(x) and log q(x) of the data `[N]`.
      noise_scores, noise_logps: f(x~) and log q(x~) of samples of q `[M]`.
      log_partition: log c `[]`.

    Raises:
      AssertionError: shapes do not go together, or not floating.

    Paper: Gutmann and Hyvarinen, 2010, Noise-contrastive estimation (AISTATS), with as much noise as data.
    """
    data, data_q = checks.floats(data_scores=data_scores, data_noise_logps=data_noise_logps)
    noise, noise_q = checks.floats(noise_scores=noise_scores, noise_logps=noise_logps)
    of_data, of_noise = data - log_partition - data_q, noise - log_partition - noise_q
    return jnp.mean(jax.nn.softplus(-of_data)) + jnp.mean(jax.nn.softplus(of_noise))


def meco(
    score: Callable[[Any, Array], Array],
    noise_logp: Callable[[Array], Array],
    params: Any,
    data: Array,
    noise: Array,
    *,
    gamma: float = 0.5,
    momentum: float = 0.5,
    rate: float = 0.1,
) -> MecoRun:
    """Stochastic maximum likelihood that tracks the partition function, so that small batches of noise suffice.

        u <- (1 - gamma) u + gamma mean exp(f(x~) - log q(x~))
        v <- (1 - b) v + b [-mean grad f(x) + mean exp(f(x~) - log q(x~)) / u grad f(x~)],   theta <- theta - rate v

    With gamma = b = 1 it is the gradient of the batch's `unnormalized_nll`. log u is what is kept; the first batch
    begins it.

    Args:
      score: (params, x) -> f(x), `[N]` for a batch of N.
      noise_logp: x -> log q(x).
      params: where to begin.
      data, noise: a batch of each for every step, `[steps, N, ...]` and `[steps, M, ...]`.
      gamma, momentum: in (0, 1].
      rate: learning rate, in (0, inf).

    Raises:
      ValueError: a static number out of range.

    Paper: Jiang et al., 2023 (see `unnormalized_nll`).
    """
    checks.number("gamma", gamma, 0.0, 1.0, closed="right")
    checks.number("momentum", momentum, 0.0, 1.0, closed="right")
    checks.number("rate", rate, 0.0)

    def log_mean(params, x):
        return jax.nn.logsumexp(score(params, x) - noise_logp(x)) - jnp.log(x.shape[0])

    def step(carry, batch):
        params, log_u, v = carry
        x, x_noise = batch
        log_u = jnp.logaddexp(jnp.log1p(-gamma) + log_u, jnp.log(gamma) + log_mean(params, x_noise))

        def surrogate(params):
            shares = jax.lax.stop_gradient(jnp.exp(score(params, x_noise) - noise_logp(x_noise) - log_u))
            return -jnp.mean(score(params, x)) + jnp.mean(shares * score(params, x_noise))

        v = jax.tree.map(lambda v, g: (1 - momentum) * v + momentum * g, v, jax.grad(surrogate)(params))
        params = jax.tree.map(lambda p, v: p - rate * v, params, v)
        return (params, log_u, v), params

    start = (params, log_mean(params, noise[0]), jax.tree.map(jnp.zeros_like, params))
    (params, log_u, _), path = jax.lax.scan(step, start, (data, noise))
    return MecoRun(params, log_u, path)
