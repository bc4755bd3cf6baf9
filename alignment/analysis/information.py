"""Differential information: the normalised ratio of two policies, and when preferences encode it.

Distributions live on the last axis, over a response space small enough to list. Policies come in as log-probs and need
a common support (no -inf on one side only); what comes back is probabilities.
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import entr

from alignment import checks

Array = jax.Array


def did_distribution(target_logps: Array, source_logps: Array) -> Array:
    """Differential information distribution from source p to target q: D(y) = (q(y) / p(y)) / sum_y' (q(y') / p(y')).

    It is what has to be learnt to turn p into q: uniform when they agree, peaked when a few responses are sharpened.
    Swapping the two gives the reciprocal, normalised.

    Args:
      target_logps: log q; may be unnormalised.
      source_logps: log p; may be unnormalised.

    Shapes: both `[..., V]`; result float32 `[..., V]`, sums to 1.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.

    Paper: Won et al., 2025, Differential Information: An Information-Theoretic Perspective on Preference Optimization,
    arXiv 2505.23761. No official code was found.
    """
    target_logps, source_logps = checks.floats(target_logps=target_logps, source_logps=source_logps)
    return jax.nn.softmax(target_logps - source_logps, axis=-1)


def did_rejected_distribution(reference_logps: Array, target_logps: Array, *, beta: float = 0.1) -> Array:
    """Where rejected responses must come from if chosen ones come from the reference: ref * (ref / target)^beta.

    Preferences sampled so encode the information from the reference to the target, D_{ref/rejected} = normalised
    D_{target/ref}^beta, and `dpo` with this beta and this reference has the target as its unique optimum.

    Args:
      reference_logps, target_logps: log-probs of the two policies.
      beta: of the `dpo` that is to recover the target, in (0, inf).

    Shapes: both `[..., V]`; result float32 `[..., V]`, sums to 1.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: static beta out of range.

    Paper: Won et al., 2025, arXiv 2505.23761.
    """
    reference_logps, target_logps = checks.floats(reference_logps=reference_logps, target_logps=target_logps)
    checks.number("beta", beta, 0.0)
    return jax.nn.softmax(reference_logps + beta * (reference_logps - target_logps), axis=-1)


def pair_label_probability(chosen_source_logps: Array, rejected_source_logps: Array) -> Array:
    """P[i, j]: that y_i is the chosen one of {y_i, y_j} when chosen ~ pi_w and rejected ~ pi_l independently.

    By Bayes it is s(log(pi_w / pi_l)(y_i) - log(pi_w / pi_l)(y_j)), a Bradley-Terry model whose reward is the log-ratio
    of the two samplers.

    Args:
      chosen_source_logps, rejected_source_logps: log pi_w and log pi_l.

    Shapes: both `[..., V]`; result float32 `[..., V, V]`; P[i, j] + P[j, i] = 1.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.

    Paper: Won et al., 2025, arXiv 2505.23761.
    """
    chosen, rejected = checks.floats(
        chosen_source_logps=chosen_source_logps, rejected_source_logps=rejected_source_logps
    )
    ratio = chosen - rejected
    return jax.nn.sigmoid(ratio[..., :, None] - ratio[..., None, :])


def entropy(probabilities: Array) -> Array:
    """-sum_y p(y) log p(y) in nats, 0 log 0 being 0; of `did_distribution` low means sharpening, high smoothing.

    Shapes: `[..., V]`; result float32 `[...]`.
    Raises: AssertionError if the probabilities are not floating.
    Paper: Won et al., 2025, arXiv 2505.23761 (the entropy of the DID); otherwise standard practice.
    """
    (probabilities,) = checks.floats(probabilities=probabilities)
    return jnp.sum(entr(probabilities), axis=-1)


def did_entropy_estimate(policy_logps: Array, reference_logps: Array, sampling_logps: Array) -> Array:
    """Entropy of D_{pi/ref} from N samples, by self-normalised importance weights; for spaces too large to list.

    With w = pi / ref and samples y_i ~ q: Z = mean(w_i / q_i) and H = log Z - sum_i u_i log w_i, where u_i is w_i / q_i
    normalised over the samples. Consistent, biased for small N, and dominated by few samples when q is far from D.

    Args:
      policy_logps, reference_logps: summed log-probs of the samples under pi and ref.
      sampling_logps: log q of the samples, the distribution that drew them (pass the policy's or the reference's).

    Shapes: all `[..., N]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.

    Paper: Won et al., 2025, arXiv 2505.23761.
    """
    policy, reference, sampling = checks.floats(
        policy_logps=policy_logps, reference_logps=reference_logps, sampling_logps=sampling_logps
    )
    log_w = policy - reference
    log_z = jax.nn.logsumexp(log_w - sampling, axis=-1) - jnp.log(policy.shape[-1])
    return log_z - jnp.sum(jax.nn.softmax(log_w - sampling, axis=-1) * log_w, axis=-1)
