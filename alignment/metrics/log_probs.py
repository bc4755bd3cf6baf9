"""Log-probs and per-token quantities."""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep, masked_sum

Array = jax.Array
_stop = jax.lax.stop_gradient


def chosen_logp(policy_chosen_logps: Array) -> Array:
    """Summed log-prob of the chosen completion, in nats. Shapes: `[B]`; result float32 `[B]`."""
    return _stop(*checks.floats(policy_chosen_logps=policy_chosen_logps))


def rejected_logp(policy_rejected_logps: Array) -> Array:
    """Summed log-prob of the rejected completion, in nats. Shapes: `[B]`; result float32 `[B]`."""
    return _stop(*checks.floats(policy_rejected_logps=policy_rejected_logps))


def token_nll(policy_token_logps: Array, mask: Array) -> Array:
    """Negative log-prob of each token, in nats. Shapes: `[B, T]` each; result float32 `[B, T]`."""
    (policy_token_logps,) = checks.floats(policy_token_logps=policy_token_logps)
    return _stop(-keep(policy_token_logps, mask))


def token_entropy(policy_token_entropies: Array, mask: Array) -> Array:
    """Entropy of the policy at each position, in nats. Shapes: `[B, T]` each; result float32 `[B, T]`."""
    (policy_token_entropies,) = checks.floats(policy_token_entropies=policy_token_entropies)
    return _stop(keep(policy_token_entropies, mask))


def kl_to_reference(policy_token_kls: Array, mask: Array) -> Array:
    """KL(policy || reference) over the vocabulary at each position, in nats.

    Shapes: `[B, T]` each; result float32 `[B, T]`.
    """
    (policy_token_kls,) = checks.floats(policy_token_kls=policy_token_kls)
    return _stop(keep(policy_token_kls, mask))


def sequence_forward_kls(policy_token_forward_kls: Array, mask: Array) -> Array:
    """Sequential KL(reference || policy), summed over the completion (SeqKL of TDPO), in nats.

    Shapes: `[B, T]` each; result float32 `[B]`.
    """
    (policy_token_forward_kls,) = checks.floats(policy_token_forward_kls=policy_token_forward_kls)
    return _stop(masked_sum(policy_token_forward_kls, mask))


def sequence_kl(policy_token_logps: Array, reference_token_logps: Array, mask: Array) -> Array:
    """log pi - log ref of each completion, of which the mean over the policy's own samples is KL(policy || reference).

    Shapes: `[B, T]` each; result float32 `[B]`, in nats per sequence; may be negative.
    """
    return masked_sum(_gaps(policy_token_logps, reference_token_logps, mask), mask)


def sequence_kl_k3(policy_token_logps: Array, reference_token_logps: Array, mask: Array) -> Array:
    """Sum over the tokens of exp(-d) - 1 + d, d = log pi - log ref: the same mean as `sequence_kl`, never negative.

    d is taken into [-20, 20]. Schulman, 2020, "Approximating KL divergence".
    Shapes: `[B, T]` each; result float32 `[B]`, in nats per sequence.
    """
    gaps = jnp.clip(_gaps(policy_token_logps, reference_token_logps, mask), -20.0, 20.0)
    return masked_sum(jnp.expm1(-gaps) + gaps, mask)


def _gaps(policy_token_logps: Array, reference_token_logps: Array, mask: Array) -> Array:
    policy, reference = checks.floats(
        policy_token_logps=policy_token_logps, reference_token_logps=reference_token_logps
    )
    return _stop(keep(policy, mask) - keep(reference, mask))
