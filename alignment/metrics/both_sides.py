"""What a preference loss does to both sides (the 3D properties: Yan et al., 2024, arXiv 2406.07327)."""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.metrics.pairs import chosen_reward, rejected_reward

Array = jax.Array
_stop = jax.lax.stop_gradient


def chosen_log_ratio(policy_chosen_logps: Array, reference_chosen_logps: Array) -> Array:
    """Change of the chosen completion's log-prob since the reference, in nats. Shapes: `[B]` each; result f32 `[B]`.

    Below 0 the loss has made worse what it was to teach (degradation).
    """
    return chosen_reward(policy_chosen_logps, reference_chosen_logps, beta=1.0)


def rejected_log_ratio(policy_rejected_logps: Array, reference_rejected_logps: Array) -> Array:
    """Change of the rejected completion's log-prob since the reference, in nats. Shapes: `[B]` each; result f32 `[B]`.

    It falls steeply under DPO (drastic drop), whatever the chosen one does.
    """
    return rejected_reward(policy_rejected_logps, reference_rejected_logps, beta=1.0)


def unseen_mass(policy_chosen_logps: Array, policy_rejected_logps: Array) -> Array:
    """Probability of all completions that are in neither side of the pair, 1 - p_w - p_l (dispersion).

    Tells something for short completions; long ones have a mass of nearly nothing, and there `pair_mass_log_ratio`
    still shows the change. Shapes: `[B]` each; result float32 `[B]`, in [0, 1].
    """
    chosen, rejected = checks.floats(
        policy_chosen_logps=policy_chosen_logps, policy_rejected_logps=policy_rejected_logps
    )
    mass = jnp.exp(chosen) + jnp.exp(rejected)
    return _stop(jnp.maximum(1 - mass, 0.0))  # a NaN stays one; two sides of rounded log-probs may exceed 1 by a hair


def pair_mass_log_ratio(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
) -> Array:
    """log((p_w + p_l) / (q_w + q_l)): below 0, probability has gone from the pair to completions that no one showed.

    The relative form of `unseen_mass`'s change, defined at any length. Shapes: `[B]` each; result float32 `[B]`.
    """
    chosen, rejected, reference_chosen, reference_rejected = checks.floats(
        policy_chosen_logps=policy_chosen_logps,
        policy_rejected_logps=policy_rejected_logps,
        reference_chosen_logps=reference_chosen_logps,
        reference_rejected_logps=reference_rejected_logps,
    )
    return _stop(jnp.logaddexp(chosen, rejected) - jnp.logaddexp(reference_chosen, reference_rejected))
