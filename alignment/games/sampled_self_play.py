"""Self-play from sampled pairs with binary labels: the squared losses of INPO and ONPO on a policy that is a table.

The losses are quadratic in the log-probs, so an outer iteration is solved exactly: what remains of the distance to
`omd_self_play` and `optimistic_omd` is the noise of the labels. The losses for language models are in
`alignment.losses`.
"""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.games import preferences as game
from alignment.games.self_play import SelfPlay, _check, _check_rates, _iterate

Array = jax.Array
_stop = jax.lax.stop_gradient


def _differences(values: Array) -> Array:
    return values[..., :, None] - values[..., None, :]


def _expected(squares_if_won: Array, preferences: Array, behaviour: Array) -> Array:
    """Mean over y, y' ~ behaviour and the label; squares_if_won[y, y'] is the loss of the pair if y is preferred."""
    p = jnp.exp(behaviour)
    weights = p[..., :, None] * p[..., None, :]
    of_label = preferences * squares_if_won + (1 - preferences) * jnp.swapaxes(squares_if_won, -1, -2)
    return jnp.sum(weights * of_label, axis=(-2, -1))


def inpo_population_loss(
    policy_logps: Array,
    previous_logps: Array,
    reference_logps: Array,
    preferences: Array,
    *,
    eta: float = 0.0075,
    tau: float = 0.0025,
) -> Array:
    """E of (h - 1 / (2 eta))^2 over pairs y, y' ~ pi_t and their labels: INPO's loss on infinitely many pairs.

        h = log pi(w)/pi(l) - (tau / eta) log mu(w)/mu(l) - (1 - tau / eta) log pi_t(w)/pi_t(l)

    Up to a constant it is E of (h(y, y') - ((P pi_t)_y - (P pi_t)_y') / eta)^2, and `omd_self_play_step` minimises it.

    Args:
      policy_logps: log pi. Trained.
      previous_logps: log pi_t, of the policy that the pairs are drawn from. Held fixed.
      reference_logps: log mu. Held fixed.
      preferences: P, see `check_preferences`.
      eta: INVERSE step size, in (0, inf).
      tau: in [0, eta]; the paper's default is eta / 3.

    Shapes: preferences `[..., Y, Y]`, the others `[..., Y]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: P is no preference matrix, eta or tau out of range.

    Paper: Zhang et al., 2024, arXiv 2407.00617.
    """
    _check_rates(eta, tau)
    matrix, policy, previous, reference = game._game(
        preferences, policy_logps=policy_logps, previous_logps=previous_logps, reference_logps=reference_logps
    )
    previous, reference = _stop(previous), _stop(reference)
    margins = _differences(policy - (tau * reference + (eta - tau) * previous) / eta)
    return _expected(jnp.square(margins - 1 / (2 * eta)), _stop(matrix), previous)


def onpo_population_loss(
    policy_logps: Array, anchor_logps: Array, behaviour_logps: Array, preferences: Array, *, eta: float = 1.0
) -> Array:
    """E of (log pi(w)/pi(l) - log a(w)/a(l) - eta / 2)^2 over pairs y, y' ~ pi_t and their labels.

    One iteration of ONPO minimises it twice on the pairs of the policy that is played: with the anchor a = pi'_t for
    pi'_{t+1}, and with a = pi'_{t+1} for pi_{t+1}. With a = pi_t it is INPO's with tau = 0 and the inverse eta.

    Args:
      policy_logps: log pi. Trained.
      anchor_logps: log a. Held fixed.
      behaviour_logps: log pi_t, of the policy that the pairs are drawn from. Held fixed.
      preferences: P, see `check_preferences`.
      eta: step size, in (0, inf).

    Shapes: preferences `[..., Y, Y]`, the others `[..., Y]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: P is no preference matrix, eta out of range.

    Paper: Zhang et al., 2025, arXiv 2502.16852.
    """
    checks.number("eta", eta, 0.0)
    matrix, policy, anchor, behaviour = game._game(
        preferences, policy_logps=policy_logps, anchor_logps=anchor_logps, behaviour_logps=behaviour_logps
    )
    margins = _differences(policy - _stop(anchor))
    return _expected(jnp.square(margins - eta / 2), _stop(matrix), _stop(behaviour))


def _fitted_gains(key: Array, matrix: Array, policy: Array, pairs: int) -> Array:
    """The smallest d that minimises the sum over labelled pairs of (d_w - d_l - 1/2)^2: P pi with many pairs.

    Responses that no pair joins to others get 0, as gradient descent from the anchor would leave them.
    """
    size = matrix.shape[-1]
    of_pair, of_label = jax.random.split(key)
    first, second = jax.random.categorical(of_pair, policy, shape=(2, pairs))
    won = jax.random.uniform(of_label, (pairs,)) < matrix[first, second]
    sign = jnp.where(first == second, 0.0, jnp.where(won, 0.5, -0.5))
    pulls = jnp.zeros(size).at[first].add(sign).at[second].add(-sign)
    joined = jnp.zeros((size, size)).at[first, second].add(1.0)
    joined = joined + joined.T
    laplacian = jnp.diag(joined.sum(-1)) - joined
    return jnp.linalg.pinv(laplacian, rtol=1e-5, hermitian=True) @ pulls


def inpo_self_play(
    key: Array,
    preferences: Array,
    reference_logps: Array,
    *,
    eta: float = 1.0,
    tau: float = 0.1,
    pairs: int = 1024,
    steps: int = 100,
) -> SelfPlay:
    """INPO from sampled labels: every step draws pairs of pi_t, labels them once, and minimises the loss on them.

    Around `omd_self_play` from the reference, with noise that falls with the number of pairs. Responses that were not
    drawn keep the log-prob of mu^(tau / eta) pi_t^(1 - tau / eta).

    Args:
      key: a PRNG key.
      preferences: P, see `check_preferences`; of one game (`vmap` for more).
      reference_logps: log mu, where the policy starts.
      eta: INVERSE step size, in (0, inf).
      tau: in [0, eta].
      pairs: drawn in each step, at least 1.
      steps: at least 1.

    Shapes: preferences `[Y, Y]`, reference_logps `[Y]`; a `SelfPlay`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: P is no preference matrix, a static hyperparameter out of range.

    Paper: Zhang et al., 2024, arXiv 2407.00617. A pair of a response with itself says nothing and counts for nothing.
    """
    _check_rates(eta, tau)
    checks.positive_integer("pairs", pairs)
    (reference,) = _check(preferences, steps, reference_logps=reference_logps)
    (matrix,) = checks.floats(preferences=preferences)

    def step(policy, t):
        gains = _fitted_gains(jax.random.fold_in(key, t), matrix, policy, pairs)
        return jax.nn.log_softmax(policy + (gains + tau * (reference - policy)) / eta)

    return _iterate(step, reference, steps, lambda policy: policy)


def onpo_self_play(
    key: Array, preferences: Array, initial_logps: Array, *, eta: float = 1.0, pairs: int = 1024, steps: int = 100
) -> SelfPlay:
    """ONPO from sampled labels: the pairs of pi_t serve both losses of a step, that of pi'_{t+1} and of pi_{t+1}.

    Around `optimistic_omd`, with noise that falls with the number of pairs.

    Args:
      key: a PRNG key.
      preferences: P, see `check_preferences`; of one game (`vmap` for more).
      initial_logps: log pi_1 = log pi'_1.
      eta: step size, in (0, inf).
      pairs: drawn in each step, at least 1.
      steps: at least 1.

    Shapes: preferences `[Y, Y]`, initial_logps `[Y]`; a `SelfPlay` of the policies that were played.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: P is no preference matrix, a static hyperparameter out of range.

    Paper: Zhang et al., 2025, arXiv 2502.16852.
    """
    checks.number("eta", eta, 0.0)
    checks.positive_integer("pairs", pairs)
    (policy,) = _check(preferences, steps, initial_logps=initial_logps)
    (matrix,) = checks.floats(preferences=preferences)

    def step(state, t):
        kept, played = state
        gains = eta * _fitted_gains(jax.random.fold_in(key, t), matrix, played, pairs)
        kept = jax.nn.log_softmax(kept + gains)
        return kept, jax.nn.log_softmax(kept + gains)

    return _iterate(step, (policy, policy), steps, lambda state: state[1])
