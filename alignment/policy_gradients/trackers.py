"""Memory between rollouts: the controller of the KL coefficient, and the running moments of the rewards.

`StatefulKernel`s as in `alignment.losses.stateful`: (init, loss, update), where `loss` gives rewards instead of a loss.
The updates themselves are public pure functions, to be used without the triple.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep
from alignment.losses.stateful import StatefulKernel
from alignment.policy_gradients.shaping import _kl_shaped

Array = jax.Array
_stop = jax.lax.stop_gradient


def _sum(values: Array, axis_name: Any) -> Array:
    total = jnp.sum(values)
    return total if axis_name is None else jax.lax.psum(total, axis_name)


# ------------------------------------------------------------------------------------------- the coefficient of the KL


def _mean_kl(beta: Array, sequence_kls: Array, valid: Array, axis_name: Any) -> tuple[Array, Array, Array]:
    """beta in float32, the number of sequences and the mean of their KLs (0 if there is none)."""
    (beta,), (kls,) = checks.floats(beta=beta), checks.floats(sequence_kls=sequence_kls)
    kls = keep(_stop(kls), valid)
    count = _sum(valid.astype(kls.dtype), axis_name)
    return _stop(beta), count, _sum(kls, axis_name) / jnp.maximum(count, 1)


def kl_coefficient_update(
    beta: Array,
    sequence_kls: Array,
    valid: Array,
    *,
    target: float = 6.0,
    horizon: int = 10_000,
    axis_name: Any = None,
) -> Array:
    """beta <- beta (1 + clip(KL / target - 1, -0.2, 0.2) n / horizon), KL the mean over the n sequences of the batch.

    A proportional controller in log space: beta grows while the policy is further from the reference than wanted and
    shrinks while it is nearer. Counted in sequences, so its speed does not depend on the batch size.

    Args:
      beta: the coefficient. Held fixed, as is everything here.
      sequence_kls: sum over tokens of log pi_old - log ref, of each completion.
      valid: bool, False for rows that do not count; a batch of none leaves beta.
      target: KL wanted, in nats per sequence, in (0, inf).
      horizon: over how many sequences a deviation of 20 % multiplies beta by about e^0.2; at least 1.
      axis_name: mapped axis (or axes) over which the batch is split.

    Shapes: beta `[]`; sequence_kls and valid `[N]`; result float32 `[]`.

    Raises:
      AssertionError: kls and valid differ in shape, beta or kls not floating, valid not bool.
      ValueError: static target or horizon out of range.

    Paper: Ziegler et al., 2019, arXiv 1909.08593.
    """
    checks.number("target", target, 0.0)
    checks.positive_integer("horizon", horizon)
    beta, count, kl = _mean_kl(beta, sequence_kls, valid, axis_name)
    return beta * (1 + jnp.clip(kl / target - 1, -0.2, 0.2) * count / horizon)


def kl_coefficient_update_fixed_gain(
    beta: Array, sequence_kls: Array, valid: Array, *, target: float = 6.0, gain: float = 0.1, axis_name: Any = None
) -> Array:
    """beta <- beta (1 + gain * clip(KL / target - 1, -0.2, 0.2)), once per update whatever the batch size.

    Args:
      beta: the coefficient. Held fixed, as is everything here.
      sequence_kls: sum over tokens of log pi_old - log ref, of each completion.
      valid: bool, False for rows that do not count; a batch of none leaves beta.
      target: KL wanted, in nats per sequence, in (0, inf).
      gain: in (0, 5): above, beta could change its sign.
      axis_name: mapped axis (or axes) over which the batch is split.

    Shapes: beta `[]`; sequence_kls and valid `[N]`; result float32 `[]`.

    Raises:
      AssertionError: kls and valid differ in shape, beta or kls not floating, valid not bool.
      ValueError: static target or gain out of range.

    Paper: Ramamurthy et al., 2022, arXiv 2210.01241 (RL4LMs, whose gain is 0.1).
    """
    checks.number("target", target, 0.0)
    checks.number("gain", gain, 0.0, 5.0)
    beta, count, kl = _mean_kl(beta, sequence_kls, valid, axis_name)
    return jnp.where(count > 0, beta * (1 + gain * jnp.clip(kl / target - 1, -0.2, 0.2)), beta)


class AdaptiveKlState(NamedTuple):
    """beta: float32 [], the coefficient in use; kl: float32 [], the mean KL it was last set from, in nats."""

    beta: Array
    kl: Array


def _check_adaptive(beta, target, horizon) -> None:
    checks.number("beta", beta, 0.0)
    checks.number("target", target, 0.0)
    checks.positive_integer("horizon", horizon)


def _adaptive_init(*, beta: float = 0.05, target: float = 6.0, horizon: int = 10_000) -> AdaptiveKlState:
    """Starts at `beta`, in (0, inf)."""
    _check_adaptive(beta, target, horizon)
    return AdaptiveKlState(jnp.asarray(beta, jnp.float32), jnp.zeros((), jnp.float32))


def _adaptive_loss(
    rewards: Array,
    behaviour_token_logps: Array,
    reference_token_logps: Array,
    mask: Array,
    valid: Array,
    state: AdaptiveKlState,
    *,
    beta: float = 0.05,
    target: float = 6.0,
    horizon: int = 10_000,
) -> tuple[Array, dict[str, Array]]:
    """`kl_shaped_rewards` with a coefficient that holds the KL near a target: r_t = -beta (log pi_old - log ref) + R.

    R, the score, on the last token only. After each batch beta moves by `kl_coefficient_update`.

    Args:
      rewards: score of each completion. Held fixed, as is everything here.
      behaviour_token_logps: log-prob of each completion token under the policy that sampled it.
      reference_token_logps: the same under the reference.
      mask: bool, True on completion tokens; a row without one loses its score.
      valid: bool, False for rows that do not count in the controller.
      state: from `adaptive_kl_rewards.init` or `.update`.
      beta: at the start, in (0, inf).
      target: KL wanted, in nats per sequence, in (0, inf).
      horizon: of the controller, in sequences, at least 1.

    Shapes: rewards and valid `[...]`, usually `[N]`; log-probs and mask `[..., T]`; values float32 `[..., T]`, in the
    units of the rewards, 0 behind the mask; aux holds `sequence_kls` and `valid`, `[...]`.

    Raises:
      AssertionError: shapes do not agree, rewards, log-probs or state not floating, mask or valid not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Ziegler et al., 2019, arXiv 1909.08593.
    """
    _check_adaptive(beta, target, horizon)
    return _shaped_by(rewards, behaviour_token_logps, reference_token_logps, mask, valid, state)


def _shaped_by(rewards, behaviour, reference, mask, valid, state) -> tuple[Array, dict[str, Array]]:
    now, _ = checks.floats(beta=state.beta, kl=state.kl)
    if now.shape:
        raise AssertionError(f"state.beta must be a scalar, got shape {now.shape}")
    checks.boolean(valid=valid)
    checks.same_shape(rewards=rewards, valid=valid)
    token_rewards, kls = _kl_shaped(rewards, behaviour, reference, mask, now)
    return _stop(token_rewards.astype(kls.dtype)), {"sequence_kls": kls, "valid": valid}


def _adaptive_update(
    state: AdaptiveKlState,
    aux: dict[str, Array],
    *,
    beta: float = 0.05,
    target: float = 6.0,
    horizon: int = 10_000,
    axis_name: Any = None,
) -> AdaptiveKlState:
    """One step of `kl_coefficient_update` with the aux of the whole batch."""
    _check_adaptive(beta, target, horizon)
    kls, valid = aux["sequence_kls"], aux["valid"]
    new = kl_coefficient_update(state.beta, kls, valid, target=target, horizon=horizon, axis_name=axis_name)
    return _moved(state, new, kls, valid, axis_name)


def _moved(state: AdaptiveKlState, new: Array, kls: Array, valid: Array, axis_name: Any) -> AdaptiveKlState:
    _, count, kl = _mean_kl(state.beta, kls, valid, axis_name)
    kl = jnp.where(count > 0, kl, state.kl)
    return AdaptiveKlState(new.astype(state.beta.dtype), kl.astype(state.kl.dtype))


adaptive_kl_rewards = StatefulKernel(init=_adaptive_init, loss=_adaptive_loss, update=_adaptive_update)
"""KL-shaped rewards under Ziegler's controller; `adaptive_kl_rewards.loss` has formula, shapes and hyperparameters."""


def _check_fixed_gain(beta, target, gain) -> None:
    checks.number("beta", beta, 0.0)
    checks.number("target", target, 0.0)
    checks.number("gain", gain, 0.0, 5.0)


def _fixed_gain_init(*, beta: float = 0.05, target: float = 6.0, gain: float = 0.1) -> AdaptiveKlState:
    """Starts at `beta`, in (0, inf)."""
    _check_fixed_gain(beta, target, gain)
    return AdaptiveKlState(jnp.asarray(beta, jnp.float32), jnp.zeros((), jnp.float32))


def _fixed_gain_loss(
    rewards: Array,
    behaviour_token_logps: Array,
    reference_token_logps: Array,
    mask: Array,
    valid: Array,
    state: AdaptiveKlState,
    *,
    beta: float = 0.05,
    target: float = 6.0,
    gain: float = 0.1,
) -> tuple[Array, dict[str, Array]]:
    """`adaptive_kl_rewards` with RL4LMs' controller: r_t = -beta (log pi_old - log ref) + R on the last token.

    After each batch beta moves by `kl_coefficient_update_fixed_gain`.

    Args:
      rewards, behaviour_token_logps, reference_token_logps, mask, valid: as in `adaptive_kl_rewards`. Held fixed.
      state: from `adaptive_kl_rewards_fixed_gain.init` or `.update`.
      beta: at the start, in (0, inf).
      target: KL wanted, in nats per sequence, in (0, inf).
      gain: of the controller, per update, in (0, 5).

    Shapes: rewards and valid `[...]`, usually `[N]`; log-probs and mask `[..., T]`; values float32 `[..., T]`, in the
    units of the rewards, 0 behind the mask; aux holds `sequence_kls` and `valid`, `[...]`.

    Raises:
      AssertionError: shapes do not agree, rewards, log-probs or state not floating, mask or valid not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Ramamurthy et al., 2022, arXiv 2210.01241.
    """
    _check_fixed_gain(beta, target, gain)
    return _shaped_by(rewards, behaviour_token_logps, reference_token_logps, mask, valid, state)


def _fixed_gain_update(
    state: AdaptiveKlState,
    aux: dict[str, Array],
    *,
    beta: float = 0.05,
    target: float = 6.0,
    gain: float = 0.1,
    axis_name: Any = None,
) -> AdaptiveKlState:
    """One step of `kl_coefficient_update_fixed_gain` with the aux of the whole batch."""
    _check_fixed_gain(beta, target, gain)
    kls, valid = aux["sequence_kls"], aux["valid"]
    new = kl_coefficient_update_fixed_gain(state.beta, kls, valid, target=target, gain=gain, axis_name=axis_name)
    return _moved(state, new, kls, valid, axis_name)


adaptive_kl_rewards_fixed_gain = StatefulKernel(init=_fixed_gain_init, loss=_fixed_gain_loss, update=_fixed_gain_update)
"""KL-shaped rewards under RL4LMs' controller; see `adaptive_kl_rewards_fixed_gain.loss`."""


# ------------------------------------------------------------------------------------------- the moments of the rewards


def running_reward_moments(moments: Array, rewards: Array, valid: Array, *, axis_name: Any = None) -> Array:
    """(mean, variance, count) of all rewards so far, from those of before and a batch: exact, in whatever pieces.

        n' = n + n_b,  d = mean_b - mean,  mean' = mean + d n_b / n',  var' = (var n + var_b n_b + d^2 n n_b / n') / n'

    Args:
      moments: mean, biased variance and number of the rewards so far; 0, 0, 0 at the start. Held fixed, as is all here.
      rewards: of the batch's completions.
      valid: bool, False for rows that do not count; a batch of none leaves the moments.
      axis_name: mapped axis (or axes) over which the batch is split.

    Shapes: moments `[3]`; rewards and valid `[N]`; result float32 `[3]`.

    Raises:
      AssertionError: rewards and valid differ in shape, moments not `[3]`, moments or rewards not floating, valid not
        bool.

    Paper: Zheng et al., 2023, arXiv 2307.04964 (Chan et al.'s parallel variance; the authors' count starts at 1e-24).
    """
    (moments,), (rewards,) = checks.floats(moments=moments), checks.floats(rewards=rewards)
    if moments.shape != (3,):
        raise AssertionError(f"moments must have shape (3,), got {moments.shape}")
    mean, variance, seen = _stop(moments)
    rewards = keep(_stop(rewards), valid)
    count = _sum(valid.astype(rewards.dtype), axis_name)
    batch_mean = _sum(rewards, axis_name) / jnp.maximum(count, 1)
    squares = _sum(keep(jnp.square(rewards - batch_mean), valid), axis_name)
    total = jnp.maximum(seen + count, 1)
    away, share = batch_mean - mean, count / total
    # (1 - share) for n / n': exact at the start, where n' = n_b and what the moments hold does not matter.
    new_variance = squares / total + (1 - share) * variance + jnp.square(away) * share * (1 - share)
    return jnp.where(count > 0, jnp.stack([mean + away * share, new_variance, seen + count]), _stop(moments))


class RewardMomentsState(NamedTuple):
    """moments: float32 [3], mean, biased variance and number of the rewards so far."""

    moments: Array


def _moments_init() -> RewardMomentsState:
    """Nothing seen: the first batch sets the scale."""
    return RewardMomentsState(jnp.zeros(3, jnp.float32))


def _moments_update(state: RewardMomentsState, aux: dict[str, Array], *, axis_name: Any = None) -> RewardMomentsState:
    """Keeps the moments that the rewards were scaled by, from the aux of the whole batch."""
    moments = running_reward_moments(state.moments, aux["rewards"], aux["valid"], axis_name=axis_name)
    return RewardMomentsState(moments.astype(state.moments.dtype))


def _mean_and_std(rewards: Array, valid: Array, state: RewardMomentsState, axis_name: Any) -> tuple[Array, ...]:
    """The rewards that count, and mean and unbiased standard deviation of all so far, this batch included."""
    (rewards,) = checks.floats(rewards=rewards)
    mean, variance, count = running_reward_moments(state.moments, rewards, valid, axis_name=axis_name)
    std = jnp.sqrt(variance * count / jnp.maximum(count - 1, 1))
    return keep(_stop(rewards), valid), mean, jnp.where(std > 0, std, 1.0)


def _scaling_loss(
    rewards: Array, valid: Array, state: RewardMomentsState, *, axis_name: Any = None
) -> tuple[Array, dict[str, Array]]:
    """r / std, the unbiased standard deviation of all rewards so far, this batch's included: order and sign stay.

    While all rewards were the same (or there was only one) they are left as they are. Makes beta and the clips mean the
    same for every reward model. `clip_rewards` comes after.

    Args:
      rewards: score of each completion. Held fixed, as is everything here.
      valid: bool, False for rows that do not count.
      state: from `reward_scaling.init` or `.update`.
      axis_name: mapped axis (or axes) over which the batch is split.

    Shapes: rewards and valid `[N]`; state.moments `[3]`; values float32 `[N]`, in standard deviations, 0 where not
    valid; aux holds `rewards` and `valid`, `[N]`.

    Raises:
      AssertionError: shapes differ, rewards or moments not floating, valid not bool.

    Paper: Zheng et al., 2023, arXiv 2307.04964; as in the authors' code the batch is counted before it is scaled.
    """
    kept, _, std = _mean_and_std(rewards, valid, state, axis_name)
    return kept / std, {"rewards": kept, "valid": valid}


def _normalization_loss(
    rewards: Array, valid: Array, state: RewardMomentsState, *, axis_name: Any = None
) -> tuple[Array, dict[str, Array]]:
    """(r - mean) / std, mean and unbiased standard deviation of all rewards so far, this batch's included.

    With whitened advantages this normalises twice. While all rewards were the same (or there was only one) they become
    0.

    Args:
      rewards: score of each completion. Held fixed, as is everything here.
      valid: bool, False for rows that do not count.
      state: from `reward_normalization.init` or `.update`.
      axis_name: mapped axis (or axes) over which the batch is split.

    Shapes: rewards and valid `[N]`; state.moments `[3]`; values float32 `[N]`, in standard deviations, 0 where not
    valid; aux holds `rewards` and `valid`, `[N]`.

    Raises:
      AssertionError: shapes differ, rewards or moments not floating, valid not bool.

    Paper: Zheng et al., 2023, arXiv 2307.04964; as in the authors' code the batch is counted before it is scaled.
    """
    kept, mean, std = _mean_and_std(rewards, valid, state, axis_name)
    return keep((kept - mean) / std, valid), {"rewards": kept, "valid": valid}


reward_scaling = StatefulKernel(init=_moments_init, loss=_scaling_loss, update=_moments_update)
"""Rewards over their running standard deviation; see `reward_scaling.loss`."""
reward_normalization = StatefulKernel(init=_moments_init, loss=_normalization_loss, update=_moments_update)
"""Rewards as running z-scores; see `reward_normalization.loss`."""
