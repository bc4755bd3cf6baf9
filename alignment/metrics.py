"""What any run can log: pure functions of the same named arrays as the losses, per example or per token, unreduced.

No gradient passes through any of them. Token metrics are 0 behind the mask and are meant for `token_mean`; metrics per
example for `example_mean`. `beta` should be that of the loss, or rewards of different runs do not compare. Metrics of
one sequence (`token_nll`, `token_entropy`, `kl_to_reference`, `sequence_forward_kls`) are bound to a side by the
config.
"""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep, masked_sum
from alignment.losses.preference import implicit_reward

Array = jax.Array
_stop = jax.lax.stop_gradient

__all__ = [
    "chosen_logp",
    "chosen_reward",
    "kl_to_reference",
    "rejected_logp",
    "rejected_reward",
    "reward_accuracy",
    "reward_margin",
    "reward_model_accuracy",
    "sequence_forward_kls",
    "token_entropy",
    "token_nll",
]


def chosen_reward(policy_chosen_logps: Array, reference_chosen_logps: Array, *, beta: float = 0.1) -> Array:
    """Implicit reward of the chosen completion, beta * log(pi / ref). Shapes: `[B]` each; result float32 `[B]`."""
    return implicit_reward(policy_chosen_logps, reference_chosen_logps, beta=beta)


def rejected_reward(policy_rejected_logps: Array, reference_rejected_logps: Array, *, beta: float = 0.1) -> Array:
    """Implicit reward of the rejected completion, beta * log(pi / ref). Shapes: `[B]` each; result float32 `[B]`."""
    return implicit_reward(policy_rejected_logps, reference_rejected_logps, beta=beta)


def reward_margin(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.1,
) -> Array:
    """Implicit reward of the chosen completion minus that of the rejected one. Shapes: `[B]` each; result f32 `[B]`."""
    checks.same_shape(policy_chosen_logps=policy_chosen_logps, policy_rejected_logps=policy_rejected_logps)
    chosen = chosen_reward(policy_chosen_logps, reference_chosen_logps, beta=beta)
    return chosen - rejected_reward(policy_rejected_logps, reference_rejected_logps, beta=beta)


def reward_accuracy(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
) -> Array:
    """1 where the implicit reward ranks the pair as labelled; a tie is 0, so policy == reference scores 0, not 1/2.

    Shapes: `[B]` each; result float32 `[B]`.
    """
    margins = reward_margin(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    return _indicator(margins > 0, margins)


def reward_model_accuracy(chosen_rewards: Array, rejected_rewards: Array) -> Array:
    """1 where the reward head ranks the pair as labelled; a tie is 0. Shapes: `[B]` each; result float32 `[B]`."""
    chosen_rewards, rejected_rewards = checks.floats(chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards)
    return _indicator(chosen_rewards > rejected_rewards, chosen_rewards - rejected_rewards)


def _indicator(condition: Array, difference: Array) -> Array:
    # A NaN compares as False and would pass for an honest miss.
    return _stop(jnp.where(jnp.isnan(difference), difference, condition.astype(difference.dtype)))


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
