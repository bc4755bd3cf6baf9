"""Losses on demonstrations: one sequence per example, no reference, no preference."""

import jax

from alignment import checks
from alignment.losses.masking import keep

Array = jax.Array


def sft(policy_token_logps: Array, mask: Array) -> Array:
    """Negative log-likelihood of every demonstration token, per token: standard supervised fine-tuning.

        nll[b, t] = -policy_token_logps[b, t] where the mask is True, 0 elsewhere

    `token_mean` (usual), `sequence_mean` or `constant(1)` (mean over rows of the summed nll) reduce it. Which tokens
    are supervised, the end token among them, is the mask's business: position t of the mask speaks about the token
    whose log-prob stands at position t.

    Args:
      policy_token_logps: log pi(y_t | x, y_<t), in nats; -inf or NaN behind the mask is harmless. Trained.
      mask: bool, True where the token is supervised.

    Shapes: both `[..., T]`, usually `[B, T]`; result float32 `[..., T]`, in nats.

    Raises:
      AssertionError: shapes differ, log-probs not floating, or mask not bool.

    Paper: standard practice (next-token cross-entropy); huggingface/trl `sft_trainer.py` with completion-only loss
      agrees.
    """
    (policy_token_logps,) = checks.floats(policy_token_logps=policy_token_logps)
    return -keep(policy_token_logps, mask)
