"""Slots 3 and 4 of `unified_estimator`: the unified advantage, and the loss whose gradient all slots together are."""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep
from alignment.policy_gradients.unified_estimator import (
    upge_behaviour_denominator,
    upge_policy_denominator,
    upge_ppo_stabilisation,
)

Array = jax.Array
_stop = jax.lax.stop_gradient
_LARGEST_LOG_RATIO = 20.0


def upge_advantages(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    token_advantages: Array,
    demonstration_mask: Array,
    mask: Array,
    *,
    mu: float = 1.0,
) -> Array:
    """A + mu * pi_beta / pi on tokens of demonstrations, A elsewhere: reward and imitation in one advantage.

    It is the advantage of E_pi[r] - mu KL(pi_beta || pi), pi_beta the policy of the demonstrations. Divided by pi_beta
    and times grad pi, the second part is mu * grad log pi: SFT.

    Args:
      policy_token_logps: log-prob of each token under the policy. Held fixed.
      behaviour_token_logps: the same under the policy that wrote it; on demonstrations log pi_beta. Held fixed.
      token_advantages: A. Held fixed.
      demonstration_mask: bool, True on tokens of demonstrations.
      mask: bool, True on completion tokens; nothing is looked at elsewhere, and the value is 0 there.
      mu: in [0, inf).

    Shapes: all `[..., T]`, usually `[N, T]`; result float32 `[..., T]`. No gradient passes. Log-ratios are cut at +-20.

    Raises:
      AssertionError: shapes differ, an array not floating, masks not bool.
      ValueError: static mu out of range.

    Paper: Lv et al., 2025, arXiv 2509.04419.
    """
    checks.number("mu", mu, 0.0, closed="left")
    policy, behaviour, advantages = (
        _stop(keep(values, mask))
        for values in checks.floats(
            policy_token_logps=policy_token_logps,
            behaviour_token_logps=behaviour_token_logps,
            token_advantages=token_advantages,
        )
    )
    log_ratios = jnp.clip(behaviour - policy, -_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO)
    return advantages + keep(keep(mu * jnp.exp(log_ratios), demonstration_mask), mask)


def upge_surrogate(
    policy_token_logps: Array,
    token_log_denominators: Array,
    token_advantages: Array,
    token_stabilisation: Array,
    mask: Array,
) -> Array:
    """-1_stable * A * pi / pi_ref, everything but pi held fixed: the loss with the gradient of the four slots.

    Args:
      policy_token_logps: log-prob of each token under the policy. Trained.
      token_log_denominators: log pi_ref, of one of the denominators. Held fixed.
      token_advantages: A. Held fixed.
      token_stabilisation: 1 where a token trains, else 0, of one of the stabilisations. Held fixed.
      mask: bool, True on completion tokens; nothing is looked at elsewhere, and the value is 0 there.

    Shapes: all `[..., T]`, usually `[N, T]`; result float32 `[..., T]`; the reduction is that of the method. log pi -
    log pi_ref is cut at +-20, without gradient beyond.

    Raises:
      AssertionError: shapes differ, an array not floating, mask not bool.

    Paper: Lv et al., 2025, arXiv 2509.04419.
    """
    arrays = checks.floats(
        policy_token_logps=policy_token_logps,
        token_log_denominators=token_log_denominators,
        token_advantages=token_advantages,
        token_stabilisation=token_stabilisation,
    )
    policy, *fixed = (keep(values, mask) for values in arrays)
    denominators, advantages, stable = map(_stop, fixed)
    ratios = jnp.exp(jnp.clip(policy - denominators, -_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO))
    return keep(-stable * advantages * ratios, mask)


def upge(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    token_advantages: Array,
    demonstration_mask: Array,
    mask: Array,
    *,
    mu: float = 1.0,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
) -> Array:
    """The unified objective on rollouts and demonstrations: PPO's clip on the first, c = A pi / pi_beta + mu on these.

    The gradient of `upge_surrogate` with `upge_behaviour_denominator`, `upge_advantages` and, on rollouts,
    `upge_ppo_stabilisation`; the imitation, c = mu, stands beside it, at a value of -mu.
    Where nobody knows the policy of the demonstrations, log-probs of 0 make it a point mass: c = A pi + mu, the offline
    row of the table and SFT. Without demonstrations this is PPO; with demonstrations, none of their tokens is masked.

    Args:
      policy_token_logps: log-prob of each token under the policy. Trained.
      behaviour_token_logps: the same under the policy that wrote it. Held fixed.
      token_advantages: A. Held fixed.
      demonstration_mask: bool, True on tokens of demonstrations.
      mask: bool, True on completion tokens; nothing is looked at elsewhere, and the value is 0 there.
      mu: weight of imitation, in [0, inf).
      eps_low, eps_high: of PPO's clip, in [0, 1] and [0, inf).

    Shapes: all `[..., T]`, usually `[N, T]`; result float32 `[..., T]`. Log-ratios are cut at +-20.

    Raises:
      AssertionError: shapes differ, an array not floating, masks not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Lv et al., 2025, arXiv 2509.04419.
    """
    checks.number("mu", mu, 0.0, closed="left")
    checks.boolean(demonstration_mask=demonstration_mask)
    checks.same_shape(mask=mask, demonstration_mask=demonstration_mask)
    stable = upge_ppo_stabilisation(
        policy_token_logps, behaviour_token_logps, token_advantages, mask, eps_low=eps_low, eps_high=eps_high
    )
    everywhere = jnp.ones_like(stable)
    by_reward = upge_surrogate(
        policy_token_logps,
        upge_behaviour_denominator(behaviour_token_logps, mask),
        token_advantages,
        jnp.where(demonstration_mask, everywhere, stable),
        mask,
    )
    # Not through `upge_advantages`: an unlikely token of a demonstration, cut at e^-20, would lose its imitation.
    imitation = upge_surrogate(
        policy_token_logps,
        upge_policy_denominator(policy_token_logps, mask),
        mu * everywhere,
        everywhere,
        mask & demonstration_mask,
    )
    return by_reward + imitation
