"""CGPO: rewards calibrated against a baseline answer, and judges that veto (Xu et al., 2024).

`satisfied` [N] says whether every judge of the completion's task is satisfied (`alignment.rewards.judges`),
`baseline_rewards` [N] what the same reward model gives the baseline answer to the same prompt (of the data set, or a
sample of the reference). Log-probs are sums over the completion. Two of the three optimisers are estimators here, with
`reinforce` (`sequence_sum`) as their loss; CODPO and CRRAFT as losses of lists are in `alignment.losses`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep
from alignment.policy_gradients import grouping, objectives

Array = jax.Array
_stop = jax.lax.stop_gradient


def _rows(valid: Array, **arrays: Array) -> list[Array]:
    """Float arrays of the shape of `valid`, held fixed, 0 where not valid."""
    values = checks.floats(**arrays)
    checks.same_shape(valid=valid, **{next(iter(arrays)): values[0]})
    return [keep(_stop(v), valid) for v in values]


def cgpo_calibrated_rewards(rewards: Array, baseline_rewards: Array, valid: Array) -> Array:
    """R = sigmoid(r(x, y) - r(x, y_base)): 1/2 for an answer as good as the baseline; comparable across prompts.

    Adding a number to the rewards of one prompt changes nothing.

    Args:
      rewards: score of each completion. Held fixed.
      baseline_rewards: score of the baseline answer to the same prompt. Held fixed.
      valid: bool, False for rows that are not there.

    Shapes: all `[...]`; result float32 `[...]` in (0, 1), 0 where not valid.

    Raises:
      AssertionError: shapes differ, rewards not floating, valid not bool.

    Paper: Xu et al., 2024, arXiv 2409.20370.
    """
    own, baseline = _rows(valid, rewards=rewards, baseline_rewards=baseline_rewards)
    return keep(jax.nn.sigmoid(own - baseline), valid)


def cgpo_crpg_advantages(
    rewards: Array,
    baseline_rewards: Array,
    satisfied: Array,
    behaviour_logps: Array,
    reference_logps: Array,
    valid: Array,
    *,
    kl_max: float = 5.0,
    axis_name: Any = None,
) -> Array:
    """CRPG: A = R - mean of R over the batch,  R = [satisfied] sigmoid(r - r_base) max(0, 1 - l / kl_max).

    l = log pi_old(y|x) - log pi_ref(y|x) is what the sample has drifted: at kl_max it counts as a violation, and l < 0
    gives a factor above 1. A violation has R = 0, hence A < 0, and is pushed down. The mean is over the completions of
    all prompts, not per prompt. If no completion is satisfied nothing is learnt.

    Args:
      rewards: score of each completion. Held fixed, as is all here.
      baseline_rewards: score of the baseline answer to the same prompt.
      satisfied: bool, whether every judge is.
      behaviour_logps: log-prob of the completion under the policy that sampled.
      reference_logps: the same under the reference.
      valid: bool, False for rows that are not there.
      kl_max: in nats per completion, in (0, inf); larger for mathematics and code, smaller for chat.
      axis_name: mapped axis (or axes) over which the batch is split; the mean is that of the whole batch.

    Shapes: all `[N]`; result float32 `[N]`, 0 where not valid.

    Raises:
      AssertionError: shapes differ, rewards or log-probs not floating, satisfied or valid not bool.
      ValueError: static kl_max out of range.

    Paper: Xu et al., 2024, arXiv 2409.20370. A draft for TRL divides the loss by the number of tokens; the paper by the
    number of samples: reduction `sequence_sum`.
    """
    checks.number("kl_max", kl_max, 0.0)
    checks.boolean(satisfied=satisfied)
    own, baseline, behaviour, reference = _rows(
        valid, rewards=rewards, baseline_rewards=baseline_rewards, behaviour_logps=behaviour_logps,
        reference_logps=reference_logps,
    )  # fmt: skip
    checks.same_shape(valid=valid, satisfied=satisfied)
    near = jnp.maximum(1 - (behaviour - reference) / kl_max, 0.0)
    values = jnp.where(satisfied & valid, jax.nn.sigmoid(own - baseline) * near, 0.0)
    count = jnp.maximum(objectives.total(valid.astype(values.dtype), axis_name), 1)
    return keep(values - objectives.total(values, axis_name) / count, valid)


def cgpo_satisfiable(satisfied: Array, group_ids: Array, valid: Array, *, axis_name: Any = None) -> Array:
    """1 for the completions of prompts with at least one satisfied completion, else 0: what CODPO learns from.

    As a filter (`gives: valid`) it makes the mean of the loss one over the prompts that are kept.

    Args:
      satisfied: bool, whether every judge is.
      group_ids: integer, shared by the completions of one prompt.
      valid: bool, False for rows that are not there.
      axis_name: mapped axis (or axes) over which the batch is split; groups may lie on several devices.

    Shapes: all `[N]`; result float32 `[N]`.

    Raises:
      AssertionError: shapes differ, satisfied or valid not bool, ids not integer.

    Paper: Xu et al., 2024, arXiv 2409.20370.
    """
    return _some(satisfied, group_ids, valid, axis_name)


def cgpo_eligible(
    satisfied: Array,
    behaviour_logps: Array,
    reference_logps: Array,
    group_ids: Array,
    valid: Array,
    *,
    kl_max: float = 5.0,
    axis_name: Any = None,
) -> Array:
    """1 for the completions of prompts with an eligible one (satisfied, log pi_old - log pi_ref <= kl_max), else 0.

    What CRRAFT learns from: a filter (`gives: valid`), as `cgpo_satisfiable` is for CODPO.

    Args:
      satisfied: bool, whether every judge is.
      behaviour_logps: log-prob of the completion under the policy that sampled. Held fixed.
      reference_logps: the same under the reference. Held fixed.
      group_ids: integer, shared by the completions of one prompt.
      valid: bool, False for rows that are not there.
      kl_max: in nats per completion, in (0, inf).
      axis_name: mapped axis (or axes) over which the batch is split; groups may lie on several devices.

    Shapes: all `[N]`; result float32 `[N]`.

    Raises:
      AssertionError: shapes differ, satisfied or valid not bool, log-probs not floating, ids not integer.
      ValueError: static kl_max out of range.

    Paper: Xu et al., 2024, arXiv 2409.20370.
    """
    checks.number("kl_max", kl_max, 0.0)
    checks.boolean(satisfied=satisfied)
    checks.same_shape(satisfied=satisfied, valid=valid)
    behaviour, reference = _rows(valid, behaviour_logps=behaviour_logps, reference_logps=reference_logps)
    return _some(satisfied & (behaviour - reference <= kl_max), group_ids, valid, axis_name)


def _some(good: Array, group_ids: Array, valid: Array, axis_name: Any) -> Array:
    checks.boolean(satisfied=good, valid=valid)
    checks.integers(group_ids=group_ids)
    checks.same_shape(satisfied=good, group_ids=group_ids, valid=valid)
    same = grouping.same_group(group_ids, valid, axis_name)
    any_good = jnp.any(same & grouping.whole(good, axis_name)[None, :], axis=-1)
    return (any_good & valid).astype(jnp.float32)


def cgpo_task_advantages(
    advantages: Array,
    task_ids: Array,
    valid: Array,
    *,
    shares: Sequence[float] = (0.5, 0.5),
    axis_name: Any = None,
) -> Array:
    """A_i rho_l N / n_l for a completion of task l: the batch's mean gradient becomes sum_l rho_l (mean of task l).

    n_l of the batch's N completions are of task l. With rho_l = n_l / N, the paper's choice, nothing changes; other
    shares weigh tasks against their sizes. A task that the batch has none of is left out; the rest is not scaled up.

    Args:
      advantages: of each completion. Held fixed.
      task_ids: integer in [0, number of shares), the task of each completion.
      valid: bool, False for rows that are not there.
      shares: rho, one for each task, at least 0, with sum 1.
      axis_name: mapped axis (or axes) over which the batch is split; the counts are those of the whole batch.

    Shapes: all `[N]`; result float32 `[N]`, 0 where not valid and for a task without a share.

    Raises:
      AssertionError: shapes differ, advantages not floating, ids not integer, valid not bool.
      ValueError: shares are not numbers of the simplex.

    Paper: Xu et al., 2024, arXiv 2409.20370 (multi-task CGPO).
    """
    (own,) = _rows(valid, advantages=advantages)
    checks.integers(task_ids=task_ids)
    checks.same_shape(valid=valid, task_ids=task_ids)
    rho = checks.simplex("shares", shares, len(shares)).astype(own.dtype)
    of_task = jax.nn.one_hot(jnp.where(valid, task_ids, -1), len(shares), dtype=own.dtype)
    sizes = objectives.total(of_task, axis_name)
    rows = objectives.total(valid.astype(own.dtype), axis_name)
    factors = jnp.where(sizes > 0, rho * rows / jnp.maximum(sizes, 1), 0.0)
    return keep(own * (of_task @ factors), valid)
