"""Preferences that depend on a context (a criterion, a persona) which the prompt leaves open.

The loss is `alignment.losses.bt_reward_loss` on prompts that begin with the context. Here is what follows from a model
that was trained so, and an upper bound of what its two mistakes can cost. Pitis et al., 2024, arXiv 2407.14916.
"""

import jax
import jax.numpy as jnp

from alignment import checks

Array = jax.Array


def marginal_preference(first_rewards: Array, second_rewards: Array, context_probs: Array) -> Array:
    """P(y1 > y2 | x) = sum_z p(z|x) s(r(x, z, y1) - r(x, z, y2)): all `[..., Z]`, result `[...]`, float32.

    A mixture of sigmoids is no sigmoid of a mixture: averaging the rewards over z is another model.
    """
    first, second, probs = checks.floats(
        first_rewards=first_rewards, second_rewards=second_rewards, context_probs=context_probs
    )
    return jnp.sum(probs * jax.nn.sigmoid(first - second), axis=-1)


def context_error_bound(true_preferences: Array, preferences: Array, true_probs: Array, probs: Array):
    """(error of the marginal preference, bound by contexts, bound by inference): inputs `[..., Z]`, results `[...]`.

        |sum_z p P - sum_z q Q| <= sum_z p |P - Q| + TV(p, q),  TV half the L1 distance

    The first bound is of judging wrongly in a context, the second of expecting the wrong context.
    """
    p_z, q_z, p, q = checks.floats(
        true_preferences=true_preferences, preferences=preferences, true_probs=true_probs, probs=probs
    )
    error = jnp.abs(jnp.sum(p * p_z, axis=-1) - jnp.sum(q * q_z, axis=-1))
    return error, jnp.sum(p * jnp.abs(p_z - q_z), axis=-1), jnp.sum(jnp.abs(p - q), axis=-1) / 2
