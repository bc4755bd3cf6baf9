"""Iterations that find the Nash policy of a preference game by playing it against themselves, exactly.

Every solver is a pure function under `lax.scan`; `vmap` runs it over games, seeds or step sizes. It returns all
policies that were played and their running averages, because the papers promise convergence of the one or the other.
Papers disagree on which way up a step size is: `eta` of `omd_self_play` and `inpo_self_play` divides the win rates
(larger is more careful), `eta` of the others multiplies them.
"""

import numbers
from typing import NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.games import preferences as game

Array = jax.Array


class SelfPlay(NamedTuple):
    """iterates[t]: log-probs of the policy after t steps; averages[t]: log of the mean of the policies up to it.

    Shapes: both float32 `[steps + 1, ..., Y]`.
    """

    iterates: Array
    averages: Array


def _check(preferences: Array, steps: int, **logps: Array) -> list[Array]:
    checks.positive_integer("steps", steps)
    _, *policies = game._game(preferences, **logps)
    return [jax.nn.log_softmax(policy) for policy in policies]


def _iterate(step, state, steps: int, played) -> SelfPlay:
    """`step`: (state, t) -> state; `played`: state -> log-probs."""
    first = played(state)

    def one(carry, t):
        state, mean = carry
        state = step(state, t)
        policy = played(state)
        mean = mean + (jnp.exp(policy) - mean) / (t + 2)
        return (state, mean), (policy, jnp.log(mean))

    _, (iterates, averages) = jax.lax.scan(one, (state, jnp.exp(first)), jnp.arange(steps))
    return SelfPlay(*(jnp.concatenate([first[None], rest]) for rest in (iterates, averages)))


# ----------------------------------------------------------------------------------------------- mirror descent (INPO)


def _check_rates(eta: float, tau: float) -> None:
    checks.number("eta", eta, 0.0)
    checks.number("tau", tau, 0.0, closed="left")
    if isinstance(eta, numbers.Real) and isinstance(tau, numbers.Real) and tau > eta:
        raise ValueError(f"tau must lie in [0, eta], got {tau} with eta {eta}")


def omd_self_play_step(
    preferences: Array, policy_logps: Array, reference_logps: Array, *, eta: float = 1.0, tau: float = 0.1
) -> Array:
    """log pi_{t+1}, pi_{t+1} ~ exp((P pi_t) / eta) mu^(tau / eta) pi_t^(1 - tau / eta).

    The minimiser of <grad l_t(pi_t), pi> + eta KL(pi || pi_t), l_t(pi) = -P(pi > pi_t) + tau KL(pi || mu). The
    regularised Nash policy is a fixed point for every eta; eta = tau is the best response to pi_t.

    Args:
      preferences: P, see `check_preferences`.
      policy_logps: log pi_t.
      reference_logps: log mu.
      eta: INVERSE step size, in (0, inf).
      tau: in [0, eta]; 0 is self-play preference optimisation (SPO, multiplicative weights).

    Shapes: preferences `[..., Y, Y]`, the others `[..., Y]`; result float32 `[..., Y]`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: P is no preference matrix, eta or tau out of range.

    Paper: Zhang et al., 2024, arXiv 2407.00617 (INPO); with tau = 0 Swamy et al., 2024, arXiv 2401.04056 (SPO).
    """
    _check_rates(eta, tau)
    _, policy, reference = game._game(preferences, policy_logps=policy_logps, reference_logps=reference_logps)
    gains = game.win_rates(preferences, policy) - 0.5
    return jax.nn.log_softmax(policy + (gains + tau * (reference - policy)) / eta)


def omd_self_play(
    preferences: Array,
    initial_logps: Array,
    reference_logps: Array,
    *,
    eta: float = 1.0,
    tau: float = 0.1,
    steps: int = 1000,
) -> SelfPlay:
    """`omd_self_play_step` over and over. With tau > 0 the last policy converges, linearly if eta is large enough.

    Enough is 1 / eta below about 2 tau / (tau^2 + L^2), L the largest singular value of P - 1/2.

    Args:
      preferences: P, see `check_preferences`.
      initial_logps: log pi_1; the paper starts from the reference.
      reference_logps: log mu.
      eta: INVERSE step size, in (0, inf).
      tau: in [0, eta].
      steps: at least 1.

    Shapes: preferences `[..., Y, Y]`, the others `[..., Y]`; a `SelfPlay`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: P is no preference matrix, a static hyperparameter out of range.

    Paper: Zhang et al., 2024, arXiv 2407.00617.
    """
    _check_rates(eta, tau)
    policy, reference = _check(preferences, steps, initial_logps=initial_logps, reference_logps=reference_logps)

    def step(policy, t):
        return omd_self_play_step(preferences, policy, reference, eta=eta, tau=tau)

    return _iterate(step, policy, steps, lambda policy: policy)


def omd_self_play_decreasing(
    preferences: Array, initial_logps: Array, reference_logps: Array, *, tau: float = 0.1, steps: int = 1000
) -> SelfPlay:
    """`omd_self_play` with eta_t = tau (t + 2) / 2, t = 1, 2, ...: KL(pi*, pi_T) <= 32 C^2 / (tau^2 (T + 1)).

    C = max(B tau, 1), B a bound of |log pi / mu| along the way.

    Args:
      preferences: P, see `check_preferences`.
      initial_logps: log pi_1; the paper starts from the reference.
      reference_logps: log mu.
      tau: in (0, inf).
      steps: at least 1.

    Shapes: preferences `[..., Y, Y]`, the others `[..., Y]`; a `SelfPlay`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: P is no preference matrix, a static hyperparameter out of range.

    Paper: Zhang et al., 2024, arXiv 2407.00617.
    """
    checks.number("tau", tau, 0.0)
    policy, reference = _check(preferences, steps, initial_logps=initial_logps, reference_logps=reference_logps)

    def step(policy, t):
        return omd_self_play_step(preferences, policy, reference, eta=tau * (t + 3.0) / 2, tau=tau)

    return _iterate(step, policy, steps, lambda policy: policy)


def multiplicative_weights(
    preferences: Array, initial_logps: Array, *, eta: float = 0.1, steps: int = 1000
) -> SelfPlay:
    """pi_{t+1} ~ pi_t exp(eta P pi_t): self-play without regularisation; only the average of the policies converges.

    On a cycle the policies themselves spiral outwards, towards a gap of 1. `omd_self_play` with tau = 0 and the inverse
    step size.

    Args:
      preferences: P, see `check_preferences`.
      initial_logps: log pi_1.
      eta: step size, in (0, inf).
      steps: at least 1.

    Shapes: preferences `[..., Y, Y]`, initial_logps `[..., Y]`; a `SelfPlay`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: P is no preference matrix, a static hyperparameter out of range.

    Paper: Swamy et al., 2024, arXiv 2401.04056 (SPO).
    """
    checks.number("eta", eta, 0.0)
    (policy,) = _check(preferences, steps, initial_logps=initial_logps)

    def step(policy, t):
        return jax.nn.log_softmax(policy + eta * (game.win_rates(preferences, policy) - 0.5))

    return _iterate(step, policy, steps, lambda policy: policy)


# ------------------------------------------------------------------------------------------------ optimistic (ONPO)


def optimistic_omd(preferences: Array, initial_logps: Array, *, eta: float = 0.125, steps: int = 1000) -> SelfPlay:
    """With r_t = P pi_t: pi'_{t+1} ~ pi'_t exp(eta r_t) is kept, pi_{t+1} ~ pi'_{t+1} exp(eta r_t) is played.

    The second factor forecasts that the next win rates are the last ones. It is not fed back into pi': that would be
    `multiplicative_weights` with twice the step. The gap of the average is O(1 / T), and with one Nash policy the last
    policy converges linearly; no regularisation of the game is needed.

    Args:
      preferences: P, see `check_preferences`.
      initial_logps: log pi_1 = log pi'_1.
      eta: step size, in (0, inf); the theory for the last policy asks for at most 1/8, and 1 is faster on small cycles.
      steps: at least 1.

    Shapes: preferences `[..., Y, Y]`, initial_logps `[..., Y]`; a `SelfPlay` of the policies that were played.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: P is no preference matrix, a static hyperparameter out of range.

    Paper: Zhang et al., 2025, arXiv 2502.16852 (ONPO).
    """
    checks.number("eta", eta, 0.0)
    (policy,) = _check(preferences, steps, initial_logps=initial_logps)

    def step(state, t):
        kept, played = state
        gains = eta * (game.win_rates(preferences, played) - 0.5)
        kept = jax.nn.log_softmax(kept + gains)
        return kept, jax.nn.log_softmax(kept + gains)

    return _iterate(step, (policy, policy), steps, lambda state: state[1])


# --------------------------------------------------------------------------------------------------------- Nash-MD


def nash_md_step(
    preferences: Array, policy_logps: Array, reference_logps: Array, *, eta: float = 0.1, tau: float = 0.1
) -> Array:
    """log pi_{t+1}, pi_{t+1} ~ m exp(eta P m), where m ~ pi_t^(1 - eta tau) mu^(eta tau) mixes in the reference.

    Both the opponent and the centre of the proximal step are the mixture. eta tau = 1 forgets pi_t and gives the best
    response to mu; tau = 0 is multiplicative weights. With a constant eta the fixed point is not the Nash policy,
    because the opponent there is a mixture; what is left vanishes with eta.

    Args:
      preferences: P, see `check_preferences`.
      policy_logps: log pi_t.
      reference_logps: log mu.
      eta: step size, in (0, inf).
      tau: in [0, 1 / eta].

    Shapes: preferences `[..., Y, Y]`, the others `[..., Y]`; result float32 `[..., Y]`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: P is no preference matrix, eta or tau out of range.

    Paper: Munos et al., 2023, arXiv 2312.00886.
    """
    _check_mixture(eta, tau)
    _, policy, reference = game._game(preferences, policy_logps=policy_logps, reference_logps=reference_logps)
    mixture = jax.nn.log_softmax((1 - eta * tau) * policy + eta * tau * reference)
    return jax.nn.log_softmax(mixture + eta * (game.win_rates(preferences, mixture) - 0.5))


def _check_mixture(eta: float, tau: float) -> None:
    checks.number("eta", eta, 0.0)
    checks.number("tau", tau, 0.0, closed="left")
    if isinstance(eta, numbers.Real) and isinstance(tau, numbers.Real) and eta * tau > 1:
        raise ValueError(f"tau must lie in [0, 1 / eta], got {tau} with eta {eta}")


def nash_md(
    preferences: Array,
    initial_logps: Array,
    reference_logps: Array,
    *,
    eta: float = 0.1,
    tau: float = 0.1,
    steps: int = 1000,
) -> SelfPlay:
    """`nash_md_step` over and over; each step KL(pi*, pi_{t+1}) <= (1 - eta tau) KL(pi*, pi_t) + 2 eta^2.

    Args:
      preferences: P, see `check_preferences`.
      initial_logps: log pi_0; the paper starts from the reference.
      reference_logps: log mu.
      eta: step size, in (0, inf).
      tau: in [0, 1 / eta].
      steps: at least 1.

    Shapes: preferences `[..., Y, Y]`, the others `[..., Y]`; a `SelfPlay`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: P is no preference matrix, a static hyperparameter out of range.

    Paper: Munos et al., 2023, arXiv 2312.00886.
    """
    _check_mixture(eta, tau)
    policy, reference = _check(preferences, steps, initial_logps=initial_logps, reference_logps=reference_logps)

    def step(policy, t):
        return nash_md_step(preferences, policy, reference, eta=eta, tau=tau)

    return _iterate(step, policy, steps, lambda policy: policy)


def nash_md_decreasing(
    preferences: Array, initial_logps: Array, reference_logps: Array, *, tau: float = 0.1, steps: int = 1000
) -> SelfPlay:
    """`nash_md` with eta_t = 2 / (tau (t + 2)), t = 0, 1, ...: KL(pi*, pi_T) <= 8 / (tau^2 (T + 1)).

    The first step has eta tau = 1: whatever it starts from is forgotten.

    Args:
      preferences: P, see `check_preferences`.
      initial_logps: log pi_0; the paper starts from the reference.
      reference_logps: log mu.
      tau: in (0, inf).
      steps: at least 1.

    Shapes: preferences `[..., Y, Y]`, the others `[..., Y]`; a `SelfPlay`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: P is no preference matrix, a static hyperparameter out of range.

    Paper: Munos et al., 2023, arXiv 2312.00886.
    """
    checks.number("tau", tau, 0.0)
    policy, reference = _check(preferences, steps, initial_logps=initial_logps, reference_logps=reference_logps)

    def step(policy, t):
        return nash_md_step(preferences, policy, reference, eta=2 / (tau * (t + 2.0)), tau=tau)

    return _iterate(step, policy, steps, lambda policy: policy)
