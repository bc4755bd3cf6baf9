"""Weights of a pair that depend on the policy itself, held fixed, and the losses that carry them.

A weight is a function of arguments of the vocabulary with values `[...]`, one per pair, so that it can multiply any
loss of pairs.
"""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep
from alignment.losses.preference import dpo

__all__ = ["wpo_weight"]  # what can weigh a loss that is put together from parts; `wpo` is a whole one

Array = jax.Array
_stop = jax.lax.stop_gradient


def _aligned_log_probability(token_logps: Array, token_collision_probs: Array, mask: Array, side: str) -> Array:
    """Mean over the completion of log pi(y_t | .) - log sum_v pi(v | .)^2, held fixed; 0 for an empty completion."""
    logps, collisions = checks.floats(
        **{f"policy_{side}_token_logps": token_logps, f"policy_{side}_token_collision_probs": token_collision_probs}
    )
    logps, collisions = keep(_stop(logps), mask), keep(_stop(collisions), mask, 1.0)
    lengths = jnp.maximum(jnp.sum(mask, axis=-1), 1)
    return jnp.sum(logps - jnp.log(collisions), axis=-1) / lengths


def wpo_weight(
    policy_chosen_token_logps: Array,
    policy_rejected_token_logps: Array,
    policy_chosen_token_collision_probs: Array,
    policy_rejected_token_collision_probs: Array,
    chosen_mask: Array,
    rejected_mask: Array,
) -> Array:
    """WPO's weight of a pair: min(1, w(y_w) w(y_l)), how likely the policy were to write both completions itself.

        w(y) = exp( mean over t of [ log pi(y_t | .) - log sum_v pi(v | .)^2 ] )

    The sum of squares is the probability of the token expected of a draw from pi: dividing by it aligns the weights, so
    that completions sampled from the policy weigh about 1 however uncertain it is. The mean removes the length.

    Args:
      policy_chosen_token_logps, policy_rejected_token_logps: log-prob of each token under the policy. Held fixed.
      policy_chosen_token_collision_probs, policy_rejected_token_collision_probs: sum over the vocabulary of squared
        next-token probabilities, in (0, 1]. Held fixed.
      chosen_mask, rejected_mask: bool, True on completion tokens; nothing is looked at elsewhere.

    Shapes: all `[..., T]` (T may differ between the sides), usually `[B, T]`; result float32 `[...]` in [0, 1]. No
    gradient passes.

    Raises:
      AssertionError: shapes do not agree, an array not floating, masks not bool.

    Paper: Zhou et al., 2024, arXiv 2406.11827. The authors' `run_wpo.py` agrees, the cut at 1 included; TRL's
    `use_weighting` has neither the cut nor the alignment.
    """
    chosen = _aligned_log_probability(
        policy_chosen_token_logps, policy_chosen_token_collision_probs, chosen_mask, "chosen"
    )
    rejected = _aligned_log_probability(
        policy_rejected_token_logps, policy_rejected_token_collision_probs, rejected_mask, "rejected"
    )
    checks.same_shape(policy_chosen_token_logps=chosen, policy_rejected_token_logps=rejected)
    # Cut before the exponential: the product itself can overflow.
    return jnp.exp(jnp.minimum(chosen + rejected, 0.0))


def wpo(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    policy_chosen_token_logps: Array,
    policy_rejected_token_logps: Array,
    policy_chosen_token_collision_probs: Array,
    policy_rejected_token_collision_probs: Array,
    chosen_mask: Array,
    rejected_mask: Array,
    *,
    beta: float = 0.01,
) -> Array:
    """Weighted Preference Optimization: W * (-log s(beta * h)), W = `wpo_weight`, held fixed.

    Pairs that the policy would hardly write itself teach less, which brings off-policy data nearer to on-policy data.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      policy_chosen_token_logps, ... rejected_mask: as in `wpo_weight`. Held fixed.
      beta: in (0, inf); the authors' configs use 0.01.

    Shapes: log-probs `[...]`, usually `[B]`; token arrays and masks `[..., T]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, an array not floating, masks not bool.
      ValueError: static beta out of range.

    Paper: Zhou et al., 2024, arXiv 2406.11827.
    """
    base = dpo(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=beta)
    weight = wpo_weight(
        policy_chosen_token_logps, policy_rejected_token_logps, policy_chosen_token_collision_probs,
        policy_rejected_token_collision_probs, chosen_mask, rejected_mask,
    )  # fmt: skip
    checks.same_shape(policy_chosen_logps=base, policy_chosen_token_logps=weight)
    return weight * base
