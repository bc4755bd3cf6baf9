"""Losses that compare the sorted samples of a whole batch instead of each pair with itself.

Alignment via Optimal Transport (AOT) wants the distribution of one quantity to lie above that of another at every
quantile (first-order stochastic dominance). On a batch: sort both samples, and compare what stands at the same place.

    u_(1) <= ... <= u_(n), v_(1) <= ... <= v_(n);  loss = mean over k of l(beta * (u_(k) - v_(k)))

with l the logistic link. The value returned for an example is that of the place which its u takes, so values add up to
the same mean, and a shard of the batch returns its own examples' values. A place is a fact of the whole batch: the loss
of a smaller batch is another loss, micro-batches do not add up, and a batch split over devices has to be gathered
(`axis_name`; under `jit` over a mesh nothing is to be done). Equal values keep the order of the batch; rows that only
pad the batch (`valid` False) take no place.
"""

from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses import links
from alignment.losses.masking import keep

Array = jax.Array
_stop = jax.lax.stop_gradient


def _order(values: Array, valid: Array) -> Array:
    """Indices that sort the values upwards, all valid rows first (before any other, whatever their values)."""
    return jnp.lexsort((values, ~valid))


def _at_same_place(mine: Array, others: Array, valid: Array, axis_name: Any) -> Array:
    """For each row i of `mine`, the one of `others` that stands where i stands when both are sorted; `[B]` all.

    Gradients pass to `others` through the gather (and across devices through that of the shards); the orders are
    piecewise constant and have none.
    """
    size, start = mine.shape[0], 0
    if axis_name is not None:
        start = jax.lax.axis_index(axis_name) * size
        mine, others, valid = (jax.lax.all_gather(x, axis_name, tiled=True) for x in (mine, others, valid))
    order = _order(_stop(mine), valid)
    partners = jnp.zeros_like(order).at[order].set(_order(_stop(others), valid))
    return others[jax.lax.dynamic_slice_in_dim(partners, start, size)]


def _checked(
    policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps,
    valid, beta, label_smoothing,
) -> list[Array]:  # fmt: skip
    """Entry checks, and the four log-probs as float32, 0 in rows that only pad; the reference's held fixed."""
    logps = checks.floats(
        policy_chosen_logps=policy_chosen_logps,
        policy_rejected_logps=policy_rejected_logps,
        reference_chosen_logps=reference_chosen_logps,
        reference_rejected_logps=reference_rejected_logps,
    )
    if logps[0].ndim != 1:
        raise AssertionError(f"log-probs must have shape ('B',), the whole batch on one axis, got {logps[0].shape}")
    checks.boolean(valid=valid)
    checks.same_shape(policy_chosen_logps=logps[0], valid=valid)
    checks.number("beta", beta, 0.0)
    checks.number("label_smoothing", label_smoothing, 0.0, 0.5, closed="left")
    policy_chosen, policy_rejected, *reference = (keep(x, valid) for x in logps)
    return [policy_chosen, policy_rejected, *map(_stop, reference)]


def aot_paired(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    valid: Array,
    *,
    beta: float = 0.01,
    label_smoothing: float = 0.0,
    axis_name: Any = None,
) -> Array:
    """AOT on pairs: the sorted margins of the policy against the sorted margins of the reference.

        u_i = log pi(y_w|x_i) - log pi(y_l|x_i),  v_i = log ref(y_w|x_i) - log ref(y_l|x_i), both sorted over the batch
        loss_(k) = -(1 - e) log s(beta * (u_(k) - v_(k))) - e log s(-beta * (u_(k) - v_(k)))

    The policy's margins as a whole are pushed above the reference's, quantile by quantile; `cdpo` holds each margin
    against that of the same pair. The value at example i is that of the place of its u_i. Use as large a batch as fits.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      valid: bool, False for rows that only pad the batch; nothing in them is looked at, and their value is 0.
      beta: in (0, inf).
      label_smoothing: e in [0, 1/2).
      axis_name: mapped axis (or axes) over which the batch is split; the sort is then over the whole batch.

    Shapes: all `[B]`, one axis; result float32 `[B]`, in nats.

    Raises:
      AssertionError: shapes differ or are not [B], log-probs not floating, valid not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Melnyk et al., 2024, arXiv 2406.05882. TRL's 'aot' since its renaming; in older TRL 'aot' was the unpaired
    loss and this one 'aot_pair'. TRL sorts within each device, here the batch is the global one.
    """
    policy_chosen, policy_rejected, reference_chosen, reference_rejected = _checked(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps,
        valid, beta, label_smoothing,
    )  # fmt: skip
    u, v = policy_chosen - policy_rejected, reference_chosen - reference_rejected
    return keep(links.logistic(beta * (u - _at_same_place(u, v, valid, axis_name)), label_smoothing), valid)


def aot_unpaired(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    valid: Array,
    *,
    beta: float = 0.01,
    label_smoothing: float = 0.0,
    axis_name: Any = None,
) -> Array:
    """AOT on unpaired completions: the sorted log-ratios of the chosen side against those of the rejected side.

        u_i = log pi(y_w,i) - log ref(y_w,i),  v_i = log pi(y_l,i) - log ref(y_l,i), both sorted over the batch
        loss_(k) = -(1 - e) log s(beta * (u_(k) - v_(k))) - e log s(-beta * (u_(k) - v_(k)))

    Which rejected completion stands in which row does not matter, so the two sides may belong to different prompts. The
    value at example i is that of the place of its chosen side's u_i, and trains the rejected completion at that place,
    of whatever row it is. The mean is at most that of `cdpo` on the same rows: among all couplings of two samples the
    sorted one has the least convex cost.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      valid: bool, False for rows that only pad the batch; nothing in them is looked at, and their value is 0.
      beta: in (0, inf).
      label_smoothing: e in [0, 1/2).
      axis_name: mapped axis (or axes) over which the batch is split; the sort is then over the whole batch.

    Shapes: all `[B]`, one axis; result float32 `[B]`, in nats.

    Raises:
      AssertionError: shapes differ or are not [B], log-probs not floating, valid not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Melnyk et al., 2024, arXiv 2406.05882. TRL's 'aot_unpaired' (in older TRL 'aot'), which sorts within each
    device; here the batch is the global one.
    """
    policy_chosen, policy_rejected, reference_chosen, reference_rejected = _checked(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps,
        valid, beta, label_smoothing,
    )  # fmt: skip
    u, v = policy_chosen - reference_chosen, policy_rejected - reference_rejected
    return keep(links.logistic(beta * (u - _at_same_place(u, v, valid, axis_name)), label_smoothing), valid)
