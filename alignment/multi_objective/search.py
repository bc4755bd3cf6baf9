"""Tuning a learner of several objectives: the score of a configuration is an indicator of its whole front."""

import jax
import jax.numpy as jnp

from alignment.multi_objective import pareto
from alignment.policy_gradients import objectives

Array = jax.Array


def mean_hypervolume(fronts: Array, valid: Array, reference: Array) -> Array:
    """score(c) = 1/S sum over seeds s of HV(front of configuration c under seed s): what the search maximises.

    Fix the reference point before the search, and never tune it. The best of many scores is too good on the seeds of
    the search: report it on seeds that the search has not used.

    Args:
      fronts: what each policy of each run earns under each objective. Held fixed.
      valid: bool, False where a run has no point; runs may have different numbers of them.
      reference: a lower bound. Held fixed.

    Shapes: fronts `[..., S, P, M]`, valid `[..., S, P]`, reference `[M]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes do not agree, fronts or reference not floating, valid not bool.

    Paper: Felten et al., 2023, arXiv 2310.16487.
    """
    fronts = objectives.checked(valid, fronts=fronts)
    if fronts.ndim < 3:
        raise AssertionError(f"fronts must have shape (..., 'S', 'P', 'M'), got {fronts.shape}")
    reference = objectives.vector(fronts.shape[-1], reference=reference)
    runs = fronts.reshape(-1, *fronts.shape[-2:])
    volumes = jax.vmap(pareto.hypervolume, in_axes=(0, 0, None))(runs, valid.reshape(-1, valid.shape[-1]), reference)
    return jnp.mean(volumes.reshape(fronts.shape[:-2]), axis=-1)
