"""Everything a run needs to go on, in one pytree."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class TrainState:
    step: jax.Array  # int32, optimizer steps attempted, skipped ones included
    params: Any
    opt_state: Any
    method_state: dict[str, Any]  # memory of the stateful methods, by term name
    rng: jax.Array  # typed key, new every step
    skipped: jax.Array  # int32, steps skipped because loss or gradient was not finite
    skipped_in_a_row: jax.Array
    reference: Any = None  # parameters of a reference that follows the policy; None: there is none, or it is frozen


def create(
    params: Any, optimizer: Any, method_state: dict[str, Any], rng: jax.Array, reference: Any = None
) -> TrainState:
    # One array per counter: the state is donated, and a buffer cannot be given away twice.
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        method_state=method_state,
        rng=rng,
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
        reference=reference,
    )
