"""Why samples of the policy itself and negative gradients help: a bandit small enough to compute everything.

One state, K arms, a softmax policy that starts at the reference, and a reward that peaks where the reference has little
mass. `offline_bandit` trains on draws of the reference, `on_policy_bandit` on draws of the policy as it is at the start
of each round; both take any objective of this module and reuse a draw for a number of inner steps. Beside them stand
the exact gradients of the two KLs to the optimum, for the argument about covering and seeking modes. That argument is
about updates from samples: with exact gradients reverse KL is the *slower* of the two when the peak is far away.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses import links

Array = jax.Array
_stop = jax.lax.stop_gradient


class BanditHistory(NamedTuple):
    """After every inner step: the mean reward and KL(pi || reference) of the policy, and the last logits.

    Shapes: rewards and kls `[rounds, inner_steps]`, logits `[K]`.
    """

    rewards: Array
    kls: Array
    logits: Array


def peak_rewards(arms: Array, optimum: Array, width: Array) -> Array:
    """R(a) = exp(-((a - optimum) / width)^2).

    Args:
      arms: the number of each arm, as a float.
      optimum: the arm with reward 1.
      width: of the peak.

    Shapes: arms `[..., K]`, optimum and width `[...]`; result float32 `[..., K]`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.

    Paper: Tajwar et al., 2024, arXiv 2404.14367, with 100 arms and width 10.
    """
    (arms,) = checks.floats(arms=arms)
    optimum, width = checks.floats(optimum=optimum, width=width)
    checks.leading_shape(optimum=optimum, arms=arms)
    return jnp.exp(-jnp.square((arms - optimum[..., None]) / width[..., None]))


def kl_regularised_optimum(reference_logps: Array, rewards: Array, *, beta: float = 0.1) -> Array:
    """log p*, p* ~ reference * exp(R / beta): the policy of the largest E[R] - beta * KL(pi || reference).

    Args:
      reference_logps: log-probs of the arms.
      rewards: of the arms.
      beta: in (0, inf).

    Shapes: both `[..., K]`; result float32 `[..., K]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.
      ValueError: static beta out of range.

    Paper: Tajwar et al., 2024, arXiv 2404.14367.
    """
    reference, rewards = checks.floats(reference_logps=reference_logps, rewards=rewards)
    checks.number("beta", beta, 0.0)
    return jax.nn.log_softmax(reference + rewards / beta)


def forward_kl_gradient(logits: Array, target_logps: Array) -> Array:
    """Gradient of KL(p* || pi) with respect to the logits of pi: pi_j - p*_j.

    Covers modes: bounded by 1, and large wherever the target has mass that the policy lacks.

    Args:
      logits: of the policy.
      target_logps: log p*.

    Shapes: both `[..., K]`; result float32 `[..., K]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.

    Paper: Tajwar et al., 2024, arXiv 2404.14367.
    """
    logits, target = checks.floats(logits=logits, target_logps=target_logps)
    return jax.nn.softmax(logits) - jnp.exp(target)


def reverse_kl_gradient(logits: Array, target_logps: Array) -> Array:
    """Gradient of KL(pi || p*) with respect to the logits of pi: pi_j * (log(pi_j / p*_j) - KL(pi || p*)).

    Seeks modes: scaled by pi_j, so it makes mass slowly where there is none.

    Args:
      logits: of the policy.
      target_logps: log p*, finite.

    Shapes: both `[..., K]`; result float32 `[..., K]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.

    Paper: Tajwar et al., 2024, arXiv 2404.14367.
    """
    logits, target = checks.floats(logits=logits, target_logps=target_logps)
    ratios = jax.nn.log_softmax(logits) - target
    pi = jax.nn.softmax(logits)
    return pi * (ratios - jnp.sum(pi * ratios, axis=-1, keepdims=True))


def _samples(policy_logps: Array, reference_logps: Array, rewards: Array) -> tuple[Array, Array, Array]:
    policy, reference, rewards = checks.floats(
        policy_logps=policy_logps, reference_logps=reference_logps, rewards=rewards
    )
    return policy, _stop(reference), _stop(rewards)


def _at(values: Array, where: Array) -> Array:
    return jnp.take_along_axis(values, where[..., None], axis=-1)[..., 0]


def best_of_n_objective(policy_logps: Array, reference_logps: Array, rewards: Array) -> Array:
    """Best of N: -log pi of the sample with the largest reward. Maximum likelihood, no negative gradient.

    Args:
      policy_logps: log-prob of each sample. Trained.
      reference_logps: not used; all objectives here take the same three.
      rewards: of each sample. Held fixed.

    Shapes: all `[..., N]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.

    Paper: Tajwar et al., 2024, arXiv 2404.14367.
    """
    policy, _, rewards = _samples(policy_logps, reference_logps, rewards)
    return -_at(policy, jnp.argmax(rewards, axis=-1))


def reward_weighted_objective(
    policy_logps: Array, reference_logps: Array, rewards: Array, *, beta: float = 0.1
) -> Array:
    """Reward-weighted regression: -(1 / N) * sum of exp((R - 1) / beta) * log pi.

    The constant exp(-1 / beta), for rewards of at most 1, only keeps the numbers small. It is one constant for all
    draws: dividing by the largest weight of a draw would have a poor draw count as much as a good one.

    Args:
      policy_logps: log-prob of each sample. Trained.
      reference_logps: not used.
      rewards: of each sample. Held fixed.
      beta: in (0, inf).

    Shapes: all `[..., N]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.
      ValueError: static beta out of range.

    Paper: Tajwar et al., 2024, arXiv 2404.14367, without the constant.
    """
    policy, _, rewards = _samples(policy_logps, reference_logps, rewards)
    checks.number("beta", beta, 0.0)
    weights = jnp.exp((rewards - 1) / beta)
    return -jnp.mean(weights * policy, axis=-1)


def best_of_n_with_negatives_objective(
    policy_logps: Array, reference_logps: Array, rewards: Array, *, beta: float = 0.1
) -> Array:
    """Best of N that also pushes the rest down: -log pi(best) + beta * mean of log pi over the others.

    Args:
      policy_logps: log-prob of each sample, at least two. Trained.
      reference_logps: not used.
      rewards: of each sample. Held fixed.
      beta: weight of the negative gradient, in (0, inf).

    Shapes: all `[..., N]`; result float32 `[...]`; unbounded below.

    Raises:
      AssertionError: shapes differ or an array is not floating.
      ValueError: static beta out of range.

    Paper: Tajwar et al., 2024, arXiv 2404.14367.
    """
    policy, _, rewards = _samples(policy_logps, reference_logps, rewards)
    checks.number("beta", beta, 0.0)
    best = _at(policy, jnp.argmax(rewards, axis=-1))
    return -best + beta * (jnp.sum(policy, axis=-1) - best) / max(policy.shape[-1] - 1, 1)


def _best_margin(policy_logps: Array, reference_logps: Array, rewards: Array) -> Array:
    """Log-ratio margin of the best of the samples over the worst."""
    policy, reference, rewards = _samples(policy_logps, reference_logps, rewards)
    ratios = policy - reference
    return _at(ratios, jnp.argmax(rewards, axis=-1)) - _at(ratios, jnp.argmin(rewards, axis=-1))


def dpo_objective(policy_logps: Array, reference_logps: Array, rewards: Array, *, beta: float = 0.1) -> Array:
    """DPO on the best and the worst of the samples: -log s(beta * h).

    Args:
      policy_logps: log-prob of each sample. Trained.
      reference_logps: the same under the reference. Held fixed.
      rewards: of each sample. Held fixed.
      beta: in (0, inf).

    Shapes: all `[..., N]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.
      ValueError: static beta out of range.

    Paper: Tajwar et al., 2024, arXiv 2404.14367.
    """
    checks.number("beta", beta, 0.0)
    return links.logistic(beta * _best_margin(policy_logps, reference_logps, rewards))


def ipo_objective(policy_logps: Array, reference_logps: Array, rewards: Array, *, beta: float = 0.1) -> Array:
    """IPO on the best and the worst of the samples: (h - 1 / (2 beta))^2.

    Args:
      policy_logps: log-prob of each sample. Trained.
      reference_logps: the same under the reference. Held fixed.
      rewards: of each sample. Held fixed.
      beta: in (0, inf).

    Shapes: all `[..., N]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.
      ValueError: static beta out of range.

    Paper: Tajwar et al., 2024, arXiv 2404.14367.
    """
    checks.number("beta", beta, 0.0)
    return jnp.square(_best_margin(policy_logps, reference_logps, rewards) - 1 / (2 * beta))


def reinforce_objective(policy_logps: Array, reference_logps: Array, rewards: Array) -> Array:
    """REINFORCE: -(1 / N) * sum of A * log pi, A the reward less the mean reward of the other samples.

    The leave-one-out baseline keeps a step on the policy's own draw unbiased; dividing by the standard deviation, as
    "normalised" rewards often are, would not.

    Args:
      policy_logps: log-prob of each sample, at least two. Trained.
      reference_logps: not used.
      rewards: of each sample. Held fixed.

    Shapes: all `[..., N]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.

    Paper: Tajwar et al., 2024, arXiv 2404.14367.
    """
    policy, _, rewards = _samples(policy_logps, reference_logps, rewards)
    size = rewards.shape[-1]
    advantages = (rewards - jnp.mean(rewards, axis=-1, keepdims=True)) * (size / max(size - 1, 1))
    return -jnp.mean(advantages * policy, axis=-1)


def _experiment(key, reference_logits, rewards, objective, sampler_of, rounds, inner_steps, samples, learning_rate):
    (reference,), (rewards,) = checks.floats(reference_logits=reference_logits), checks.floats(rewards=rewards)
    checks.same_shape(reference_logits=reference, rewards=rewards)
    for name, value in (("rounds", rounds), ("inner_steps", inner_steps), ("samples", samples)):
        checks.positive_integer(name, value)
    checks.number("learning_rate", learning_rate, 0.0)
    reference_logps = jax.nn.log_softmax(reference)

    def one_round(logits: Array, key: Array) -> tuple[Array, tuple[Array, Array]]:
        arms = jax.random.categorical(key, sampler_of(logits, reference_logps), shape=(samples,))

        def loss(logits: Array) -> Array:
            return objective(jax.nn.log_softmax(logits)[arms], reference_logps[arms], rewards[arms])

        def inner(logits: Array, _: Any) -> tuple[Array, tuple[Array, Array]]:
            logits = logits - learning_rate * jax.grad(loss)(logits)
            logps = jax.nn.log_softmax(logits)
            pi = jnp.exp(logps)
            return logits, (pi @ rewards, pi @ (logps - reference_logps))

        return jax.lax.scan(inner, logits, None, length=inner_steps)

    logits, (mean_rewards, kls) = jax.lax.scan(one_round, reference, jax.random.split(key, rounds))
    return BanditHistory(mean_rewards, kls, logits)


def offline_bandit(
    key: Array,
    reference_logits: Array,
    rewards: Array,
    *,
    objective: Callable[[Array, Array, Array], Array] = best_of_n_objective,
    rounds: int = 1500,
    inner_steps: int = 1,
    samples: int = 10,
    learning_rate: float = 0.1,
) -> BanditHistory:
    """Trains on draws of the reference: every round N arms from it, `inner_steps` gradient steps on them.

    Args:
      key: a PRNG key; the same one gives `on_policy_bandit` the same noise.
      reference_logits: of the reference, where the policy starts.
      rewards: of the arms.
      objective: (log pi, log reference, rewards) of the samples, each `[N]`, to a loss `[]`.
      rounds, inner_steps, samples: at least 1; T = inner_steps is how often a draw is reused.
      learning_rate: of plain gradient descent on the logits, in (0, inf).

    Shapes: logits and rewards `[K]`; a `BanditHistory`.

    Raises:
      AssertionError: shapes differ or an array is not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Tajwar et al., 2024, arXiv 2404.14367. The step size and plain descent are choices made here.
    """
    return _experiment(
        key, reference_logits, rewards, objective, lambda _, reference: reference, rounds, inner_steps, samples,
        learning_rate,
    )  # fmt: skip


def on_policy_bandit(
    key: Array,
    reference_logits: Array,
    rewards: Array,
    *,
    objective: Callable[[Array, Array, Array], Array] = best_of_n_objective,
    rounds: int = 1500,
    inner_steps: int = 1,
    samples: int = 10,
    learning_rate: float = 0.1,
) -> BanditHistory:
    """Trains on draws of the policy: every round N arms from it as it then is, `inner_steps` gradient steps on them.

    The first round is that of `offline_bandit`, the policy being the reference.

    Args:
      key: a PRNG key.
      reference_logits: of the reference, where the policy starts.
      rewards: of the arms.
      objective: (log pi, log reference, rewards) of the samples, each `[N]`, to a loss `[]`.
      rounds, inner_steps, samples: at least 1; with inner_steps = 1 every step is on-policy.
      learning_rate: of plain gradient descent on the logits, in (0, inf).

    Shapes: logits and rewards `[K]`; a `BanditHistory`.

    Raises:
      AssertionError: shapes differ or an array is not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Tajwar et al., 2024, arXiv 2404.14367.
    """
    return _experiment(
        key, reference_logits, rewards, objective, lambda logits, _: logits, rounds, inner_steps, samples,
        learning_rate,
    )  # fmt: skip
