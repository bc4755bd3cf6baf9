"""Target distributions on a space that can be listed: p ~ a exp(r / beta), constraints and moments; KL and TV to them.

`alignment.analysis.kl_regularised_optimum` is the target of a reward. Here are the identities around it ("RL with KL
penalties is Bayesian inference"), the targets of constraints (GDC), their partition functions, and how far a policy is
from its target.
"""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.games.preferences import _kl

Array = jax.Array


def kl_divergence(first_logps: Array, second_logps: Array) -> Array:
    """KL(p || q), in nats; infinite where q has no mass and p has.

    Args:
      first_logps, second_logps: log p and log q, normalised; -inf stands for no mass.

    Shapes: both `[..., Y]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.

    Paper: tracked by Khalifa et al., 2020, arXiv 2012.11635.
    """
    return _kl(*checks.floats(first_logps=first_logps, second_logps=second_logps))


def total_variation(first_logps: Array, second_logps: Array) -> Array:
    """TV(p, q) = 1/2 sum of |p - q|, in [0, 1].

    Args:
      first_logps, second_logps: log p and log q, normalised; -inf stands for no mass.

    Shapes: both `[..., Y]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.

    Paper: tracked by Khalifa et al., 2020, arXiv 2012.11635.
    """
    first, second = checks.floats(first_logps=first_logps, second_logps=second_logps)
    return 0.5 * jnp.sum(jnp.abs(jnp.exp(first) - jnp.exp(second)), axis=-1)


# ------------------------------------------------------------------------------------- KL-regularised RL as inference


def kl_rl_objective(policy_logps: Array, reference_logps: Array, rewards: Array, *, beta: float = 0.1) -> Array:
    """J = E_pi[r] - beta KL(pi || pi_0) = beta log Z - beta KL(pi || p*), p* ~ pi_0 exp(r / beta).

    J / beta is the evidence lower bound of a prior pi_0 and a likelihood of exp(r / beta). The identity is one of whole
    sequences; it does not hold token by token.

    Args:
      policy_logps: log pi.
      reference_logps: log pi_0.
      rewards: of the responses, finite.
      beta: in (0, inf).

    Shapes: all `[..., Y]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.
      ValueError: static beta out of range.

    Paper: Korbak et al., 2022, arXiv 2205.11275.
    """
    policy, reference, rewards = checks.floats(
        policy_logps=policy_logps, reference_logps=reference_logps, rewards=rewards
    )
    checks.number("beta", beta, 0.0)
    return jnp.sum(jnp.exp(policy) * rewards, axis=-1) - beta * _kl(policy, reference)


def kl_rl_log_partition(reference_logps: Array, rewards: Array, *, beta: float = 0.1) -> Array:
    """log Z = log sum over y of pi_0(y) exp(r(y) / beta); beta log Z is the largest `kl_rl_objective`.

    Args:
      reference_logps: log pi_0.
      rewards: of the responses.
      beta: in (0, inf).

    Shapes: both `[..., Y]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.
      ValueError: static beta out of range.

    Paper: Korbak et al., 2022, arXiv 2205.11275.
    """
    reference, rewards = checks.floats(reference_logps=reference_logps, rewards=rewards)
    checks.number("beta", beta, 0.0)
    return jax.nn.logsumexp(reference + rewards / beta, axis=-1)


# --------------------------------------------------------------------------------------------- constraints (GDC)


def gdc_pointwise_target(reference_logps: Array, satisfied: Array) -> Array:
    """log p, p(y) ~ a(y) b(y): the base model on the responses that satisfy a constraint, -inf on the others.

    What a binary feature with moment 1 stands for, whose coefficient in `gdc_moment_target` would be infinite.

    Args:
      reference_logps: log a.
      satisfied: b, bool; at least one response of each row, or the row is NaN.

    Shapes: both `[..., Y]`; result float32 `[..., Y]`.

    Raises:
      AssertionError: shapes differ, reference_logps not floating or satisfied not bool.

    Paper: Khalifa et al., 2020, arXiv 2012.11635 (GDC).
    """
    (reference,) = checks.floats(reference_logps=reference_logps)
    checks.boolean(satisfied=satisfied)
    checks.same_shape(reference_logps=reference, satisfied=satisfied)
    kept = jnp.where(satisfied, reference, -jnp.inf)
    return kept - jax.nn.logsumexp(kept, axis=-1, keepdims=True)


def gdc_moment_target(reference_logps: Array, features: Array, coefficients: Array) -> Array:
    """log p, p(y) ~ a(y) exp(sum over k of lam_k phi_k(y)): the closest policy to a in KL with its moments.

    Args:
      reference_logps: log a.
      features: phi.
      coefficients: lam, see `gdc_coefficients`.

    Shapes: reference_logps `[..., Y]`, features `[..., Y, F]`, coefficients `[..., F]`; result float32 `[..., Y]`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.

    Paper: Khalifa et al., 2020, arXiv 2012.11635 (GDC).
    """
    reference, features, coefficients = _energy(reference_logps, features, coefficients=coefficients)
    return jax.nn.log_softmax(reference + jnp.einsum("...yf,...f->...y", features, coefficients))


def _energy(reference_logps: Array, features: Array, **per_feature: Array) -> tuple[Array, Array, Array]:
    (reference,), (features,) = checks.floats(reference_logps=reference_logps), checks.floats(features=features)
    (values,) = checks.floats(**per_feature)
    checks.leading_shape(reference_logps=reference, features=features)
    name = next(iter(per_feature))
    if values.shape != (*features.shape[:-2], features.shape[-1]):
        raise AssertionError(
            f"{name} must have shape {(*features.shape[:-2], features.shape[-1])} to go with features "
            f"{features.shape}, got {values.shape}"
        )
    return reference, features, values


def gdc_coefficients(reference_logps: Array, features: Array, moments: Array, *, steps: int = 50) -> Array:
    """lam with E_p[phi] = m for p of `gdc_moment_target`: the minimiser of log sum a exp(lam phi) - lam m, by Newton.

    The dual is convex with gradient E_p[phi] - m and Hessian Cov_p(phi); steps are damped where the features move a lot
    (1 / (1 + lambda), lambda the Newton decrement), which is full steps near the solution. Features that are constant
    or linearly dependent get the smallest step that fits. Compare E_p[phi] of the result with the moments: outside
    of the convex hull of the features there is no solution, and lam runs away.

    Args:
      reference_logps: log a.
      features: phi.
      moments: m, the means that the target is to have.
      steps: of Newton's method, at least 1.

    Shapes: reference_logps `[..., Y]`, features `[..., Y, F]`, moments `[..., F]`; result float32 `[..., F]`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: steps below 1.

    Paper: Khalifa et al., 2020, arXiv 2012.11635 (GDC), whose stochastic gradient is `gdc_sampled_coefficients`.
    """
    reference, features, moments = _energy(reference_logps, features, moments=moments)
    checks.positive_integer("steps", steps)

    def newton(coefficients, _):
        p = jnp.exp(gdc_moment_target(reference, features, coefficients))
        means = jnp.einsum("...y,...yf->...f", p, features)
        centred = features - means[..., None, :]
        covariance = jnp.einsum("...y,...yf,...yg->...fg", p, centred, centred)
        off = means - moments
        step = jnp.einsum("...fg,...g->...f", jnp.linalg.pinv(covariance, rtol=1e-6, hermitian=True), off)
        decrement = jnp.sqrt(jnp.maximum(jnp.sum(step * off, axis=-1, keepdims=True), 0.0))
        return coefficients - step / (1 + decrement), None

    return jax.lax.scan(newton, jnp.zeros_like(moments), None, length=steps)[0]


def _weights(proposal_logps: Array, reference_logps: Array, features: Array, coefficients: Array) -> Array:
    """log P(x) / q(x) of samples."""
    return reference_logps - proposal_logps + jnp.einsum("...nf,...f->...n", features, coefficients)


def gdc_sampled_coefficients(
    proposal_logps: Array,
    reference_logps: Array,
    features: Array,
    moments: Array,
    *,
    learning_rate: float = 0.05,
    steps: int = 1000,
) -> Array:
    """lam from samples x ~ q: lam falls by learning_rate times (moments estimated by importance weights less m).

    The weights are w = a exp(lam phi) / q, normalised over the samples. The reachable moments are those of the sample.

    Args:
      proposal_logps: log q of the samples.
      reference_logps: log a of the samples.
      features: phi of the samples.
      moments: m.
      learning_rate: in (0, inf).
      steps: at least 1.

    Shapes: both log-probs `[..., N]`, features `[..., N, F]`, moments `[..., F]`; result float32 `[..., F]`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Khalifa et al., 2020, arXiv 2012.11635 (GDC). As the official code (naver/disco) does it, with 512 samples,
    but a fixed number of steps in the place of a tolerance.
    """
    proposal, reference = checks.floats(proposal_logps=proposal_logps, reference_logps=reference_logps)
    reference, features, moments = _energy(reference, features, moments=moments)
    checks.number("learning_rate", learning_rate, 0.0)
    checks.positive_integer("steps", steps)

    def step(coefficients, _):
        w = jax.nn.softmax(_weights(proposal, reference, features, coefficients))
        return coefficients - learning_rate * (jnp.einsum("...n,...nf->...f", w, features) - moments), None

    return jax.lax.scan(step, jnp.zeros_like(moments), None, length=steps)[0]


def gdc_log_partition(proposal_logps: Array, unnormalised_logps: Array) -> Array:
    """log of the mean of P(x) / q(x) over samples x ~ q, an unbiased estimate of Z = sum of P (before the log).

    Args:
      proposal_logps: log q of the samples.
      unnormalised_logps: log P of the samples, log a + r / beta or log a + lam phi; -inf where a constraint fails.

    Shapes: both `[..., N]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.

    Paper: Khalifa et al., 2020, arXiv 2012.11635 (GDC).
    """
    proposal, target = checks.floats(proposal_logps=proposal_logps, unnormalised_logps=unnormalised_logps)
    return jax.nn.logsumexp(target - proposal, axis=-1) - jnp.log(float(target.shape[-1]))


def effective_sample_size(proposal_logps: Array, unnormalised_logps: Array) -> Array:
    """(sum of w)^2 / sum of w^2, w = P / q: how many of the N samples the weighted estimates rest on, in [1, N].

    Args:
      proposal_logps: log q of the samples.
      unnormalised_logps: log P of the samples; -inf where a constraint fails, but not everywhere.

    Shapes: both `[..., N]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.

    Paper: Khalifa et al., 2020, arXiv 2012.11635 (GDC); the measure is standard practice.
    """
    proposal, target = checks.floats(proposal_logps=proposal_logps, unnormalised_logps=unnormalised_logps)
    return 1 / jnp.sum(jnp.square(jax.nn.softmax(target - proposal)), axis=-1)
