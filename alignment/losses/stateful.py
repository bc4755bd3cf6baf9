"""Methods with memory between steps, in the manner of `optax.GradientTransformation`: a tuple of pure functions."""

from collections.abc import Callable
from typing import NamedTuple


class StatefulKernel(NamedTuple):
    """A loss whose state is carried from step to step (and so lives in the train state and in the checkpoint).

    The three functions take the *same* keyword-only hyperparameters with the same defaults, so that one dictionary
    configures the method; a function ignores those it has no use for.

    init(*, <hyperparameters>) -> state, a pytree of arrays.
    loss(<named arrays>, state, *, <hyperparameters>) -> (values, aux): values per example or per token, unreduced and
      computed with the state as it was before this step; aux a pytree of per-example `[B]` arrays, so that the aux of
      micro-batches can be concatenated.
    update(state, aux, *, <hyperparameters>, axis_name=None) -> state, once per step with the aux of the whole batch;
      `axis_name` names the mapped axis (or axes) over which the batch is split, if it is.
    """

    init: Callable
    loss: Callable
    update: Callable
