"""The symmetric two-player game behind methods for general preferences: payoffs, best responses, duality gaps, Nash.

A policy is a vector of log-probs over Y responses, and P[i, j] the probability that response i is preferred to j. All
functions take leading axes (one game per prompt); what a paper averages over prompts is the mean of the result. A
matrix whose values are known is checked, `P + P^T = 1`; under `jit` and `vmap` only its shape is.
"""

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from alignment import checks

Array = jax.Array


def check_preferences(preferences: Array) -> None:
    """Raises unless P is square, lies in [0, 1] and P + P^T = 1 (so that the diagonal is 1/2); says the worst entry.

    A matrix of wins in {0, 1} passes if its diagonal is 1/2. Values that are traced are not looked at.

    Args:
      preferences: P[i, j], the probability that response i is preferred to response j.

    Shapes: `[..., Y, Y]`.

    Raises:
      AssertionError: not floating, or the last two axes differ.
      ValueError: an entry outside of [0, 1] or not finite, or a pair of entries that does not sum to 1.

    Paper: Munos et al., 2023, arXiv 2312.00886.
    """
    shape = jnp.shape(preferences)
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise AssertionError(f"preferences must have shape (..., Y, Y), got {shape}")
    dtype = jnp.asarray(preferences).dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        raise AssertionError(f"preferences must be floating, got {dtype}")
    if isinstance(preferences, jax.core.Tracer):
        return
    values = np.asarray(preferences, np.float64)
    # Half precision cannot write both 0.3 and 0.7.
    tolerance = max(1e-5, 4 * float(jnp.finfo(dtype).eps))
    outside = np.where(np.isfinite(values), np.maximum(-values, values - 1), np.inf)
    where = _worst(outside)
    if outside[where] > tolerance:
        raise ValueError(f"preferences must lie in [0, 1], got {values[where]:g} at {_index(where)}")
    off = np.abs(values + np.swapaxes(values, -1, -2) - 1)
    where = _worst(off)
    if off[where] > tolerance:
        other = (*where[:-2], where[-1], where[-2])
        raise ValueError(
            f"preferences must satisfy P + P^T = 1: {_index(where)} is {values[where]:g} and {_index(other)} is "
            f"{values[other]:g}, together {values[where] + values[other]:g}; {int((off > tolerance).sum())} of "
            f"{off.size} entries are off"
        )


def _worst(values: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(np.argmax(values), values.shape))


def _index(where: tuple[int, ...]) -> str:
    return f"P[{', '.join(map(str, where))}]"


def _game(preferences: Array, **logps: Array) -> list[Array]:
    """P and policies, checked and in float32; every policy has the game's leading axes."""
    check_preferences(preferences)
    policies = checks.floats(**logps)
    (matrix,) = checks.floats(preferences=preferences)
    checks.leading_shape(**{next(iter(logps)): policies[0]}, preferences=matrix)
    return [matrix, *policies]


def _kl(first: Array, second: Array) -> Array:
    """KL of two vectors of log-probs; an outcome without mass in the first counts nothing, even if both have none."""
    has_mass = first > -jnp.inf
    ratios = jnp.where(has_mass, first, 0.0) - jnp.where(has_mass, second, 0.0)
    # Every term p log(p / q) - p + q is at least 0, which rounding of the plain sum is not.
    p = jnp.where(has_mass, jnp.exp(first), 0.0)
    return jnp.maximum(jnp.sum(p * ratios - p + jnp.exp(second), axis=-1), 0.0)


def bradley_terry_preferences(rewards: Array) -> Array:
    """P[i, j] = s(r_i - r_j): the game of a reward, whose Nash policy without regularisation is the largest reward.

    Args:
      rewards: of the responses.

    Shapes: rewards `[..., Y]`; result float32 `[..., Y, Y]`.

    Raises:
      AssertionError: not floating.

    Paper: Munos et al., 2023, arXiv 2312.00886.
    """
    (rewards,) = checks.floats(rewards=rewards)
    return jax.nn.sigmoid(rewards[..., :, None] - rewards[..., None, :])


def cyclic_preferences(size: int, *, strength: float = 1.0) -> Array:
    """A tournament in which each response beats the next (size - 1) / 2 with probability (1 + strength) / 2.

    No reward explains it; the uniform policy is its Nash policy, of every regularisation towards the uniform one too.

    Args:
      size: number of responses, odd, at least 3. Three make rock-paper-scissors.
      strength: in (0, 1].

    Shapes: result float32 `[size, size]`.

    Raises:
      ValueError: an even size or one below 3, strength out of range.

    Paper: Munos et al., 2023, arXiv 2312.00886, for the game; the tournament is standard practice.
    """
    checks.positive_integer("size", size)
    if size < 3 or size % 2 == 0:
        raise ValueError(f"size must be odd and at least 3, got {size}")
    checks.number("strength", strength, 0.0, 1.0, closed="right")
    ahead = (jnp.arange(size)[None, :] - jnp.arange(size)[:, None]) % size
    sign = jnp.where(ahead == 0, 0.0, jnp.where(ahead <= (size - 1) // 2, 1.0, -1.0))
    return (1.0 + strength * sign) / 2


def win_rates(preferences: Array, opponent_logps: Array) -> Array:
    """(P nu)_y = sum over y' of nu(y') P[y, y']: how often each response is preferred to one of the opponent's.

    Args:
      preferences: P, see `check_preferences`.
      opponent_logps: log nu.

    Shapes: preferences `[..., Y, Y]`, opponent_logps `[..., Y]`; result float32 `[..., Y]`, in [0, 1].

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: P is no preference matrix.

    Paper: Munos et al., 2023, arXiv 2312.00886.
    """
    matrix, opponent = _game(preferences, opponent_logps=opponent_logps)
    return jnp.einsum("...ij,...j->...i", matrix, jnp.exp(opponent))


def win_rate(preferences: Array, policy_logps: Array, opponent_logps: Array) -> Array:
    """P(pi > nu) = sum over y and y' of pi(y) P[y, y'] nu(y').

    Args:
      preferences: P, see `check_preferences`.
      policy_logps, opponent_logps: log pi and log nu.

    Shapes: preferences `[..., Y, Y]`, policies `[..., Y]`; result float32 `[...]`, in [0, 1].

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: P is no preference matrix.

    Paper: Munos et al., 2023, arXiv 2312.00886.
    """
    matrix, policy, opponent = _game(preferences, policy_logps=policy_logps, opponent_logps=opponent_logps)
    return jnp.einsum("...i,...ij,...j->...", jnp.exp(policy), matrix, jnp.exp(opponent))


def regularised_payoff(
    preferences: Array, policy_logps: Array, opponent_logps: Array, reference_logps: Array, *, tau: float = 0.1
) -> Array:
    """P_tau(pi > nu) = P(pi > nu) - tau KL(pi || mu) + tau KL(nu || mu); with the players exchanged, 1 minus that.

    Args:
      preferences: P, see `check_preferences`.
      policy_logps, opponent_logps: log pi and log nu.
      reference_logps: log mu; -inf is allowed where pi and nu have no mass.
      tau: in [0, inf).

    Shapes: preferences `[..., Y, Y]`, the others `[..., Y]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: P is no preference matrix, tau out of range.

    Paper: Munos et al., 2023, arXiv 2312.00886.
    """
    checks.number("tau", tau, 0.0, closed="left")
    _, policy, opponent, reference = _game(
        preferences, policy_logps=policy_logps, opponent_logps=opponent_logps, reference_logps=reference_logps
    )
    return win_rate(preferences, policy, opponent) - tau * (_kl(policy, reference) - _kl(opponent, reference))


def best_response(preferences: Array, opponent_logps: Array, reference_logps: Array, *, tau: float = 0.1) -> Array:
    """log BR, BR(y) ~ mu(y) exp((P nu)_y / tau): the policy of the largest P_tau against nu.

    Without regularisation every policy on the responses with the largest `win_rates` is one.

    Args:
      preferences: P, see `check_preferences`.
      opponent_logps: log nu.
      reference_logps: log mu.
      tau: in (0, inf).

    Shapes: preferences `[..., Y, Y]`, the others `[..., Y]`; result float32 `[..., Y]`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: P is no preference matrix, tau out of range.

    Paper: Munos et al., 2023, arXiv 2312.00886.
    """
    checks.number("tau", tau, 0.0)
    _, opponent, reference = _game(preferences, opponent_logps=opponent_logps, reference_logps=reference_logps)
    # All win rates of a constant game are 1/2: what every response has in common is taken off before it is divided.
    return jax.nn.log_softmax(reference + (win_rates(preferences, opponent) - 0.5) / tau)


def duality_gap(preferences: Array, policy_logps: Array) -> Array:
    """max over a of P(a > pi) - min over b of P(pi > b) = 2 max_y (P pi)_y - 1: how much pi can be exploited.

    At least 0, and 0 at a Nash policy only.

    Args:
      preferences: P, see `check_preferences`.
      policy_logps: log pi.

    Shapes: preferences `[..., Y, Y]`, policy_logps `[..., Y]`; result float32 `[...]`, in [0, 1].

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: P is no preference matrix.

    Paper: Munos et al., 2023, arXiv 2312.00886.
    """
    return 2 * jnp.max(win_rates(preferences, policy_logps), axis=-1) - 1


def regularised_duality_gap(
    preferences: Array, policy_logps: Array, reference_logps: Array, *, tau: float = 0.1
) -> Array:
    """max over a of P_tau(a > pi) - min over b of P_tau(pi > b) = 2 tau KL(pi || BR(pi)).

    The two halves are equal by symmetry, and a half is tau log sum mu exp(P pi / tau) + tau KL(pi || mu) - 1/2, which
    is tau times the divergence from `best_response`. At least 0, and 0 at the regularised Nash policy only.

    Args:
      preferences: P, see `check_preferences`.
      policy_logps: log pi.
      reference_logps: log mu; the gap is infinite where it is -inf and pi has mass.
      tau: in (0, inf).

    Shapes: preferences `[..., Y, Y]`, the others `[..., Y]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: P is no preference matrix, tau out of range.

    Paper: Munos et al., 2023, arXiv 2312.00886.
    """
    _, policy, _ = _game(preferences, policy_logps=policy_logps, reference_logps=reference_logps)
    return 2 * tau * _kl(policy, best_response(preferences, policy, reference_logps, tau=tau))


def regularised_nash(preferences: Array, reference_logps: Array, *, tau: float = 0.1) -> np.ndarray:
    """log pi*, the one policy with pi*(y) ~ mu(y) exp((P pi*)_y / tau), by Newton's method in float64 on the host.

    A reference for the iterations of `self_play`, from which it shares nothing: tau is brought down from where the
    game is easy, and at each stage the equation is solved to rounding. For arrays whose values are known.

    Args:
      preferences: P, see `check_preferences`.
      reference_logps: log mu, finite.
      tau: in (0, inf).

    Shapes: preferences `[..., Y, Y]`, reference_logps `[..., Y]`; result float64 numpy `[..., Y]`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: P is no preference matrix, tau out of range or so small that the equation cannot be solved.

    Paper: Munos et al., 2023, arXiv 2312.00886, for the equation; the method is standard practice.
    """
    checks.number("tau", tau, 0.0)
    _game(preferences, reference_logps=reference_logps)
    matrices, references = np.asarray(preferences, np.float64), np.asarray(reference_logps, np.float64)
    solved = [
        _solve(matrix, reference, float(tau))
        for matrix, reference in zip(
            matrices.reshape(-1, *matrices.shape[-2:]), references.reshape(-1, references.shape[-1]), strict=True
        )
    ]
    return np.stack(solved).reshape(references.shape)


def _solve(matrix: np.ndarray, reference: np.ndarray, tau: float) -> np.ndarray:
    reference = reference - np.logaddexp.reduce(reference)
    stages = np.geomspace(max(1.0, tau), tau, 1 + int(np.ceil(8 * max(0.0, -np.log10(tau)))))
    logps = reference
    for stage in stages:
        logps = _newton(matrix, reference, stage, logps)
    return logps


def _newton(matrix: np.ndarray, reference: np.ndarray, tau: float, logps: np.ndarray) -> np.ndarray:
    """The root of F(x) = x - log_softmax(log mu + P softmax(x) / tau), with steps halved until |F| falls."""

    def error(x):
        y = reference + (matrix @ np.exp(x) - 0.5) / tau
        return x - (y - np.logaddexp.reduce(y))

    for _ in range(200):
        off = error(logps)
        size = np.abs(off).max()
        if size < 1e-12:
            return logps
        p = np.exp(logps)
        reached = np.exp(logps - off)
        gradient = matrix * p / tau
        step = np.linalg.solve(np.eye(len(p)) - gradient + reached @ gradient, off)
        for halving in range(40):
            tried = logps - step * 0.5**halving
            tried = tried - np.logaddexp.reduce(tried)
            if np.abs(error(tried)).max() < size:
                break
        else:
            break
        logps = tried
    # Rounding of P pi / tau keeps the equation from being met more closely than that.
    if np.abs(error(logps)).max() > 1e-9 + 1e-14 / tau:
        raise ValueError(f"tau must be large enough for the equation of the Nash policy to be solved, got {tau:g}")
    return logps
