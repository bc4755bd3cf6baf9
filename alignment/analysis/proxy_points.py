"""A bandit whose utility turns over while its rewards still rise, with and without constraints at the proxy points.

S states (prompts) with A arms (responses) each, K component rewards of each arm, and a utility that nobody optimises.
The policy is a table of logits that starts at the reference and moves by policy gradient on draws of its own, the same
number in every state. `summed_rewards_bandit` follows the sum of the
rewards, and passes the point where the utility is best; `mu_constrained_bandit` and `xi_constrained_bandit` hold every
reward at (or above) a threshold, with the advantages and the multipliers of `alignment.multi_objective`, and for the
rest stay near the reference. What is recorded is exact, not estimated from the draws. Moskovitz et al., 2023,
arXiv 2310.04373.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.stateful import StatefulKernel
from alignment.multi_objective import constraints

Array = jax.Array


class ConstrainedHistory(NamedTuple):
    """After every step: mean of each reward, mean utility and KL(pi || reference) of the policy, in nats, and the raw
    multipliers (0 where there are none); and the last logits and multipliers, from which to go on.

    Shapes: returns and multipliers `[steps, K]`, utilities and kls `[steps]`, logits `[S, A]`, last `[2, K]`.
    """

    returns: Array
    utilities: Array
    kls: Array
    multipliers: Array
    logits: Array
    last: Array


def turning_utilities(rewards: Array, *, point: float = 1.0, slope: float = 3.0) -> Array:
    """U = min(r_1, point) - slope * max(r_1 - point, 0) + r_2 + ... + r_K: the first reward turns past its point.

    Args:
      rewards: of the arms.
      point: where more of the first reward begins to harm.
      slope: how much it then harms, in (0, inf).

    Shapes: rewards `[..., K]`; result float32 `[...]`.

    Raises:
      AssertionError: rewards are not floating.
      ValueError: static slope out of range.

    Paper: the situation is that of Moskovitz et al., 2023, arXiv 2310.04373; this utility is a choice made here.
    """
    (rewards,) = checks.floats(rewards=rewards)
    checks.number("slope", slope, 0.0)
    first = rewards[..., 0]
    turned = jnp.minimum(first, point) - slope * jnp.maximum(first - point, 0.0)
    return turned + jnp.sum(rewards[..., 1:], axis=-1)


def _experiment(key, logits, reference_logits, rewards, utilities, multipliers, advantages, steps, draws, rate):
    logits, reference, utilities = checks.floats(logits=logits, reference_logits=reference_logits, utilities=utilities)
    (rewards,) = checks.floats(rewards=rewards)
    if logits.ndim != 2:
        raise AssertionError(f"logits must have shape ('S', 'A'), got {logits.shape}")
    checks.leading_shape(utilities=utilities, rewards=rewards)
    for name, value in (("steps", steps), ("draws", draws)):
        checks.positive_integer(name, value)
    checks.number("learning_rate", rate, 0.0)
    reference = jax.nn.log_softmax(reference)
    states = logits.shape[0]

    def drawn(table: Array, arms: Array) -> Array:
        """[S, A] or [S, A, K] at the arms [S, D], flat over the draws."""
        taken = table[jnp.arange(states)[:, None], arms]
        return taken.reshape(-1, *taken.shape[2:])

    def step(carry: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        logits, multipliers = carry
        arms = jax.random.categorical(key, logits, shape=(draws, states)).T
        logps = drawn(jax.nn.log_softmax(logits), arms)
        values, multipliers = advantages(drawn(rewards, arms), logps, drawn(reference, arms), multipliers)
        # A sum over states and a mean over draws: the step of one state does not depend on how many there are.
        gradient = jax.grad(lambda x: jnp.sum(values * drawn(jax.nn.log_softmax(x), arms)) / draws)(logits)
        logits = logits + rate * gradient
        logps = jax.nn.log_softmax(logits)
        pi = jnp.exp(logps) / states
        means = jnp.sum(pi[..., None] * rewards, axis=(0, 1))
        seen = (means, jnp.sum(pi * utilities), jnp.sum(pi * (logps - reference)), multipliers[0])
        return (logits, multipliers), seen

    (logits, multipliers), seen = jax.lax.scan(step, (logits, multipliers), jax.random.split(key, steps))
    return ConstrainedHistory(*seen, logits, multipliers)


def summed_rewards_bandit(
    key: Array,
    logits: Array,
    reference_logits: Array,
    rewards: Array,
    utilities: Array,
    *,
    beta: float = 0.0,
    steps: int = 1000,
    draws: int = 4,
    learning_rate: float = 0.1,
) -> ConstrainedHistory:
    """REINFORCE on sum_k r_k + beta (log ref - log pi), its advantages standardised over the draws of a step.

    Args:
      key: a PRNG key.
      logits: of the policy at the start.
      reference_logits: of the reference.
      rewards: K component rewards of each arm.
      utilities: of the arms; recorded only.
      beta: of the KL penalty, in [0, inf).
      steps, draws: at least 1; draws of each state in a step.
      learning_rate: of plain gradient ascent on the logits, in (0, inf).

    Shapes: logits, reference_logits and utilities `[S, A]`, rewards `[S, A, K]`; a `ConstrainedHistory`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: a static hyperparameter out of range.

    Paper: the unconstrained baseline of Moskovitz et al., 2023, arXiv 2310.04373.
    """
    checks.number("beta", beta, 0.0, closed="left")

    def advantages(rewards, logps, reference, multipliers):
        total = jnp.sum(rewards, axis=-1) + beta * (reference - logps)
        deviation = jnp.std(total)
        centred = total - jnp.mean(total)
        return jnp.where(deviation > 1e-6, centred / jnp.maximum(deviation, 1e-6), 0.0), multipliers

    none = jnp.zeros((2, rewards.shape[-1]), jnp.float32)
    return _experiment(key, logits, reference_logits, rewards, utilities, none, advantages, steps, draws, learning_rate)


def _constrained(
    method: StatefulKernel,
    key,
    logits,
    reference_logits,
    rewards,
    utilities,
    multipliers,
    thresholds,
    multiplier_learning_rate,
    steps,
    draws,
    learning_rate,
) -> ConstrainedHistory:
    """The experiment with the advantages of a constrained kernel, whose multipliers move once per step."""
    settings = {"thresholds": thresholds, "learning_rate": multiplier_learning_rate}

    def advantages(rewards, logps, reference, multipliers):
        there = jnp.ones((*logps.shape, 1), bool)
        state = constraints.MultiplierState(multipliers)
        values, aux = method.loss(rewards, logps[:, None], reference[:, None], there, there[:, 0], state, **settings)
        return values[:, 0], method.update(state, aux, **settings).multipliers

    first = jnp.zeros((2, rewards.shape[-1]), jnp.float32) if multipliers is None else multipliers
    return _experiment(
        key, logits, reference_logits, rewards, utilities, first, advantages, steps, draws, learning_rate
    )


def mu_constrained_bandit(
    key: Array,
    logits: Array,
    reference_logits: Array,
    rewards: Array,
    utilities: Array,
    multipliers: Array | None = None,
    *,
    thresholds: Sequence[float] = (1.0, 1.0),
    multiplier_learning_rate: float = 0.1,
    steps: int = 1000,
    draws: int = 4,
    learning_rate: float = 0.1,
) -> ConstrainedHistory:
    """Policy gradient with `alignment.multi_objective.constrained_rlhf_mu`: every mean reward at least its threshold.

    Args:
      key, logits, reference_logits, rewards, utilities: as in `summed_rewards_bandit`.
      multipliers: raw ones and velocities of a run that goes on; None: 0.
      thresholds: theta, the proxy points, one per reward.
      multiplier_learning_rate: in (0, inf); the multipliers move once per step.
      steps, draws: at least 1.
      learning_rate: of the logits, in (0, inf).

    Shapes: as in `summed_rewards_bandit`, multipliers `[2, K]`; a `ConstrainedHistory`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: thresholds are not K numbers, or a static hyperparameter out of range.

    Paper: Moskovitz et al., 2023, arXiv 2310.04373 (mu-PPO), without its clip, which one step per draw never reaches.
    """
    return _constrained(
        constraints.constrained_rlhf_mu, key, logits, reference_logits, rewards, utilities, multipliers, thresholds,
        multiplier_learning_rate, steps, draws, learning_rate,
    )  # fmt: skip


def xi_constrained_bandit(
    key: Array,
    logits: Array,
    reference_logits: Array,
    rewards: Array,
    utilities: Array,
    multipliers: Array | None = None,
    *,
    thresholds: Sequence[float] = (1.0, 1.0),
    multiplier_learning_rate: float = 0.1,
    steps: int = 1000,
    draws: int = 4,
    learning_rate: float = 0.1,
) -> ConstrainedHistory:
    """The same with `alignment.multi_objective.constrained_rlhf_xi`: every mean reward exactly its threshold.

    Args:
      key, logits, reference_logits, rewards, utilities, multipliers: as in `mu_constrained_bandit`.
      thresholds: theta, the proxy points, one per reward.
      multiplier_learning_rate: in (0, inf).
      steps, draws: at least 1.
      learning_rate: of the logits, in (0, inf).

    Shapes: as in `mu_constrained_bandit`; a `ConstrainedHistory`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: thresholds are not K numbers, or a static hyperparameter out of range.

    Paper: Moskovitz et al., 2023, arXiv 2310.04373 (xi-PPO).
    """
    return _constrained(
        constraints.constrained_rlhf_xi, key, logits, reference_logits, rewards, utilities, multipliers, thresholds,
        multiplier_learning_rate, steps, draws, learning_rate,
    )  # fmt: skip
