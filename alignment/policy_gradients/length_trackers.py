"""HAPO: rewards for brevity against what is remembered of the prompt's correct completions.

`prompt_ids` [N] number the prompts of the data set from 0; the state has one entry per prompt. An estimate is made with
the state as it was before the step, `update` then takes in the step's completions. An id outside the state makes the
estimate NaN.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep
from alignment.losses.stateful import StatefulKernel
from alignment.policy_gradients import prompt_memory

Array = jax.Array
_stop = jax.lax.stop_gradient


def _lengths_over_history(lengths: Array, correct: Array, histories: Array) -> tuple[Array, Array, Array]:
    """L / h, whether there is an h, and h (1 where there is none)."""
    (histories,) = map(_stop, checks.floats(histories=histories))
    checks.integers(lengths=lengths)
    checks.boolean(correct=correct)
    checks.same_shape(lengths=lengths, correct=correct, histories=histories)
    known = ~(histories <= 0)  # NaN, an unknown prompt, goes on
    histories = jnp.where(known, histories, 1.0)
    return lengths / histories, known, histories


def _check_hapo(weight: float, floor: float) -> None:
    checks.number("weight", weight, 0.0, 1.0, closed="both")
    checks.number("floor", floor, -1.0, 1.0)


def hapo_length_rewards(
    lengths: Array, correct: Array, histories: Array, *, weight: float = 1.0, floor: float = -0.7
) -> Array:
    """HAPO's reward for brevity: w * max(c, f) if correct, w * min(0, f) if wrong, f = cos(pi/2 * min(L / h, 2)).

    h is the length of the shortest correct completion so far. f is 1 at L = 0, 0 at L = h and -1 from L = 2h on; the
    floor c keeps 1 + c > 0, so that a long correct answer still beats a wrong one. Wrong and short is not punished, as
    that would stop exploration. Without an h the reward is 0.

    Args:
      lengths: L, tokens of each completion, integer.
      correct: bool, the verdict on each completion.
      histories: h of each completion's prompt, in tokens; 0 or less if there is none yet. Held fixed.
      weight: w, in [0, 1].
      floor: c, in (-1, 1).

    Shapes: all `[...]`, usually `[N]`; result float32 `[...]` in [-w, w]. No gradient passes.

    Raises:
      AssertionError: shapes differ, lengths not integer, `correct` not bool, histories not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Huang et al., 2025, arXiv 2505.11225; the authors' `compute_len_reward` agrees.
    """
    _check_hapo(weight, floor)
    relative, known, _ = _lengths_over_history(lengths, correct, histories)
    f = jnp.cos(0.5 * jnp.pi * jnp.minimum(relative, 2.0))
    return weight * keep(jnp.where(correct, jnp.maximum(f, floor), jnp.minimum(f, 0.0)), known)


def hapo_linear_length_rewards(
    lengths: Array,
    correct: Array,
    histories: Array,
    *,
    weight: float = 1.0,
    floor: float = -0.7,
    tolerance: float = 0.1,
) -> Array:
    """The reward for brevity in straight lines, with a band h .. (1 + a) h in which length costs nothing.

        correct:  1 - L/h below h,   0 in the band,   max(c, 1 + a - L/h) above
        wrong:    0 up to the end of the band,   max(-1, 1 + a - L/h) above

    Args:
      lengths: L, tokens of each completion, integer.
      correct: bool, the verdict on each completion.
      histories: h of each completion's prompt, in tokens; 0 or less if there is none yet. Held fixed.
      weight: w, in [0, 1]; multiplies all of it.
      floor: c, in (-1, 1).
      tolerance: a, in [0, inf).

    Shapes: all `[...]`, usually `[N]`; result float32 `[...]` in [-w, w]. No gradient passes.

    Raises:
      AssertionError: shapes differ, lengths not integer, `correct` not bool, histories not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Huang et al., 2025, arXiv 2505.11225; the authors' `compute_len_reward_linear`.
    """
    _check_hapo(weight, floor)
    checks.number("tolerance", tolerance, 0.0, closed="left")
    relative, known, _ = _lengths_over_history(lengths, correct, histories)
    beyond = jnp.minimum(1 + tolerance - relative, 0.0)
    if_correct = jnp.where(relative < 1, 1 - relative, jnp.maximum(beyond, floor))
    return weight * keep(jnp.where(correct, if_correct, jnp.maximum(beyond, -1.0)), known)


class HapoState(NamedTuple):
    """histories: float32 [num_prompts], h of each prompt in tokens, 0 before its first correct completion.
    counts: float32 [num_prompts], how many correct completions a mean is of."""

    histories: Array
    counts: Array


def _hapo_init(*, num_prompts: int = 1, weight: float = 1.0, floor: float = -0.7) -> HapoState:
    """No history."""
    checks.positive_integer("num_prompts", num_prompts)
    _check_hapo(weight, floor)
    return HapoState(jnp.zeros(num_prompts, jnp.float32), jnp.zeros(num_prompts, jnp.float32))


def _hapo_histories(
    lengths: Array, correct: Array, prompt_ids: Array, valid: Array, state: HapoState, num_prompts: int
) -> tuple[Array, dict[str, Array]]:
    checks.positive_integer("num_prompts", num_prompts)
    checks.integers(prompt_ids=prompt_ids, lengths=lengths)
    checks.boolean(valid=valid, correct=correct)
    checks.same_shape(lengths=lengths, correct=correct, prompt_ids=prompt_ids, valid=valid)
    histories, _ = prompt_memory.fixed_state(num_prompts, histories=state.histories, counts=state.counts)
    aux = {"lengths": lengths, "correct": correct, "prompt_ids": prompt_ids, "valid": valid}
    return prompt_memory.recalled(histories, prompt_ids, valid), aux


def _hapo_estimate(
    lengths: Array,
    correct: Array,
    prompt_ids: Array,
    valid: Array,
    state: HapoState,
    *,
    num_prompts: int = 1,
    weight: float = 1.0,
    floor: float = -0.7,
) -> tuple[Array, dict[str, Array]]:
    """HAPO's rewards: 1 if correct, plus `hapo_length_rewards` against what is remembered of the prompt.

    In `hapo` that is its shortest correct completion, so h never grows, and one lucky short answer binds forever; in
    `hapo_mean` it is the mean length of its correct completions.

    Args:
      lengths: tokens of each completion, integer.
      correct: bool, the verdict on each completion.
      prompt_ids: integer, the number of the prompt in the data set.
      valid: bool, False for rows that are not there; their value is 0.
      state: of `hapo.init` or `hapo.update`. Held fixed.
      num_prompts: size of the state, at least 1.
      weight, floor: of `hapo_length_rewards`.

    Shapes: arrays `[...]`, usually `[N]`; state `[num_prompts]`; values float32 `[...]`; aux holds lengths, correct,
    prompt_ids and valid. No gradient passes.

    Raises:
      AssertionError: shapes do not agree, lengths or ids not integer, `correct` or `valid` not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Huang et al., 2025, arXiv 2505.11225.
    """
    histories, aux = _hapo_histories(lengths, correct, prompt_ids, valid, state, num_prompts)
    for_length = hapo_length_rewards(lengths, correct, histories, weight=weight, floor=floor)
    return keep(correct + for_length, valid), aux


def _counted(aux: dict[str, Array], num_prompts: int) -> Array:
    """Where each correct, valid completion belongs in the state; past the end for all others."""
    return prompt_memory.known(aux["prompt_ids"], aux["valid"] & aux["correct"], num_prompts)


def _shortest(state: HapoState, aux: dict[str, Array], num_prompts: int, axis_name: Any) -> HapoState:
    known = _counted(aux, num_prompts)
    nothing = jnp.full(num_prompts, jnp.inf, jnp.float32)
    shortest = nothing.at[known].min(aux["lengths"].astype(jnp.float32), mode="drop")
    counts = jnp.zeros(num_prompts, jnp.float32).at[known].add(1.0, mode="drop")
    if axis_name is not None:
        shortest, counts = jax.lax.pmin(shortest, axis_name), jax.lax.psum(counts, axis_name)
    before = jnp.where(state.histories > 0, state.histories, jnp.inf)
    after = jnp.minimum(before, shortest)
    return HapoState(jnp.where(jnp.isfinite(after), after, 0.0).astype(jnp.float32), state.counts + counts)


def _mean(state: HapoState, aux: dict[str, Array], num_prompts: int, axis_name: Any) -> HapoState:
    known = _counted(aux, num_prompts)
    sums = jnp.zeros(num_prompts, jnp.float32).at[known].add(aux["lengths"].astype(jnp.float32), mode="drop")
    counts = jnp.zeros(num_prompts, jnp.float32).at[known].add(1.0, mode="drop")
    if axis_name is not None:
        sums, counts = jax.lax.psum((sums, counts), axis_name)
    together = state.counts + counts
    return HapoState((state.histories * state.counts + sums) / jnp.maximum(together, 1), together)


def _hapo_update(
    state: HapoState,
    aux: dict[str, Array],
    *,
    num_prompts: int = 1,
    weight: float = 1.0,
    floor: float = -0.7,
    axis_name: Any = None,
) -> HapoState:
    """h <- min(h, shortest correct completion of the step)."""
    _check_hapo(weight, floor)
    return _shortest(state, aux, num_prompts, axis_name)


def _hapo_mean_update(
    state: HapoState,
    aux: dict[str, Array],
    *,
    num_prompts: int = 1,
    weight: float = 1.0,
    floor: float = -0.7,
    axis_name: Any = None,
) -> HapoState:
    """h <- the mean length of all correct completions so far, each counted once.

    The authors' loop takes a step's completions of a prompt in as many times as the prompt has rows in the batch, which
    weighs recent steps more.
    """
    _check_hapo(weight, floor)
    return _mean(state, aux, num_prompts, axis_name)


hapo = StatefulKernel(init=_hapo_init, loss=_hapo_estimate, update=_hapo_update)
hapo_mean = StatefulKernel(init=_hapo_init, loss=_hapo_estimate, update=_hapo_mean_update)


def _hapo_linear_init(
    *, num_prompts: int = 1, weight: float = 1.0, floor: float = -0.7, tolerance: float = 0.1
) -> HapoState:
    """No history."""
    checks.number("tolerance", tolerance, 0.0, closed="left")
    return _hapo_init(num_prompts=num_prompts, weight=weight, floor=floor)


def _hapo_linear_estimate(
    lengths: Array,
    correct: Array,
    prompt_ids: Array,
    valid: Array,
    state: HapoState,
    *,
    num_prompts: int = 1,
    weight: float = 1.0,
    floor: float = -0.7,
    tolerance: float = 0.1,
) -> tuple[Array, dict[str, Array]]:
    """1 if correct, plus `hapo_linear_length_rewards` against the prompt's shortest correct completion so far.

    Args:
      lengths: tokens of each completion, integer.
      correct: bool, the verdict on each completion.
      prompt_ids: integer, the number of the prompt in the data set.
      valid: bool, False for rows that are not there; their value is 0.
      state: of `hapo_linear.init` or `hapo_linear.update`. Held fixed.
      num_prompts: size of the state, at least 1.
      weight, floor, tolerance: of `hapo_linear_length_rewards`.

    Shapes: arrays `[...]`, usually `[N]`; state `[num_prompts]`; values float32 `[...]`; aux holds lengths, correct,
    prompt_ids and valid. No gradient passes.

    Raises:
      AssertionError: shapes do not agree, lengths or ids not integer, `correct` or `valid` not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Huang et al., 2025, arXiv 2505.11225.
    """
    histories, aux = _hapo_histories(lengths, correct, prompt_ids, valid, state, num_prompts)
    for_length = hapo_linear_length_rewards(
        lengths, correct, histories, weight=weight, floor=floor, tolerance=tolerance
    )
    return keep(correct + for_length, valid), aux


def _hapo_linear_update(
    state: HapoState,
    aux: dict[str, Array],
    *,
    num_prompts: int = 1,
    weight: float = 1.0,
    floor: float = -0.7,
    tolerance: float = 0.1,
    axis_name: Any = None,
) -> HapoState:
    """h <- min(h, shortest correct completion of the step)."""
    checks.number("tolerance", tolerance, 0.0, closed="left")
    return _hapo_update(state, aux, num_prompts=num_prompts, weight=weight, floor=floor, axis_name=axis_name)


hapo_linear = StatefulKernel(init=_hapo_linear_init, loss=_hapo_linear_estimate, update=_hapo_linear_update)
