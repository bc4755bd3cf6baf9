"""Curricula: which prompts an iteration trains on, and how many rollouts each of them gets.

A curriculum is a group of pure functions of arrays on the host. Each names what it needs, as kernels do, and the loop
delivers just that; hyperparameters are keyword-only. `config.curriculum = {name: hyperparameters}` looks the name up
in `CURRICULA`.

* `init(...) -> state`: what it remembers, arrays that are saved in every checkpoint. It may name
  `num_prompts` (prompt ids are below it), `reward_sums` and `sample_counts` (f32 and i32 [num_prompts], of
  `prior_samples` completions of every prompt by the first model), `concentrations` (f32 [num_prompts], of the hidden
  states that the first model gives each prompt; -inf for ids that no prompt has).
* `offered(count, **h) -> int`: how many prompts of the endless list of permutations an iteration of `count` rows takes;
  0 if it looks at all prompts instead.
* `choose(...) -> i32 [count]`: the prompt of each row. A row holds `group_size` completions; a prompt that has several
  rows has a group of all of them, so group sizes differ while no array changes its shape. It may name `state`, `pool`
  (i32, the offered prompts), `prompt_values` (f32, the value head at the end of each of them), `ids` (i32, all
  prompts), `key` (of the run, not of the iteration), `place` (rows chosen before this iteration), `count`,
  `group_size`.
* `update(...) -> state` after the rollout: `state`, `ids`, `prompt_ids`, `correct`, `valid` [N] over the completions,
  `concentrations` (f32 [count], of the rows' prompts now). None: the curriculum's state is the memory of the estimator
  of the same name, which looks after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignment import checks
from alignment.policy_gradients import (
    gain_rl_next_center,
    gain_rl_sampling_weights,
    pcl_distances,
    selection,
    spo_prior,
    spo_sampling_weights,
)


class Curriculum(NamedTuple):
    init: Callable[..., Any]
    offered: Callable[..., int]
    choose: Callable[..., np.ndarray]
    update: Callable[..., Any] | None


def _nothing() -> tuple[()]:
    return ()


def _keep(state):
    return state


def _all_prompts(count: int) -> int:
    del count
    return 0


# --- in turn: what a run without a curriculum does -------------------------------------------------------------------


def _as_many(count: int) -> int:
    return count


def _as_offered(pool):
    return np.asarray(pool, np.int32)


in_turn = Curriculum(_nothing, _as_many, _as_offered, _keep)


# --- SPO -------------------------------------------------------------------------------------------------------------


def _spo_init(reward_sums, sample_counts, *, prior_samples: int = 0, rho_min: float = 0.875):
    """The tracker that `prior_samples` (0: none) completions of every prompt make; `rho_min` is the estimator's."""
    checks.number("prior_samples", prior_samples, 0, closed="left")
    return spo_prior(jnp.asarray(reward_sums, jnp.float32), jnp.asarray(sample_counts, jnp.int32), rho_min=rho_min)


def _spo_choose(state, ids, key, place, count, *, exploration: float = 0.05):
    """Without replacement, by `spo_sampling_weights` of the success rates that the estimator `spo` tracks."""
    weights = spo_sampling_weights(*(jnp.asarray(x)[ids] for x in state), exploration=exploration)
    return np.asarray(ids)[selection.draw_without_replacement(jax.random.fold_in(key, place), weights, count)]


spo = Curriculum(_spo_init, _all_prompts, _spo_choose, None)
"""Xu and Ding, 2025, arXiv 2509.13232: prompts whose outcome is uncertain come more often."""


# --- Knapsack RL -----------------------------------------------------------------------------------------------------


class KnapsackState(NamedTuple):
    """rates: f32 [num_prompts], success rate of each prompt when it was last rolled out; 1/2 before."""

    rates: jax.Array


def _knapsack_init(num_prompts):
    return KnapsackState(jnp.full(num_prompts, 0.5, jnp.float32))


def _knapsack_offered(count, *, rows_per_prompt: int = 2):
    checks.positive_integer("rows_per_prompt", rows_per_prompt)
    if count % rows_per_prompt:
        raise ValueError(f"rows_per_prompt must divide the {count} rows of an iteration, got {rows_per_prompt}")
    return count // rows_per_prompt


def _knapsack_choose(
    state, pool, count, group_size, *, rows_per_prompt: int = 2, highest: int = 128, clamp: float = 0.0
):
    """The offered prompts, each with the rows that `selection.knapsack_allocation` gives it, one row at the least.

    The budget is given out by rows, group_size completions at a time. What nobody gains from goes to those that have
    fewest, so that it is always spent.
    """
    if highest < rows_per_prompt * group_size:
        raise ValueError(f"highest must lie in [{rows_per_prompt * group_size}, inf), the mean group, got {highest}")
    rollouts = selection.knapsack_allocation(
        np.asarray(state.rates)[np.asarray(pool)],
        total=count * group_size, lowest=group_size, highest=highest, clamp=clamp, unit=group_size,
    )  # fmt: skip
    rows = rollouts // group_size
    for _ in range(count - int(rows.sum())):
        rows[np.argmin(rows)] += 1
    return np.repeat(np.asarray(pool, np.int32), rows)


def _knapsack_update(state, prompt_ids, correct, valid):
    ids, right = np.asarray(prompt_ids)[valid], np.asarray(correct)[valid]
    rates = np.array(state.rates)
    tried = np.bincount(ids, minlength=rates.size)
    succeeded = np.bincount(ids, weights=right, minlength=rates.size)
    seen = tried > 0
    rates[seen] = succeeded[seen] / tried[seen]
    return KnapsackState(jnp.asarray(rates))


knapsack_rl = Curriculum(_knapsack_init, _knapsack_offered, _knapsack_choose, _knapsack_update)
"""Li et al., 2025, arXiv 2509.25849: rollouts go where a group is likely to be mixed and a success teaches most.

The rates are those of a prompt's last visit, in the epoch before; in the first epoch all groups are alike.
"""


# --- PCL -------------------------------------------------------------------------------------------------------------


def _pcl_offered(count, *, pool_factor: int = 4):
    checks.positive_integer("pool_factor", pool_factor)
    return pool_factor * count


def _pcl_choose(pool, prompt_values, count, *, tau: float = 0.5):
    """The `count` of the pool whose predicted success rate is nearest to tau; of a prompt that is there twice, one."""
    _, first = np.unique(np.asarray(pool), return_index=True)
    pool, prompt_values = np.asarray(pool, np.int32)[np.sort(first)], jnp.asarray(prompt_values)[np.sort(first)]
    if count > len(pool):
        raise ValueError(f"the pool holds {len(pool)} different prompts, fewer than the {count} rows of an iteration")
    distances = pcl_distances(prompt_values, jnp.ones(len(pool), bool), tau=tau)
    return pool[np.asarray(selection.smallest(distances, count))]


pcl = Curriculum(_nothing, _pcl_offered, _pcl_choose, _keep)
"""Gao et al., 2025, arXiv 2510.01135: one forward pass over a pool in place of rollouts that teach nothing.

The value head is trained by `pcl_value_loss` in the objective.
"""


# --- GAIN-RL ---------------------------------------------------------------------------------------------------------


class GainState(NamedTuple):
    """center: f32 [], middle of the window; ranks: i32 [num_prompts]; and of the epoch so far, over `rows` rows, the
    sums of their success rates and of their concentrations, f32 []."""

    center: jax.Array
    ranks: jax.Array
    successes: jax.Array
    concentrations: jax.Array
    rows: jax.Array


def _gain_init(concentrations):
    ranks = selection.ranks(jnp.asarray(concentrations, jnp.float32))
    return GainState(np.float32(0), ranks, np.float32(0), np.float32(0), np.int32(0))


def _epoch(prompts: int, count: int, samples_per_epoch: int) -> int:
    """Prompts of an epoch: as many as wanted and there, in whole iterations."""
    checks.positive_integer("samples_per_epoch", samples_per_epoch)
    length = min(samples_per_epoch, prompts) // count * count
    if not length:
        raise ValueError(
            f"samples_per_epoch: an epoch of {samples_per_epoch} prompts, of {prompts} that there are, does not hold "
            f"the {count} of an iteration"
        )
    return length


def _gain_choose(state, ids, key, place, count, *, samples_per_epoch: int = 1000, sigma: float = 1000.0):
    """The iteration's part of the epoch's prompts, which are drawn without replacement by their rank's weight."""
    length = _epoch(len(ids), count, samples_per_epoch)
    ranks = jnp.asarray(state.ranks)[ids]
    weights = gain_rl_sampling_weights(ranks, jnp.full(ranks.shape, state.center), sigma=sigma)
    drawn = selection.draw_without_replacement(jax.random.fold_in(key, place // length), weights, length)
    return np.asarray(ids)[np.asarray(drawn)[place % length :][:count]]


def _gain_update(
    state,
    ids,
    correct,
    valid,
    concentrations,
    *,
    samples_per_epoch: int = 1000,
    accuracy_slope: float = 2.0,
    accuracy_center: float = 0.5,
    concentration_slope: float = 2.0,
):
    """Adds the iteration to the epoch's means, and after its last one moves the window by `gain_rl_next_center`."""
    count = len(concentrations)
    length = _epoch(len(ids), count, samples_per_epoch)
    rate = np.float32(np.asarray(correct)[valid].mean()) if np.any(valid) else np.float32(0)
    state = state._replace(
        successes=np.float32(state.successes + rate * count),
        concentrations=np.float32(state.concentrations + np.sum(concentrations, dtype=np.float32)),
        rows=np.int32(state.rows + count),
    )
    if state.rows < length:
        return state
    center = gain_rl_next_center(
        *map(jnp.float32, (state.center, state.successes / state.rows, state.concentrations / state.rows)),
        num_samples=length,
        accuracy_slope=accuracy_slope, accuracy_center=accuracy_center, concentration_slope=concentration_slope,
    )  # fmt: skip
    return state._replace(center=center, successes=np.float32(0), concentrations=np.float32(0), rows=np.int32(0))


gain_rl = Curriculum(_gain_init, _all_prompts, _gain_choose, _gain_update)
"""Wang et al., 2025, arXiv 2506.02281: prompts whose hidden states point one way first, the others as these are learnt.

Ranks are those under the first model. The concentration that moves the window is that of the epoch's prompts under the
model of each iteration.
"""

CURRICULA = {"gain_rl": gain_rl, "knapsack_rl": knapsack_rl, "pcl": pcl, "spo": spo}
