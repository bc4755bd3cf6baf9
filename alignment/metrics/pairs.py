"""What a policy or a reward model makes of the two sides of a pair, and of reasoning steps."""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import indicator
from alignment.losses.preference import implicit_reward

Array = jax.Array
_stop = jax.lax.stop_gradient


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
    return indicator(margins > 0, margins)


def reward_model_accuracy(chosen_rewards: Array, rejected_rewards: Array) -> Array:
    """1 where the reward head ranks the pair as labelled; a tie is 0. Shapes: `[B]` each; result float32 `[B]`."""
    chosen_rewards, rejected_rewards = checks.floats(chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards)
    return indicator(chosen_rewards > rejected_rewards, chosen_rewards - rejected_rewards)


def reward_heads_accuracy(chosen_head_rewards: Array, rejected_head_rewards: Array) -> Array:
    """Share of the heads that rank the pair as labelled; a tie is 0. Shapes: `[B, n]` each; result float32 `[B]`."""
    chosen, rejected = checks.floats(
        chosen_head_rewards=chosen_head_rewards, rejected_head_rewards=rejected_head_rewards
    )
    return jnp.mean(indicator(chosen > rejected, chosen - rejected), axis=-1)


def general_preference_accuracy(chosen_head_rewards: Array, rejected_head_rewards: Array, *, blocks: int = 1) -> Array:
    """1 where the skew-symmetric score of the first `blocks` pairs of heads ranks the pair as labelled, equal weights.

    Shapes: `[B, n]` each, n >= 2 * blocks; result float32 `[B]`.
    """
    chosen, rejected = checks.floats(
        chosen_head_rewards=chosen_head_rewards, rejected_head_rewards=rejected_head_rewards
    )
    checks.positive_integer("blocks", blocks)
    if chosen.shape[-1] < 2 * blocks:
        raise ValueError(f"blocks must be at most half the number of heads, {chosen.shape[-1]}, got {blocks}")
    a, b, c, d = (x[..., i : 2 * blocks : 2] for x in (chosen, rejected) for i in (0, 1))
    scores = jnp.sum(a * d - b * c, axis=-1)
    return indicator(scores > 0, scores)


def step_accuracy(token_head_scores: Array, step_labels: Array, step_mask: Array) -> Array:
    """Share of a solution's steps whose likelier class is the label (1 from 1/2 on); a tie is 0, no steps are 0.

    Shapes: `[B, T, 2]`, `[B, T]`, `[B, T]`; result float32 `[B]`.
    """
    (scores,) = checks.floats(token_head_scores=token_head_scores)
    (labels,) = checks.floats(step_labels=step_labels)
    checks.boolean(step_mask=step_mask)
    checks.same_shape(step_labels=labels, step_mask=step_mask)
    checks.leading_shape(step_labels=labels, token_head_scores=scores)
    odds = jnp.where(step_mask, scores[..., 1] - scores[..., 0], 0.0)
    right = indicator(jnp.where(labels >= 0.5, odds > 0, odds < 0), odds)
    return jnp.sum(jnp.where(step_mask, right, 0.0), axis=-1) / jnp.maximum(step_mask.sum(axis=-1), 1)
