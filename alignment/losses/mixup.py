"""Losses on two demonstrations at a time and on what lies between them."""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep, masked_sum

Array = jax.Array
_stop = jax.lax.stop_gradient


def sftmix(
    policy_confident_token_logps: Array,
    policy_unconfident_token_logps: Array,
    mixed_confident_token_logps: Array,
    mixed_unconfident_token_logps: Array,
    mix_weights: Array,
    confident_mask: Array,
    unconfident_mask: Array,
    *,
    mu: float = 0.2,
) -> Array:
    """SFTMix: fine-tuning on a pair of demonstrations, and Mixup between them as a regulariser.

        loss[b] = mean over the tokens of both of -log pi(y_n)
                  + mu * mean over n <= N of -[w log p~_n(y_n) + (1 - w) log p~_n(y'_n)]

    p~_n is the policy's distribution at the hidden state w z_n + (1 - w) z'_n (`alignment.statistics.mixed_states`),
    y the confident demonstration and y' the unconfident one, their responses aligned by the number of the token as far
    as the shorter reaches, N tokens. The second mean is the cross-entropy to the label mixed alike; its gradient by the
    mixed logits is p~ - y~. Gradients pass through both hidden states and the output matrix.

    Which demonstration is confident is for another run to say, whose checkpoints give the halves of the data
    (`alignment.data.halves`); the weights are Beta(alpha, alpha), alpha = 0.5 (`alignment.data.corruption.mixup`), most
    of them near 0 or 1. mu = 0 is `sft` on both.

    Args:
      policy_confident_token_logps, policy_unconfident_token_logps: log pi of each demonstration's tokens. Trained.
      mixed_confident_token_logps, mixed_unconfident_token_logps: log p~ of the same tokens. Trained.
      mix_weights: w, share of the confident demonstration, in [0, 1]. Held fixed.
      confident_mask, unconfident_mask: bool, True where a token is supervised; the mixture has those of both.
      mu: in [0, inf).

    Shapes: log-probs and masks `[..., T]`, usually `[B, T]`, mix_weights `[...]`; result float32 `[...]`, in nats per
      token. A pair without a common token has no second mean.

    Raises:
      AssertionError: shapes do not agree, arrays not floating, or masks not bool.
      ValueError: static mu out of range.

    Paper: Xiao et al., 2024, arXiv 2410.05248; no code was published. Means are taken within a pair, so that every pair
      counts alike, the batch's other pairs do not matter, and mu does not depend on lengths.
    """
    names = ("policy_confident", "policy_unconfident", "mixed_confident", "mixed_unconfident")
    given = (policy_confident_token_logps, policy_unconfident_token_logps)
    given += (mixed_confident_token_logps, mixed_unconfident_token_logps)
    first, second, mixed_first, mixed_second = checks.floats(
        **{f"{name}_token_logps": array for name, array in zip(names, given, strict=True)}
    )
    (weights,) = checks.floats(mix_weights=mix_weights)
    checks.leading_shape(mix_weights=weights, policy_confident_token_logps=first)
    checks.boolean(confident_mask=confident_mask, unconfident_mask=unconfident_mask)
    checks.same_shape(confident_mask=confident_mask, unconfident_mask=unconfident_mask)
    checks.number("mu", mu, 0.0, closed="left")
    count = jnp.sum(confident_mask, axis=-1) + jnp.sum(unconfident_mask, axis=-1)
    plain = -(masked_sum(first, confident_mask) + masked_sum(second, unconfident_mask)) / jnp.maximum(count, 1)
    both = confident_mask & unconfident_mask
    weights = keep(_stop(weights), jnp.any(both, axis=-1))
    mixed = weights * masked_sum(mixed_first, both) + (1 - weights) * masked_sum(mixed_second, both)
    return plain - mu * mixed / jnp.maximum(jnp.sum(both, axis=-1), 1)
