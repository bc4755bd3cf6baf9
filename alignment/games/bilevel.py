"""PARL: a reward is fitted on data of the policy that is optimal for it, and its gradient has a term through that one.

The lower level here is the KL-regularised bandit, which has a closed form: pi*(y) ~ pi_0(y) exp(phi(y) nu / beta). The
same gradient from an implicit derivative, for lower levels without one, is `bilevel_gradients`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.analysis import kl_regularised_optimum
from alignment.games import preferences as game

Array = jax.Array


class BilevelGradients(NamedTuple):
    """direct: of the labels' likelihood on fixed data; through_policy: of the data's distribution. The sum is whole.

    Shapes: both float32 `[F]`.
    """

    direct: Array
    through_policy: Array


def _lower(parameters: Array, features: Array, reference_logps: Array, beta: float) -> tuple[Array, Array, Array]:
    """Features, rewards and log pi*."""
    (features,), (reference,) = checks.floats(features=features), checks.floats(reference_logps=reference_logps)
    (parameters,) = checks.floats(parameters=parameters)
    checks.number("beta", beta, 0.0)
    if features.ndim != 2 or parameters.shape != features.shape[1:] or reference.shape != features.shape[:1]:
        raise AssertionError(
            f"parameters, features and reference_logps must have shapes (F,), (Y, F) and (Y,), got {parameters.shape}, "
            f"{features.shape} and {reference.shape}"
        )
    rewards = features @ parameters
    return features, rewards, kl_regularised_optimum(reference, rewards, beta=beta)


def _likelihoods(rewards: Array, matrix: Array) -> Array:
    """[Y, Y]: the log-likelihood of the label of each pair, in the mean over labels."""
    margins = rewards[:, None] - rewards[None, :]
    return matrix * jax.nn.log_sigmoid(margins) + (1 - matrix) * jax.nn.log_sigmoid(-margins)


def parl_objective(
    parameters: Array, features: Array, reference_logps: Array, preferences: Array, *, beta: float = 0.5
) -> Array:
    """G(nu) = E of the Bradley-Terry log-likelihood over pairs of the policy pi*_nu, optimal for the reward r_nu.

        r_nu = phi nu,   pi*_nu ~ pi_0 exp(r_nu / beta),   y, y' ~ pi*_nu,   label ~ P[y, y'], which does not know nu

    Args:
      parameters: nu.
      features: phi of the responses.
      reference_logps: log pi_0.
      preferences: P of the annotators, see `check_preferences`.
      beta: of the lower level, in (0, inf).

    Shapes: parameters `[F]`, features `[Y, F]`, reference_logps `[Y]`, preferences `[Y, Y]`; result float32 `[]`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: P is no preference matrix, static beta out of range.

    Paper: Chakraborty et al., 2023, arXiv 2308.02585 (PARL), on a bandit of one prompt.
    """
    _, rewards, policy = _lower(parameters, features, reference_logps, beta)
    matrix, policy = game._game(preferences, policy=policy)
    p = jnp.exp(policy)
    return p @ _likelihoods(rewards, matrix) @ p


def parl_gradients(
    parameters: Array, features: Array, reference_logps: Array, preferences: Array, *, beta: float = 0.5
) -> BilevelGradients:
    """The two terms of the gradient of `parl_objective`, exactly.

        E[grad U] + E[U (phi(y) + phi(y') - 2 E phi)] / beta,   U the log-likelihood of the label of (y, y')

    The first alone is how a reward model is trained on data that are what they are. The second vanishes for a large
    beta, when the policy stays the reference.

    Args:
      parameters, features, reference_logps, preferences, beta: as in `parl_objective`.

    Shapes: parameters `[F]`, features `[Y, F]`, reference_logps `[Y]`, preferences `[Y, Y]`; a `BilevelGradients`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: P is no preference matrix, static beta out of range.

    Paper: Chakraborty et al., 2023, arXiv 2308.02585 (PARL).
    """
    features, rewards, policy = _lower(parameters, features, reference_logps, beta)
    matrix, policy = game._game(preferences, policy=policy)
    p = jnp.exp(policy)
    weights = p[:, None] * p[None, :]
    # d U / d margin = P - s(margin)
    pulls = weights * (matrix - jax.nn.sigmoid(rewards[:, None] - rewards[None, :]))
    values = weights * _likelihoods(rewards, matrix)
    centred = features - p @ features
    return BilevelGradients((pulls.sum(1) - pulls.sum(0)) @ features, (values.sum(1) + values.sum(0)) @ centred / beta)


def parl_sampled_gradients(
    parameters: Array,
    features: Array,
    reference_logps: Array,
    first: Array,
    second: Array,
    labels: Array,
    *,
    beta: float = 0.5,
) -> BilevelGradients:
    """Unbiased estimates of both terms of `parl_gradients` from pairs that pi*_nu drew and annotators labelled.

    A pair's likelihood is taken less the mean of the others', which lowers the variance of the second term and leaves
    its mean.

    Args:
      parameters, features, reference_logps, beta: as in `parl_objective`.
      first, second: numbers of the responses of each pair, drawn from pi*_nu; at least two pairs.
      labels: 1 where the first was preferred, else 0.

    Shapes: parameters `[F]`, features `[Y, F]`, reference_logps `[Y]`, first and second (integer) and labels (float)
    `[N]`; a `BilevelGradients`.

    Raises:
      AssertionError: shapes do not agree or a wrong dtype.
      ValueError: fewer than two pairs, static beta out of range.

    Paper: Chakraborty et al., 2023, arXiv 2308.02585 (PARL).
    """
    features, rewards, policy = _lower(parameters, features, reference_logps, beta)
    checks.integers(first=first, second=second)
    checks.same_shape(first=first, second=second, labels=labels)
    (labels,) = checks.floats(labels=labels)
    if labels.ndim != 1 or len(labels) < 2:
        raise ValueError(f"labels must be of at least 2 pairs, got shape {labels.shape}")
    margins = rewards[first] - rewards[second]
    values = labels * jax.nn.log_sigmoid(margins) + (1 - labels) * jax.nn.log_sigmoid(-margins)
    advantages = (values - jnp.mean(values)) * (len(values) / (len(values) - 1))
    centred = features - jnp.exp(policy) @ features
    direct = (labels - jax.nn.sigmoid(margins)) @ (features[first] - features[second])
    through = advantages @ (centred[first] + centred[second]) / beta
    return BilevelGradients(direct / len(values), through / len(values))


def bilevel_gradients(
    upper: Callable[[Array, Array], Array],
    lower: Callable[[Array, Array], Array],
    parameters: Array,
    solution: Array,
) -> BilevelGradients:
    """Gradient of upper(nu, theta*(nu)), theta* the maximiser of lower(nu, .), by the implicit function theorem.

        grad_nu upper + (d theta* / d nu)^T grad_theta upper
        d theta* / d nu = -[H lower]^-1 d grad_theta lower / d nu

    Directions in which the lower level is flat (a constant added to logits) do not move theta*.

    Args:
      upper: (nu, theta) to a scalar.
      lower: (nu, theta) to a scalar, twice differentiable.
      parameters: nu.
      solution: theta*(nu); a theta that is only near it (a few steps of ascent) gives an approximation.

    Shapes: parameters `[F]`, solution `[D]`; a `BilevelGradients`.

    Raises:
      AssertionError: one is no vector or not floating.

    Paper: Chakraborty et al., 2023, arXiv 2308.02585 (PARL).
    """
    (nu,), (theta,) = checks.floats(parameters=parameters), checks.floats(solution=solution)
    if nu.ndim != 1 or theta.ndim != 1:
        raise AssertionError(f"parameters and solution must be vectors, got {nu.shape} and {theta.shape}")
    direct, of_theta = jax.grad(upper, argnums=(0, 1))(nu, theta)
    hessian = jax.hessian(lower, argnums=1)(nu, theta)
    mixed = jax.jacobian(jax.grad(lower, argnums=1), argnums=0)(nu, theta)  # [D, F]
    moved = -jnp.linalg.pinv(hessian, rtol=1e-5, hermitian=True) @ mixed
    return BilevelGradients(direct, of_theta @ moved)
