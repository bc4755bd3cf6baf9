"""Losses on demonstrations: one sequence per example, no reference, no preference."""

import jax
import jax.numpy as jnp

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


def mdlm(policy_elbo_terms: Array) -> Array:
    """Training loss of a masked diffusion language model: minus the bound of log p(y|x), mean over the maskings.

        loss[b] = -mean_j ell_j,  ell_j = (1 / t_j) * sum over hidden tokens of log p(y_i | what is not hidden)

    Its expectation over maskings is an upper bound of the negative log-likelihood of the demonstration.

    Args:
      policy_elbo_terms: from `alignment.policy_gradients.mdlm_elbo_terms`. Trained.

    Shapes: `[..., n]`, n maskings; result float32 `[...]`, in nats per response.

    Raises:
      AssertionError: terms not floating, or without an axis of maskings.

    Paper: Sahoo et al., 2024, arXiv 2406.07524. Per response; LLaDA divides by its length, which is a constant there.
    """
    (terms,) = checks.floats(policy_elbo_terms=policy_elbo_terms)
    if not terms.ndim:
        raise AssertionError("policy_elbo_terms must have shape (..., n), got ()")
    return -jnp.mean(terms, axis=-1)
