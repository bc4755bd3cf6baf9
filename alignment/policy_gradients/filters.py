"""Policy filtration: which of a prompt's responses a reward model can be trusted on.

Weights for the responses of each group, to be used as probabilities when PPO's buffer is drawn with replacement
(`jax.random.choice(key, N, (N,), p=weights / weights.sum())`), or, with the same expectation, as weights of the loss.
`pf_r_squared` is what the filter is chosen by. Groups are told by equal `group_ids`, wherever they stand; rows with
`valid` False weigh 0. Of equal rewards the first in the batch is the top, and the last the bottom.
"""

from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks

Array = jax.Array
_stop = jax.lax.stop_gradient


def _checked(rewards: Array, group_ids: Array, valid: Array) -> Array:
    (rewards,) = checks.floats(rewards=rewards)
    checks.integers(group_ids=group_ids)
    checks.boolean(valid=valid)
    checks.same_shape(rewards=rewards, group_ids=group_ids, valid=valid)
    if rewards.ndim != 1:
        raise AssertionError(f"rewards must have shape ('N',), the whole batch on one axis, got {rewards.shape}")
    return _stop(jnp.where(valid, rewards, 0.0))


def _extremes(rewards: Array, group_ids: Array, valid: Array, axis_name: Any) -> tuple[Array, Array]:
    """Whether each row is the top, and whether it is the bottom, of its group; exactly one valid row of each is."""
    size, start = rewards.shape[0], 0
    others = (rewards, group_ids, valid)
    if axis_name is not None:
        start = jax.lax.axis_index(axis_name) * size
        others = tuple(jax.lax.all_gather(x, axis_name, tiled=True) for x in others)
    other_rewards, other_ids, other_valid = others
    mates = (group_ids[:, None] == other_ids) & other_valid
    earlier = jnp.arange(other_ids.shape[0]) < (start + jnp.arange(size))[:, None]
    later = jnp.arange(other_ids.shape[0]) > (start + jnp.arange(size))[:, None]
    mine = rewards[:, None]
    above = mates & ((other_rewards > mine) | ((other_rewards == mine) & earlier))
    below = mates & ((other_rewards < mine) | ((other_rewards == mine) & later))
    return valid & ~jnp.any(above, axis=1), valid & ~jnp.any(below, axis=1)


def pf_bon_weights(rewards: Array, group_ids: Array, valid: Array, *, axis_name: Any = None) -> Array:
    """Best of N: 1 for the top response of each group, 0 for the others.

    Removes every bad example, which costs PPO its negative signal; here for comparison.

    Args:
      rewards: score of each response. Held fixed.
      group_ids: integers; responses to one prompt share theirs.
      valid: bool, False for rows that only pad the batch.
      axis_name: mapped axis (or axes) over which the batch is split, if it is; groups may straddle the pieces.

    Shapes: all `[N]`; result float32 `[N]`. No gradient passes.

    Raises:
      AssertionError: shapes differ or are not `[N]`, or dtypes are wrong.

    Paper: Shen and Zhang, 2024, arXiv 2409.06957.
    """
    rewards = _checked(rewards, group_ids, valid)
    top, _ = _extremes(rewards, group_ids, valid, axis_name)
    return top.astype(rewards.dtype)


def pf_br_weights(
    rewards: Array,
    group_ids: Array,
    valid: Array,
    *,
    top: float = 0.4,
    rest: float = 0.1,
    axis_name: Any = None,
) -> Array:
    """Best and random: `top` for the top response of each group, `rest` for each of the others.

    With the defaults a group of N has mass 0.4 + 0.1 (N - 1).

    Args:
      rewards: score of each response. Held fixed.
      group_ids: integers; responses to one prompt share theirs.
      valid: bool, False for rows that only pad the batch.
      top, rest: weights, in [0, inf).
      axis_name: mapped axis (or axes) over which the batch is split, if it is.

    Shapes: all `[N]`; result float32 `[N]`. No gradient passes.

    Raises:
      AssertionError: shapes differ or are not `[N]`, or dtypes are wrong.
      ValueError: a static weight out of range.

    Paper: Shen and Zhang, 2024, arXiv 2409.06957. The authors' replay buffer works per prompt, as here; verl's
    `compute_pf_ppo_reweight_data` takes the largest and smallest reward of the whole batch.
    """
    rewards = _checked(rewards, group_ids, valid)
    checks.number("top", top, 0.0, closed="left")
    checks.number("rest", rest, 0.0, closed="left")
    is_top, _ = _extremes(rewards, group_ids, valid, axis_name)
    weights = jnp.where(is_top, top, rest).astype(rewards.dtype)
    return _stop(jnp.where(valid, weights, 0.0))


def pf_bw_weights(rewards: Array, group_ids: Array, valid: Array, *, axis_name: Any = None) -> Array:
    """Best and worst: 1 for the top and for the bottom response of each group, 0 for the others.

    The responses on which a reward model tends to be right, one good and one bad. A group of two is kept whole; a group
    of one has its response once.

    Args:
      rewards: score of each response. Held fixed.
      group_ids: integers; responses to one prompt share theirs.
      valid: bool, False for rows that only pad the batch.
      axis_name: mapped axis (or axes) over which the batch is split, if it is.

    Shapes: all `[N]`; result float32 `[N]`. No gradient passes.

    Raises:
      AssertionError: shapes differ or are not `[N]`, or dtypes are wrong.

    Paper: Shen and Zhang, 2024, arXiv 2409.06957. Per prompt, as the authors' code; verl's `max_min` keeps two
    responses of the whole batch.
    """
    rewards = _checked(rewards, group_ids, valid)
    top, bottom = _extremes(rewards, group_ids, valid, axis_name)
    return (top | bottom).astype(rewards.dtype)


def pf_pow_weights(rewards: Array, valid: Array, *, power: float = 2.0) -> Array:
    """Power: |R|^power, so that responses whose reward is far from 0, good or bad, are drawn more often.

    Rewards are to be centred; the weights of a row depend on no other row. power = 0 is no filter.

    Args:
      rewards: score of each response. Held fixed.
      valid: bool, False for rows that only pad the batch.
      power: in [0, inf).

    Shapes: both `[...]`, usually `[N]`; result float32 `[...]`. No gradient passes.

    Raises:
      AssertionError: shapes differ or dtypes are wrong.
      ValueError: static power out of range.

    Paper: Shen and Zhang, 2024, arXiv 2409.06957, with the square; the name and the exponent as in verl's
    `compute_pf_ppo_reweight_data`.
    """
    (rewards,) = checks.floats(rewards=rewards)
    checks.boolean(valid=valid)
    checks.same_shape(rewards=rewards, valid=valid)
    checks.number("power", power, 0.0, closed="left")
    return _stop(jnp.where(valid, jnp.abs(jnp.where(valid, rewards, 0.0)) ** power, 0.0))


def pf_r_squared(rewards: Array, true_rewards: Array, weights: Array, valid: Array, *, axis_name: Any = None) -> Array:
    """R^2 of the true score fitted on the reward over filtered responses: cov_w(r, s)^2 / (var_w(r) var_w(s)).

    How far the reward model can be trusted on what a filter keeps. Choose the filter with a high R^2 that still keeps
    good and bad responses. The paper bins the responses by reward first; how is a free choice, left to the caller
    (average both scores within bins, and pass the bins' masses as weights).

    Args:
      rewards: score by the reward model. Held fixed.
      true_rewards: the score that it stands for. Held fixed.
      weights: of the filter, >= 0, not necessarily of sum 1. Held fixed.
      valid: bool, False for rows that only pad the batch.
      axis_name: mapped axis (or axes) over which the batch is split, if it is.

    Shapes: all `[N]`; result float32 `[]`, in [0, 1]; 0 where either score does not vary. No gradient passes.

    Raises:
      AssertionError: shapes differ or dtypes are wrong.

    Paper: Shen and Zhang, 2024, arXiv 2409.06957.
    """
    rewards, scores, weights = checks.floats(rewards=rewards, true_rewards=true_rewards, weights=weights)
    checks.boolean(valid=valid)
    checks.same_shape(rewards=rewards, valid=valid)
    rewards, scores, weights = (_stop(jnp.where(valid, x, 0.0)) for x in (rewards, scores, weights))

    def total(values: Array) -> Array:
        values = jnp.sum(values)
        return values if axis_name is None else jax.lax.psum(values, axis_name)

    mass = total(weights)
    shares = weights / jnp.where(mass > 0, mass, 1.0)
    r, s = (x - total(shares * x) for x in (rewards, scores))
    covariance, var_r, var_s = (total(shares * a * b) for a, b in ((r, s), (r, r), (s, s)))
    varies = (var_r > 0) & (var_s > 0)
    # One quotient at a time: the product of the variances leaves float32 for scores of 1e10.
    slopes = (covariance / jnp.where(varies, v, 1.0) for v in (var_r, var_s))
    return jnp.where(varies, jnp.minimum(next(slopes) * next(slopes), 1.0), 0.0)
