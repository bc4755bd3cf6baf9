"""State with one entry per prompt of the data set, read and written by `prompt_ids`.

Rows that are not `valid` and ids outside 0 .. num_prompts - 1 touch no state; what is recalled for such an id is NaN:
another prompt's memory would be worse.
"""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep

Array = jax.Array
_stop = jax.lax.stop_gradient


def known(prompt_ids: Array, valid: Array, num_prompts: int) -> Array:
    """Sends rows that touch no state past the end; jax would count negative ids from the back."""
    return jnp.where(valid & (prompt_ids >= 0), prompt_ids, num_prompts)


def recalled(memory: Array, prompt_ids: Array, valid: Array) -> Array:
    """The entry of each row's prompt; 0 in rows that are not there."""
    places = known(prompt_ids, jnp.ones_like(valid), memory.shape[0])
    return keep(memory.at[places].get(mode="fill", fill_value=jnp.nan), valid)


def fixed_state(num_prompts: int, **fields: Array) -> list[Array]:
    """Entry checks of a state's fields; in float32, held fixed."""
    values = [_stop(value) for value in checks.floats(**fields)]
    for name, value in zip(fields, values, strict=True):
        if value.shape != (num_prompts,):
            raise AssertionError(f"state.{name} must have shape ({num_prompts},), got {value.shape}")
    return values
