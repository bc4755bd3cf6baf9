"""Rewards as constraints: Lagrange multipliers that move between batches, and the advantages that they mix.

The multipliers live in the train state (`init`, `loss`, `update`). Once per rollout here, where the authors of
constrained RLHF update once per minibatch: their learning rate then acts as often as there are minibatches.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep
from alignment.losses.stateful import StatefulKernel
from alignment.policy_gradients import objectives

Array = jax.Array
_stop = jax.lax.stop_gradient


# ------------------------------------------------------------------------------------------------- constrained RLHF


def mixed_advantages(kl_advantages: Array, objective_advantages: Array, multipliers: Array) -> Array:
    """A = (K - sum_i w_i) A_KL + sum_i w_i A_i: the K + 1 weights always sum to K.

    At w = 0 only the KL counts, at w = 1 it does not count at all; a negative w pushes its objective down.

    Args:
      kl_advantages: of the KL reward, standardised. Held fixed.
      objective_advantages: of each constrained reward, standardised each on its own. Held fixed.
      multipliers: w, one per objective, bounded (a sigmoid or tanh of the raw ones). Held fixed.

    Shapes: kl_advantages `[...]`, objective_advantages `[..., K]`, multipliers `[K]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes do not agree, or not floating.

    Paper: Moskovitz et al., 2023, arXiv 2310.04373.
    """
    (kl,), (of_objectives,) = checks.floats(kl=kl_advantages), checks.floats(objective_advantages=objective_advantages)
    checks.leading_shape(kl_advantages=kl, objective_advantages=of_objectives)
    count = of_objectives.shape[-1]
    weights = objectives.vector(count, multipliers=multipliers)
    return (count - jnp.sum(weights)) * _stop(kl) + jnp.sum(_stop(of_objectives) * weights, axis=-1)


def _moved(squash, raw, velocity, returns, lengths, valid, thresholds, learning_rate, momentum, clip, axis_name):
    """[2, K]: raw multipliers and velocities after one step of descent on sum_i w_i(u) (J_i - theta_i)."""
    checks.number("learning_rate", learning_rate, 0.0)
    checks.number("momentum", momentum, 0.0, 1.0, closed="left")
    checks.number("clip", clip, 0.0)
    returns = objectives.checked(valid, objective_rewards=returns)
    count = returns.shape[-1]
    thresholds = checks.constants("thresholds", thresholds, count).astype(returns.dtype)
    checks.integers(lengths=lengths)
    checks.same_shape(valid=valid, lengths=lengths)
    tokens = keep(lengths, valid, 0).astype(returns.dtype)
    total = objectives.total(tokens, axis_name)
    mean = objectives.total(returns * tokens[:, None], axis_name) / jnp.maximum(total, 1)
    slope = jax.vmap(jax.grad(squash))(raw)
    gradient = slope * (mean - thresholds)
    norm = jnp.sqrt(jnp.sum(jnp.square(gradient)))
    gradient = gradient * jnp.minimum(1.0, clip / jnp.maximum(norm, 1e-12))
    velocity_after = momentum * velocity + gradient
    moved = jnp.stack([raw - learning_rate * velocity_after, velocity_after])
    return jnp.where(total > 0, moved, jnp.stack([raw, velocity]))


def _checked_multipliers(multipliers: Array) -> tuple[Array, Array]:
    (multipliers,) = checks.floats(multipliers=multipliers)
    if multipliers.ndim != 2 or multipliers.shape[0] != 2:
        raise AssertionError(f"multipliers must have shape (2, 'K'), raw ones and velocities, got {multipliers.shape}")
    return tuple(_stop(multipliers))


def mu_multiplier_update(
    multipliers: Array,
    objective_rewards: Array,
    lengths: Array,
    valid: Array,
    *,
    thresholds: Sequence[float] = (0.0, 0.0),
    learning_rate: float = 0.1,
    momentum: float = 0.1,
    clip: float = 0.5,
    axis_name: Any = None,
) -> Array:
    """u <- u - lr v,  v <- momentum v + d/du sum_i sigmoid(u_i) (J_i - theta_i): weights of inequality constraints.

    An objective below its threshold gains weight. J_i is the mean over the batch's tokens of the return that is still
    to come, and so, the reward being paid at the end, the mean over completions weighted by their lengths. The gradient
    is clipped to norm `clip`.

    Args:
      multipliers: u and the velocities v. Held fixed, as is all here.
      objective_rewards: reward of each completion under each objective, on their raw scale.
      lengths: integer, tokens of each completion.
      valid: bool, False for rows that do not count; a batch of none leaves the multipliers.
      thresholds: theta, the proxy points, one per objective.
      learning_rate: in (0, inf).
      momentum: in [0, 1).
      clip: in (0, inf).
      axis_name: mapped axis (or axes) over which the batch is split.

    Shapes: multipliers `[2, K]`, objective_rewards `[N, K]`, lengths and valid `[N]`; result float32 `[2, K]`.

    Raises:
      AssertionError: shapes do not agree, multipliers or rewards not floating, lengths not integer, valid not bool.
      ValueError: thresholds are not K numbers, or a static hyperparameter out of range.

    Paper: Moskovitz et al., 2023, arXiv 2310.04373 (mu-PPO), with the published code's optimiser.
    """
    raw, velocity = _checked_multipliers(multipliers)
    return _moved(jax.nn.sigmoid, raw, velocity, objective_rewards, lengths, valid, thresholds, learning_rate, momentum,
                  clip, axis_name)  # fmt: skip


def xi_multiplier_update(
    multipliers: Array,
    objective_rewards: Array,
    lengths: Array,
    valid: Array,
    *,
    thresholds: Sequence[float] = (0.0, 0.0),
    learning_rate: float = 0.1,
    momentum: float = 0.1,
    clip: float = 0.5,
    axis_name: Any = None,
) -> Array:
    """`mu_multiplier_update` with tanh in place of the sigmoid: weights of equality constraints, in (-1, 1).

    An objective above its threshold gets a negative weight in the end and is pushed down.

    Args:
      multipliers, objective_rewards, lengths, valid: as in `mu_multiplier_update`. Held fixed.
      thresholds: theta, the proxy points, one per objective.
      learning_rate: in (0, inf).
      momentum: in [0, 1).
      clip: in (0, inf).
      axis_name: mapped axis (or axes) over which the batch is split.

    Shapes: multipliers `[2, K]`, objective_rewards `[N, K]`, lengths and valid `[N]`; result float32 `[2, K]`.

    Raises:
      AssertionError: shapes do not agree, multipliers or rewards not floating, lengths not integer, valid not bool.
      ValueError: thresholds are not K numbers, or a static hyperparameter out of range.

    Paper: Moskovitz et al., 2023, arXiv 2310.04373 (xi-PPO), with the published code's optimiser.
    """
    raw, velocity = _checked_multipliers(multipliers)
    return _moved(jnp.tanh, raw, velocity, objective_rewards, lengths, valid, thresholds, learning_rate, momentum, clip,
                  axis_name)  # fmt: skip


class MultiplierState(NamedTuple):
    """multipliers: float32 [2, K], the raw ones and their velocities."""

    multipliers: Array


def _multiplier_init(
    *,
    thresholds: Sequence[float] = (0.0, 0.0),
    learning_rate: float = 0.1,
    momentum: float = 0.1,
    clip: float = 0.5,
    seed: int = 0,
) -> MultiplierState:
    """Raw multipliers near 0, from N(0, 0.01^2)."""
    del learning_rate, momentum, clip
    checks.constants("thresholds", thresholds, len(thresholds))
    raw = 0.01 * jax.random.normal(jax.random.key(seed), (len(thresholds),), jnp.float32)
    return MultiplierState(jnp.stack([raw, jnp.zeros_like(raw)]))


def _standardised(values: Array, counts: Array, axis_name: Any) -> Array:
    """Mean 0 and deviation 1 over the rows [R, K] that count [R], column by column; equal values give 0."""
    there = counts[:, None]
    low, high = jnp.min(jnp.where(there, values, jnp.inf), axis=0), jnp.max(jnp.where(there, values, -jnp.inf), axis=0)
    if axis_name is not None:
        low, high = jax.lax.pmin(low, axis_name), jax.lax.pmax(high, axis_name)
    count = jnp.maximum(objectives.total(counts.astype(values.dtype), axis_name), 1)
    mean = objectives.total(jnp.where(there, values, 0.0), axis_name) / count
    variance = objectives.total(jnp.where(there, jnp.square(values - mean), 0.0), axis_name) / count
    # In float32 the deviations of equal numbers from their mean are not 0, and must not be blown up.
    spread = (high > low) & (variance > 0)
    return jnp.where(there & spread, (values - mean) / jnp.sqrt(jnp.where(spread, variance, 1.0)), 0.0)


def _mixed(squash, objective_rewards, behaviour_token_logps, reference_token_logps, mask, valid, state, axis_name):
    rewards = objectives.checked(valid, objective_rewards=objective_rewards)
    behaviour, reference = checks.floats(
        behaviour_token_logps=behaviour_token_logps, reference_token_logps=reference_token_logps
    )
    checks.leading_shape(valid=valid, behaviour_token_logps=behaviour)
    checks.boolean(mask=mask)
    checks.same_shape(behaviour_token_logps=behaviour, mask=mask)
    raw, _ = _checked_multipliers(state.multipliers)
    counts = mask & valid[..., None]
    kl_rewards = keep(_stop(reference), counts) - keep(_stop(behaviour), counts)
    to_go = jnp.cumsum(kl_rewards[..., ::-1], axis=-1)[..., ::-1]
    each = jnp.broadcast_to(rewards[:, None, :], (*mask.shape, rewards.shape[-1]))
    streams = jnp.concatenate([to_go[..., None], each], axis=-1)
    scaled = _standardised(streams.reshape(-1, streams.shape[-1]), counts.reshape(-1), axis_name).reshape(streams.shape)
    mixed = mixed_advantages(scaled[..., 0], scaled[..., 1:], squash(raw).astype(rewards.dtype))
    lengths = jnp.sum(mask, axis=-1, dtype=jnp.int32)
    return keep(mixed, counts), {"objective_rewards": rewards, "lengths": lengths, "valid": valid}


def _mu_loss(
    objective_rewards: Array,
    behaviour_token_logps: Array,
    reference_token_logps: Array,
    mask: Array,
    valid: Array,
    state: MultiplierState,
    *,
    thresholds: Sequence[float] = (0.0, 0.0),
    learning_rate: float = 0.1,
    momentum: float = 0.1,
    clip: float = 0.5,
    seed: int = 0,
    axis_name: Any = None,
) -> tuple[Array, dict[str, Array]]:
    """mu-PPO's token advantages: A = (K - sum_i s(u_i)) A_KL + sum_i s(u_i) A_i, each reward at least its threshold.

    A_KL is the KL reward log ref - log pi summed from a token to the end, A_i the reward i of the completion; each is
    standardised over the tokens of the batch before they are mixed. With an `importance_cap` or several epochs the
    clipped surrogate is PPO's. An objective that all completions score alike has advantage 0.

    Args:
      objective_rewards: reward of each completion under each objective, on their raw scale. Held fixed, as is all here.
      behaviour_token_logps: log-probs of the sampled tokens under the policy that sampled.
      reference_token_logps: the same under the reference.
      mask: bool, True on completion tokens.
      valid: bool, False for rows that do not count.
      state: from `constrained_rlhf_mu.init` or `.update`.
      thresholds: theta, the proxy points, one per objective.
      learning_rate: of the multipliers, in (0, inf).
      momentum: of the multipliers, in [0, 1).
      clip: of the norm of their gradient, in (0, inf).
      seed: of the first multipliers, N(0, 0.01^2).
      axis_name: mapped axis (or axes) over which the batch is split.

    Shapes: objective_rewards `[N, K]`, log-probs and mask `[N, T]`, valid `[N]`, state.multipliers `[2, K]`; values
    float32 `[N, T]`, 0 where nothing counts; aux holds objective_rewards, lengths and valid.

    Raises:
      AssertionError: shapes do not agree, or an array of the wrong type.
      ValueError: thresholds are not K numbers, or a static hyperparameter out of range.

    Paper: Moskovitz et al., 2023, arXiv 2310.04373. The paper estimates each advantage by GAE with a value head of its
    own (K + 1 of them); rewards to go without a critic stand here.
    """
    return _mixed(jax.nn.sigmoid, objective_rewards, behaviour_token_logps, reference_token_logps, mask, valid,
                  _with_thresholds(state, thresholds, learning_rate, momentum, clip), axis_name)  # fmt: skip


def _xi_loss(
    objective_rewards: Array,
    behaviour_token_logps: Array,
    reference_token_logps: Array,
    mask: Array,
    valid: Array,
    state: MultiplierState,
    *,
    thresholds: Sequence[float] = (0.0, 0.0),
    learning_rate: float = 0.1,
    momentum: float = 0.1,
    clip: float = 0.5,
    seed: int = 0,
    axis_name: Any = None,
) -> tuple[Array, dict[str, Array]]:
    """xi-PPO's token advantages: `constrained_rlhf_mu` with tanh(u_i), each reward exactly its threshold.

    A reward above its threshold gets a negative weight and is pushed down.

    Args:
      objective_rewards, behaviour_token_logps, reference_token_logps, mask, valid: as in `constrained_rlhf_mu`.
      state: from `constrained_rlhf_xi.init` or `.update`.
      thresholds: theta, the proxy points, one per objective.
      learning_rate: of the multipliers, in (0, inf).
      momentum: of the multipliers, in [0, 1).
      clip: of the norm of their gradient, in (0, inf).
      seed: of the first multipliers, N(0, 0.01^2).
      axis_name: mapped axis (or axes) over which the batch is split.

    Shapes: objective_rewards `[N, K]`, log-probs and mask `[N, T]`, valid `[N]`, state.multipliers `[2, K]`; values
    float32 `[N, T]`, 0 where nothing counts; aux holds objective_rewards, lengths and valid.

    Raises:
      AssertionError: shapes do not agree, or an array of the wrong type.
      ValueError: thresholds are not K numbers, or a static hyperparameter out of range.

    Paper: Moskovitz et al., 2023, arXiv 2310.04373.
    """
    return _mixed(jnp.tanh, objective_rewards, behaviour_token_logps, reference_token_logps, mask, valid,
                  _with_thresholds(state, thresholds, learning_rate, momentum, clip), axis_name)  # fmt: skip


def _with_thresholds(state, thresholds, learning_rate, momentum, clip) -> MultiplierState:
    """The state, if the hyperparameters that the update will use are in range: an error before the first rollout."""
    _checked_multipliers(state.multipliers)
    checks.constants("thresholds", thresholds, state.multipliers.shape[-1])
    checks.number("learning_rate", learning_rate, 0.0)
    checks.number("momentum", momentum, 0.0, 1.0, closed="left")
    checks.number("clip", clip, 0.0)
    return state


def _mu_update(
    state: MultiplierState,
    aux: dict[str, Array],
    *,
    thresholds: Sequence[float] = (0.0, 0.0),
    learning_rate: float = 0.1,
    momentum: float = 0.1,
    clip: float = 0.5,
    seed: int = 0,
    axis_name: Any = None,
) -> MultiplierState:
    """One step of `mu_multiplier_update` with the aux of the whole batch."""
    del seed
    moved = mu_multiplier_update(
        state.multipliers, **aux, thresholds=thresholds, learning_rate=learning_rate, momentum=momentum, clip=clip,
        axis_name=axis_name,
    )  # fmt: skip
    return MultiplierState(moved.astype(state.multipliers.dtype))


def _xi_update(
    state: MultiplierState,
    aux: dict[str, Array],
    *,
    thresholds: Sequence[float] = (0.0, 0.0),
    learning_rate: float = 0.1,
    momentum: float = 0.1,
    clip: float = 0.5,
    seed: int = 0,
    axis_name: Any = None,
) -> MultiplierState:
    """One step of `xi_multiplier_update` with the aux of the whole batch."""
    del seed
    moved = xi_multiplier_update(
        state.multipliers, **aux, thresholds=thresholds, learning_rate=learning_rate, momentum=momentum, clip=clip,
        axis_name=axis_name,
    )  # fmt: skip
    return MultiplierState(moved.astype(state.multipliers.dtype))


constrained_rlhf_mu = StatefulKernel(init=_multiplier_init, loss=_mu_loss, update=_mu_update)
"""Advantages under inequality constraints; see `constrained_rlhf_mu.loss`."""
constrained_rlhf_xi = StatefulKernel(init=_multiplier_init, loss=_xi_loss, update=_xi_update)
"""Advantages under equality constraints; see `constrained_rlhf_xi.loss`."""


def ppo_sat_rewards(
    objective_rewards: Array,
    valid: Array,
    *,
    weights: Sequence[float] = (0.5, 0.5),
    thresholds: Sequence[float] = (1.0, 1.0),
) -> Array:
    """R = sum_k w_k min(r_k, theta_k): fixed weights, and nothing to gain above a proxy point (the baseline PPO-SAT).

    Args:
      objective_rewards: reward of each completion under each objective. Held fixed.
      valid: bool, False for rows that are not there.
      weights: w, one for each objective, at least 0, with sum 1.
      thresholds: theta, the proxy points, one per objective.

    Shapes: objective_rewards `[..., K]`, valid `[...]`; result float32 `[...]`, 0 where not valid.

    Raises:
      AssertionError: shapes do not agree, rewards not floating, valid not bool.
      ValueError: weights are not K numbers of the simplex, or thresholds not K numbers.

    Paper: Moskovitz et al., 2023, arXiv 2310.04373.
    """
    rewards = objectives.checked(valid, objective_rewards=objective_rewards)
    count = rewards.shape[-1]
    limits = checks.constants("thresholds", thresholds, count).astype(rewards.dtype)
    weights = checks.simplex("weights", weights, count).astype(rewards.dtype)
    return keep(jnp.minimum(rewards, limits) @ weights, valid)


# ------------------------------------------------------------------------------------------------------- safe RLHF


class SafeState(NamedTuple):
    """log_multiplier: float32 [], log lambda; mean_cost: float32 [], moving mean; batches: int32 [], seen so far."""

    log_multiplier: Array
    mean_cost: Array
    batches: Array


def _check_safe(d, eta, multiplier, largest, decay) -> None:
    checks.number("d", d, -float("inf"))
    checks.number("eta", eta, 0.0)
    checks.number("multiplier", multiplier, 0.0)
    checks.number("largest", largest, 0.0)
    checks.number("decay", decay, 0.0, 1.0, closed="left")


def _safe_init(
    *, d: float = 0.0, eta: float = 0.1, multiplier: float = 1.0, largest: float = 5.0, decay: float = 0.9
) -> SafeState:
    _check_safe(d, eta, multiplier, largest, decay)
    zero = jnp.zeros((), jnp.float32)
    return SafeState(jnp.log(jnp.asarray(multiplier, jnp.float32)), zero, jnp.zeros((), jnp.int32))


def _safe_loss(
    objective_rewards: Array,
    valid: Array,
    state: SafeState,
    *,
    d: float = 0.0,
    eta: float = 0.1,
    multiplier: float = 1.0,
    largest: float = 5.0,
    decay: float = 0.9,
) -> tuple[Array, dict[str, Array]]:
    """Safe RLHF: R = (r - lambda c) / (1 + lambda), the first objective the reward r, the second the cost c.

    lambda = 0 is the reward alone, lambda to infinity minus the cost. Any estimator that is linear in the reward turns
    it into the paper's A = (A_R - lambda A_C) / (1 + lambda). The paper takes half of the KL penalty from the reward
    and adds half to the cost, which together is a constant half of it: put that half into the objective.

    After each batch  log lambda <- log lambda + eta lambda J,  J the moving mean of c + d: the constraint is J <= 0.
    If it cannot be met lambda stops at `largest`.

    Args:
      objective_rewards: reward and cost of each completion; a cost above 0 is harm. Held fixed.
      valid: bool, False for rows that are not there.
      state: from `safe_rlhf.init` or `.update`.
      d: added to the cost, in (-inf, inf); 0.5 asks for a mean cost of -0.5.
      eta: step of log lambda, in (0, inf).
      multiplier: lambda at the start, in (0, inf).
      largest: lambda stays at or below it, in (0, inf).
      decay: of the moving mean of costs, in [0, 1); the first batch sets the mean.

    Shapes: objective_rewards `[..., 2]`, valid `[...]`, state scalars; values float32 `[...]`, 0 where not valid; aux
    holds `costs` and `valid`, `[...]`.

    Raises:
      AssertionError: not two objectives, shapes do not agree, rewards not floating, valid not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Dai et al., 2023, arXiv 2310.12773. The published code averages the costs of the last 128 episodes; a moving
    mean stands here.
    """
    _check_safe(d, eta, multiplier, largest, decay)
    rewards = objectives.checked(valid, objective_rewards=objective_rewards)
    if rewards.shape[-1] != 2:
        raise AssertionError(f"objective_rewards must have 2 columns, reward and cost, got shape {rewards.shape}")
    # Sigmoids, so that no lambda overflows: 1 / (1 + lambda) and lambda / (1 + lambda).
    (log_lambda,) = checks.floats(log_multiplier=state.log_multiplier)
    log_lambda = _stop(log_lambda).astype(rewards.dtype)
    values = jax.nn.sigmoid(-log_lambda) * rewards[..., 0] - jax.nn.sigmoid(log_lambda) * rewards[..., 1]
    return keep(values, valid), {"costs": rewards[..., 1], "valid": valid}


def _safe_update(
    state: SafeState,
    aux: dict[str, Array],
    *,
    d: float = 0.0,
    eta: float = 0.1,
    multiplier: float = 1.0,
    largest: float = 5.0,
    decay: float = 0.9,
    axis_name: Any = None,
) -> SafeState:
    """One step of log lambda with the costs of the whole batch; a batch without a valid row changes nothing."""
    _check_safe(d, eta, multiplier, largest, decay)
    costs, valid = aux["costs"], aux["valid"]
    count = objectives.total(valid.astype(costs.dtype), axis_name)
    batch_mean = objectives.total(keep(costs, valid), axis_name) / jnp.maximum(count, 1)
    mean = jnp.where(state.batches > 0, decay * state.mean_cost + (1 - decay) * batch_mean, batch_mean)
    moved = state.log_multiplier + eta * jnp.exp(jnp.minimum(state.log_multiplier, 20.0)) * (mean + d)
    # Below 1e-8 the cost counts for nothing; a floor keeps a long calm from making lambda unable to come back.
    moved = jnp.clip(moved, jnp.log(1e-8), jnp.log(largest))
    new = SafeState(moved.astype(jnp.float32), mean.astype(jnp.float32), state.batches + 1)
    return jax.tree.map(lambda after, before: jnp.where(count > 0, after, before), new, state)


safe_rlhf = StatefulKernel(init=_safe_init, loss=_safe_loss, update=_safe_update)
"""Reward less a cost whose multiplier learns; see `safe_rlhf.loss`."""
