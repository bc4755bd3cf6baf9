"""DPO whose beta follows the data: set for each batch from how far apart its pairs are, outliers left out (beta-DPO).

h is the log-ratio margin of a pair, see `preference`. The running mean M0 and standard deviation sigma0 of h are one
array, `moments` = (M0, sigma0). With `margins` of the batch, in the order in which they are computed:

    M0, sigma0 <- moving averages of mean(h) and std(h)                        `beta_dpo_stats`
    weight of a pair = exp(-((h - M0) / sigma0)^2 / 2)                         `beta_dpo_sampling_weights`
    (1 - rho) B pairs are drawn by these weights, without replacement
    beta_b = max(0.001, beta (1 + alpha (mean of h over those drawn - M0)))
    L = mean over those drawn of -log s(beta_b h)                              `beta_dpo`
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses import links
from alignment.losses.masking import keep
from alignment.losses.stateful import StatefulKernel

Array = jax.Array
_stop = jax.lax.stop_gradient

_SMALLEST_STD = 1e-3  # nats; sigma0 starts at 0, and h is 0 for every pair while the policy is the reference
_SMALLEST_BETA = 1e-3
_KEYS = "threefry2x32"  # stored as plain integers, so the kind of key is fixed here


def _moments_as_floats(moments: Array) -> Array:
    (moments,) = checks.floats(moments=moments)
    if moments.shape != (2,):
        raise AssertionError(f"moments must have shape (2,), got {moments.shape}")
    return _stop(moments)


def _sum(values: Array, axis_name: Any) -> Array:
    total = jnp.sum(values)
    return total if axis_name is None else jax.lax.psum(total, axis_name)


def beta_dpo_stats(
    margins: Array, valid: Array, moments: Array, *, momentum: float = 0.9, axis_name: Any = None
) -> Array:
    """Moving averages of the mean and of the standard deviation of the margins: x <- momentum x + (1 - momentum) x_B.

    The deviation of the batch is the unbiased one, with B - 1. A batch too small for a statistic keeps that one.

    Args:
      margins: h of each pair. Held fixed, as is everything here: no gradient passes.
      valid: bool, False for rows that only pad the batch.
      moments: (M0, sigma0) so far.
      momentum: in [0, 1).
      axis_name: mapped axis (or axes) over which the batch is split; the statistics are those of the whole batch.

    Shapes: margins and valid `[B]`; moments `[2]`; result float32 `[2]`.

    Raises:
      AssertionError: shapes do not agree, margins or moments not floating, `valid` not bool.
      ValueError: static momentum out of range.

    Paper: Wu et al., 2024, arXiv 2407.08639. Their code averages h itself, as here; the paper's M is beta h.
    """
    (margins,), moments = checks.floats(margins=margins), _moments_as_floats(moments)
    checks.number("momentum", momentum, 0.0, 1.0, closed="left")
    margins = keep(_stop(margins), valid)
    count = _sum(valid.astype(margins.dtype), axis_name)
    mean = _sum(margins, axis_name) / jnp.maximum(count, 1)
    squares = _sum(keep(jnp.square(margins - mean), valid), axis_name)
    std = jnp.sqrt(squares / jnp.maximum(count - 1, 1))
    moved = momentum * moments + (1 - momentum) * jnp.stack([mean, std])
    return jnp.where(count > jnp.arange(2), moved, moments)


def _log_weights(margins: Array, moments: Array) -> Array:
    return -0.5 * jnp.square((margins - moments[0]) / jnp.maximum(moments[1], _SMALLEST_STD))


def beta_dpo_sampling_weights(margins: Array, valid: Array, moments: Array) -> Array:
    """How readily each pair is drawn: exp(-((h - M0) / sigma0)^2 / 2), 0 for rows that only pad.

    A normal density without its constant: pairs of an ordinary margin stay, those far off on either side, which are
    mislabelled or already learnt, are left out most.

    Args:
      margins: h of each pair. Held fixed, as is everything here: no gradient passes.
      valid: bool, False for rows that only pad the batch.
      moments: (M0, sigma0), of `beta_dpo_stats`. sigma0 below 0.001 counts as 0.001: it starts at 0.

    Shapes: margins and valid `[B]`; moments `[2]`; result float32 `[B]` in [0, 1].

    Raises:
      AssertionError: shapes do not agree, margins or moments not floating, `valid` not bool.

    Paper: Wu et al., 2024, arXiv 2407.08639.
    """
    (margins,), moments = checks.floats(margins=margins), _moments_as_floats(moments)
    margins = keep(_stop(margins), valid)
    return keep(jnp.exp(_log_weights(margins, moments)), valid)


class BetaDpoState(NamedTuple):
    """moments: float32 [2], M0 and sigma0. key: uint32 [2], of the random number generator that draws the pairs."""

    moments: Array
    key: Array


def _check_hyperparameters(beta, alpha, rho, momentum) -> None:
    checks.number("beta", beta, 0.0)
    checks.number("alpha", alpha, 0.0, closed="left")
    checks.number("rho", rho, 0.0, 1.0, closed="left")
    checks.number("momentum", momentum, 0.0, 1.0, closed="left")


def _init(
    *, beta: float = 0.1, alpha: float = 0.6, rho: float = 0.2, momentum: float = 0.9, seed: int = 0
) -> BetaDpoState:
    """Moments of 0, as in the authors' code, and the key of the seed."""
    _check_hyperparameters(beta, alpha, rho, momentum)
    return BetaDpoState(jnp.zeros(2, jnp.float32), jax.random.key_data(jax.random.key(seed, impl=_KEYS)))


def _keys(key: Array) -> tuple[Array, Array]:
    """The key of this step and the state's next one."""
    if key.shape != (2,) or key.dtype != jnp.uint32:
        raise AssertionError(f"state.key must be uint32 of shape (2,), got {key.dtype} {key.shape}")
    now, after = jax.random.split(jax.random.wrap_key_data(key, impl=_KEYS))
    return now, jax.random.key_data(after)


def _drawn(margins: Array, valid: Array, moments: Array, key: Array, rho: float, axis_name: Any) -> Array:
    """Bool [B]: round((1 - rho) n) of the n valid pairs, at least one, drawn by their weights without replacement.

    The largest of log weight + Gumbel noise are such a draw. The n-th valid pair gets the n-th noise, so that the draw
    depends neither on rows that only pad nor on how the batch is split over devices.
    """
    own = margins.shape[0]
    if axis_name is not None:
        margins, valid = (jax.lax.all_gather(x, axis_name, tiled=True) for x in (margins, valid))
    place = jnp.cumsum(valid) - 1
    noise = jax.vmap(lambda n: jax.random.gumbel(jax.random.fold_in(key, n), dtype=margins.dtype))(place)
    scores = jnp.where(valid, _log_weights(jnp.where(valid, margins, 0.0), moments) + noise, -jnp.inf)
    rank = jnp.argsort(jnp.argsort(-scores))
    count = jnp.maximum(jnp.round((1 - rho) * jnp.sum(valid)), 1)
    drawn = valid & (rank < count)
    if axis_name is None:
        return drawn
    return jax.lax.dynamic_slice_in_dim(drawn, jax.lax.axis_index(axis_name) * own, own)


def _loss(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    valid: Array,
    state: BetaDpoState,
    *,
    beta: float = 0.1,
    alpha: float = 0.6,
    rho: float = 0.2,
    momentum: float = 0.9,
    seed: int = 0,
    axis_name: Any = None,
) -> tuple[Array, dict[str, Array]]:
    """beta-DPO: -log s(beta_b * h) for the pairs drawn, 0 for the others, beta_b = beta (1 + alpha (mean h - M0)).

    The mean is over the pairs drawn, M0 its running average. A batch of clear pairs gets a larger beta (and so stays
    nearer to the reference), one of close pairs a smaller one, not below 0.001. beta_b and the draw are held fixed. The
    values are scaled by n / (number drawn), so that their mean over the n examples is the mean over the pairs drawn.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      valid: bool, False for rows that only pad the batch.
      state: from `beta_dpo.init` or `beta_dpo.update`. Held fixed.
      beta: beta_0 of the paper, in (0, inf).
      alpha: sensitivity to the margins, in [0, inf); 0 with rho = 0 is `dpo`.
      rho: share of the pairs that is left out, in [0, 1).
      momentum: of the moments, in [0, 1).
      seed: of the draws.
      axis_name: mapped axis (or axes) over which the batch is split.

    Shapes: log-probs and valid `[B]`; state.moments `[2]`, state.key `[2]`; values float32 `[B]`, in nats; aux holds
    `margins`, `valid` and `drawn`, `[B]`.

    Raises:
      AssertionError: shapes do not agree, log-probs not floating, `valid` not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Wu et al., 2024, arXiv 2407.08639. As in the authors' code, margins are raw log-ratios (the paper's M is
    beta h), and the moments are moved by this batch before they are used; their config ships alpha = 0, their README
    shows 0.6.
    """
    del seed  # of `init` only
    _check_hyperparameters(beta, alpha, rho, momentum)
    chosen, rejected, reference_chosen, reference_rejected = checks.floats(
        policy_chosen_logps=policy_chosen_logps,
        policy_rejected_logps=policy_rejected_logps,
        reference_chosen_logps=reference_chosen_logps,
        reference_rejected_logps=reference_rejected_logps,
    )
    margins = (chosen - _stop(reference_chosen)) - (rejected - _stop(reference_rejected))
    moments = beta_dpo_stats(margins, valid, state.moments, momentum=momentum, axis_name=axis_name)
    now, _ = _keys(state.key)
    fixed = _stop(margins)
    drawn = _drawn(fixed, valid, moments.astype(fixed.dtype), now, rho, axis_name)
    count = jnp.maximum(_sum(drawn.astype(fixed.dtype), axis_name), 1)
    mean = _sum(keep(fixed, drawn), axis_name) / count
    beta_b = jnp.maximum(beta * (1 + alpha * (mean - moments[0])), _SMALLEST_BETA)
    scale = _sum(valid.astype(fixed.dtype), axis_name) / count
    values = keep(scale * links.logistic(beta_b * keep(margins, drawn)), drawn)
    return values, {"margins": fixed, "valid": valid, "drawn": drawn}


def _update(
    state: BetaDpoState,
    aux: dict[str, Array],
    *,
    beta: float = 0.1,
    alpha: float = 0.6,
    rho: float = 0.2,
    momentum: float = 0.9,
    seed: int = 0,
    axis_name: Any = None,
) -> BetaDpoState:
    """Keeps the moments that the loss used, from the aux of the whole batch, and moves on to the next key."""
    del seed
    _check_hyperparameters(beta, alpha, rho, momentum)
    moments = beta_dpo_stats(aux["margins"], aux["valid"], state.moments, momentum=momentum, axis_name=axis_name)
    return BetaDpoState(moments.astype(state.moments.dtype), _keys(state.key)[1])


beta_dpo = StatefulKernel(init=_init, loss=_loss, update=_update)
"""beta-DPO; the docstring of `beta_dpo.loss` has formula, shapes and hyperparameters."""
