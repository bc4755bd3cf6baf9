"""Averages of parameters: along a run, as an optax transformation around the optimizer, and of several runs (soups).

What the average is of, the parameters after every update, is itself a transformation: `optax.ema` with its debiasing,
or `mean_of_iterates`. Both are kept in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from alignment import checks

Array = jax.Array


class AveragedState(NamedTuple):
    inner: Any  # of the optimizer
    average: Any  # of the averaging
    params: Any  # the average so far, float32; before the first update the parameters themselves


class MeanState(NamedTuple):
    count: Array  # updates seen
    taken: Array  # of these, in the mean
    mean: Any


def mean_of_iterates(start: int = 100, interval: int = 5) -> optax.GradientTransformation:
    """The mean of every `interval`-th tree from number `start` on (from 1); before it, the tree itself.

        a <- (n a + theta) / (n + 1)

    Raises:
      ValueError: start or interval below 1.

    Paper: Izmailov et al., 2018, arXiv 1803.05407; for unlearning Fan et al., 2025, arXiv 2502.05374.
    """
    checks.positive_integer("start", start)
    checks.positive_integer("interval", interval)

    def init(params):
        zero = jnp.zeros((), jnp.int32)
        return MeanState(zero, zero, _float32(params))

    def update(tree, state, params=None):
        del params
        count = state.count + 1
        take = (count >= start) & ((count - start) % interval == 0)
        taken = state.taken + take
        share = jnp.where(taken > 0, take / jnp.maximum(taken, 1), 1.0)
        mean = jax.tree.map(lambda a, x: a + share * (x.astype(jnp.float32) - a), state.mean, tree)
        return mean, MeanState(count, taken, mean)

    return optax.GradientTransformation(init, update)


def exponential_average(decay: float = 0.99) -> optax.GradientTransformation:
    """a <- k a + (1 - k) theta from a = 0, over 1 - k^t: `optax.ema` in float32.

    Of low-rank factors it is not the average of their product.

    Raises:
      ValueError: a decay outside [0, 1); with 1 there would be nothing to divide by.
    """
    checks.number("decay", decay, 0.0, 1.0, closed="left")
    return optax.ema(decay, debias=True, accumulator_dtype=jnp.float32)


def averaged(optimizer: optax.GradientTransformation, average: optax.GradientTransformation):
    """The same optimizer, whose state also holds the average of the parameters that its updates lead to."""

    def init(params):
        return AveragedState(optimizer.init(params), average.init(params), _float32(params))

    def update(updates, state, params):
        updates, inner = optimizer.update(updates, state.inner, params)
        mean, of_average = average.update(_float32(optax.apply_updates(params, updates)), state.average)
        return updates, AveragedState(inner, of_average, mean)

    return optax.GradientTransformation(init, update)


def average_in(opt_state: AveragedState, params: Any) -> Any:
    """The average that the state holds, in the types of the parameters."""
    return jax.tree.map(lambda a, p: a.astype(p.dtype), opt_state.params, params)


def uniform_soup(several_params: Sequence[Any]) -> Any:
    """The mean of several models, leaf by leaf, taken in float32. For linear models, that of their outputs.

    Raises:
      ValueError: no models, or their structures differ.

    Paper: Wortsman et al., 2022, arXiv 2203.05482.
    """
    if not several_params:
        raise ValueError("a soup needs at least one model")
    first, count = several_params[0], len(several_params)
    total = jax.tree.map(lambda *xs: sum(x.astype(jnp.float32) for x in xs) / count, *several_params)
    return jax.tree.map(lambda a, x: a.astype(x.dtype), total, first)


def greedy_soup(several_params: Sequence[Any], evaluate: Callable[[Any], float]) -> tuple[Any, tuple[int, ...], float]:
    """(soup, which models are in it, its score): the best model, then each next one that does not make it worse.

    Args:
      several_params: models of one beginning.
      evaluate: a validation score of parameters, higher is better; called once for each model and once for each trial.

    Raises:
      ValueError: no models.

    Paper: Wortsman et al., 2022, arXiv 2203.05482, recipe 1.
    """
    if not several_params:
        raise ValueError("a soup needs at least one model")
    scores = [float(evaluate(params)) for params in several_params]
    best, *others = sorted(range(len(scores)), key=lambda i: -scores[i])
    chosen, soup, score = [best], several_params[best], scores[best]
    for i in others:
        tried = uniform_soup([several_params[j] for j in (*chosen, i)])
        if (of_tried := float(evaluate(tried))) >= score:
            chosen, soup, score = [*chosen, i], tried, of_tried
    return soup, tuple(chosen), score


def _float32(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)
