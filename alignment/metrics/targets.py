"""Distances: against a teacher, or towards a target distribution."""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep

Array = jax.Array
_stop = jax.lax.stop_gradient


def kl_to_teacher(teacher_token_kls: Array, mask: Array) -> Array:
    """KL(policy || teacher) over the vocabulary at each position, in nats.

    Shapes: `[B, T]` each; result float32 `[B, T]`.
    """
    return _stop(keep(*checks.floats(teacher_token_kls=teacher_token_kls), mask))


def forward_kl_to_teacher(teacher_token_forward_kls: Array, mask: Array) -> Array:
    """KL(teacher || policy) over the vocabulary at each position, in nats.

    Shapes: `[B, T]` each; result float32 `[B, T]`.
    """
    return _stop(keep(*checks.floats(teacher_token_forward_kls=teacher_token_forward_kls), mask))


def draft_acceptance(teacher_token_total_variations: Array, mask: Array) -> Array:
    """How likely the teacher accepts a token that the policy drafts: 1 - TV (Leviathan et al., 2022, arXiv 2211.17192).

    Shapes: `[B, T]` each; result float32 `[B, T]`.
    """
    (distances,) = checks.floats(teacher_token_total_variations=teacher_token_total_variations)
    return _stop(keep(1 - distances, mask))


def target_kl(policy_logps: Array, behaviour_logps: Array, target_logps: Array, log_partitions: Array) -> Array:
    """KL(target || policy), of which the mean over samples of any q is an estimate: P / (Z q) log(P / pi) - log Z.

    The log-weight is bounded at 20; a completion without probability under the target (below -5e29) gives -log Z.
    Shapes: `[B]` each; result float32 `[B]`, in nats.
    """
    gap, weight, log_z = _weighted(policy_logps, behaviour_logps, target_logps, log_partitions)
    return _stop(weight * gap - log_z)


def target_kl_gain(policy_logps: Array, behaviour_logps: Array, target_logps: Array, log_partitions: Array) -> Array:
    """KL(target || q) - KL(target || policy), of which the mean over samples of q is an estimate.

    P / (Z q) log(policy / q): above 0 where the policy has come nearer to the target than what sampled.
    Shapes: `[B]` each; result float32 `[B]`, in nats.
    """
    weight = _weighted(policy_logps, behaviour_logps, target_logps, log_partitions)[1]
    return _stop(weight * (policy_logps - behaviour_logps)).astype(weight.dtype)


def target_total_variation(
    policy_logps: Array, behaviour_logps: Array, target_logps: Array, log_partitions: Array
) -> Array:
    """Total variation between target and policy, of which the mean over samples of any q is an estimate.

    |pi / q - P / (Z q)| / 2. Shapes: `[B]` each; result float32 `[B]`.
    """
    weight = _weighted(policy_logps, behaviour_logps, target_logps, log_partitions)[1]
    ratio = jnp.exp(jnp.clip(policy_logps - behaviour_logps, -20.0, 20.0))
    return _stop(0.5 * jnp.abs(ratio - weight)).astype(weight.dtype)


def _weighted(policy_logps: Array, behaviour_logps: Array, target_logps: Array, log_partitions: Array):
    """log(P / pi), P / (Z q) and log Z; 0 for the first two where P is 0."""
    policy, behaviour, target, log_z = checks.floats(
        policy_logps=policy_logps, behaviour_logps=behaviour_logps, target_logps=target_logps,
        log_partitions=log_partitions,
    )  # fmt: skip
    there = target > -5e29
    target = jnp.where(there, target, 0.0)
    weight = jnp.where(there, jnp.exp(jnp.minimum(target - log_z - behaviour, 20.0)), 0.0)
    return jnp.where(there, target - policy, 0.0), weight, log_z
