"""Training towards an explicit distribution over completions, p(y) = P(y) / Z, known up to its normaliser.

Three targets, all made of a fixed base model a (the reference): a e^(r / beta), the optimum of RLHF; a b, what of a
satisfies a yes-or-no constraint; and a e^(lambda . phi), what is nearest to a among all distributions with given
moments. log P stands in the column `target_logps`, and where P = 0 it is `IMPOSSIBLE`, which is finite. Z = E_q[P / q]
for whatever q sampled, so it is estimated by the way (`log_partition`, in the column `log_partitions`). What trains
towards the target stands in `alignment.policy_gradients.divergence_gradients`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep
from alignment.losses.stateful import StatefulKernel
from alignment.policy_gradients import prompt_memory

Array = jax.Array
_stop = jax.lax.stop_gradient

IMPOSSIBLE = -1e30  # log 0


# ------------------------------------------------------------------------------------------------------------ targets


def rlhf_target(reference_logps: Array, rewards: Array, *, beta: float = 0.1) -> Array:
    """log P = log a + r / beta: the distribution that maximises E[r] - beta KL(. || a).

    Args:
      reference_logps: log a of each completion. Held fixed.
      rewards: r. Held fixed.
      beta: in (0, inf).

    Shapes: all `[...]`; result float32 `[...]`, in nats. No gradient passes.

    Raises:
      AssertionError: shapes differ or an array is not floating.
      ValueError: static beta out of range.

    Paper: Go et al., 2023, arXiv 2302.08215.
    """
    checks.number("beta", beta, 0.0)
    logps, rewards = checks.floats(reference_logps=reference_logps, rewards=rewards)
    return _stop(logps + rewards / beta)


def gdc_pointwise_target(reference_logps: Array, correct: Array) -> Array:
    """log P = log a + log b: the base model restricted to what satisfies a constraint b in {0, 1}.

    Args:
      reference_logps: log a of each completion. Held fixed.
      correct: bool, b.

    Shapes: both `[...]`; result float32 `[...]`, -1e30 where b = 0. No gradient passes.

    Raises:
      AssertionError: shapes differ, log-probs not floating, `correct` not bool.

    Paper: Khalifa et al., 2020, arXiv 2012.11635.
    """
    (logps,) = checks.floats(reference_logps=reference_logps)
    return _stop(keep(logps, correct, IMPOSSIBLE))


class MomentState(NamedTuple):
    """coefficients: float32 [K], lambda; estimates: float32 [K], the moments of the target when it was last moved."""

    coefficients: Array
    estimates: Array


def gdc_moment_update(
    coefficients: Array,
    reference_logps: Array,
    behaviour_logps: Array,
    objective_rewards: Array,
    valid: Array,
    *,
    moments: Sequence[float] = (0.5,),
    learning_rate: float = 0.05,
    axis_name: Any = None,
) -> Array:
    """One step of the convex dual: lambda <- lambda - learning_rate (E_p[phi] - m), in both of whose terms p is that of
    lambda, by self-normalised importance sampling: E_p[phi] = sum w phi / sum w, w = a e^(lambda . phi) / q.

    Moments out of the features' reach make lambda diverge; m of 0 or 1 for a yes-or-no feature are at infinity
    (`gdc_pointwise_target` instead).

    Args:
      coefficients: lambda. Held fixed, as is everything here.
      reference_logps: log a of each completion.
      behaviour_logps: log q of each.
      objective_rewards: phi, the features of each.
      valid: bool, False for rows that do not count; a batch of none leaves lambda.
      moments: m, one for each feature.
      learning_rate: in (0, inf).
      axis_name: mapped axis (or axes) over which the batch is split.

    Shapes: coefficients `[K]`, features `[N, K]`, all else `[N]`; result float32 `[K]`.

    Raises:
      AssertionError: shapes do not agree or dtypes are wrong.
      ValueError: a static hyperparameter out of range, or not one moment for each feature.

    Paper: Khalifa et al., 2020, arXiv 2012.11635; its code (disco) fits lambda before training, on samples of a alone.
    """
    checks.number("learning_rate", learning_rate, 0.0)
    (coefficients,) = checks.floats(coefficients=coefficients)
    estimates, count = _moments(
        coefficients, reference_logps, behaviour_logps, objective_rewards, valid, moments, axis_name
    )
    wanted = checks.constants("moments", moments, coefficients.shape[0]).astype(coefficients.dtype)
    return _stop(jnp.where(count > 0, coefficients - learning_rate * (estimates - wanted), coefficients))


def _features(coefficients, reference_logps, behaviour_logps, features, valid, moments) -> list[Array]:
    """Entry checks; then lambda, log-probs and features, the last three 0 in rows that do not count, held fixed."""
    (coefficients,), (features,) = checks.floats(coefficients=coefficients), checks.floats(objective_rewards=features)
    reference, behaviour = checks.floats(reference_logps=reference_logps, behaviour_logps=behaviour_logps)
    checks.leading_shape(reference_logps=reference, objective_rewards=features)
    reference, behaviour = keep(reference, valid), keep(behaviour, valid)
    if features.shape[-1:] != coefficients.shape:
        raise AssertionError(
            f"coefficients must have shape {features.shape[-1:]} to go with objective_rewards, got {coefficients.shape}"
        )
    checks.constants("moments", moments, features.shape[-1])
    features = jnp.where(valid[..., None], features, 0.0)
    return [_stop(x) for x in (coefficients, reference, behaviour, features)]


def _moments(coefficients, reference_logps, behaviour_logps, features, valid, moments, axis_name):
    """E_p[phi] by self-normalised importance sampling, and the number of rows that count."""
    coefficients, reference, behaviour, features = _features(
        coefficients, reference_logps, behaviour_logps, features, valid, moments
    )
    log_weights = keep(reference - behaviour + features @ coefficients, valid, IMPOSSIBLE)
    top = jnp.max(log_weights)
    top = top if axis_name is None else jax.lax.pmax(top, axis_name)
    weights = jnp.where(valid, jnp.exp(log_weights - top), 0.0)
    totals = (jnp.sum(weights), weights @ features, jnp.sum(valid.astype(weights.dtype)))
    total, sums, count = totals if axis_name is None else jax.lax.psum(totals, axis_name)
    return sums / jnp.maximum(total, 1e-30), count


def _moment_init(*, moments: Sequence[float] = (0.5,), learning_rate: float = 0.05) -> MomentState:
    """Starts at lambda = 0, the base model itself."""
    checks.number("learning_rate", learning_rate, 0.0)
    zeros = jnp.zeros(len(moments), jnp.float32)
    return MomentState(zeros, zeros)


def _moment_loss(
    reference_logps: Array,
    behaviour_logps: Array,
    objective_rewards: Array,
    valid: Array,
    state: MomentState,
    *,
    moments: Sequence[float] = (0.5,),
    learning_rate: float = 0.05,
) -> tuple[Array, dict[str, Array]]:
    """log P = log a + lambda . phi: the distribution nearest to a whose features have the means m, lambda learnt.

    The features are the rewards of a run that has several, in the order of their names. After each rollout lambda moves
    by `gdc_moment_update`, so the target moves until its moments, estimated on the policy's samples, are right.

    Args:
      reference_logps: log a of each completion. Held fixed, as is everything here.
      behaviour_logps: log q of each.
      objective_rewards: phi, the features of each.
      valid: bool, False for rows that do not count.
      state: `MomentState`.
      moments: m, one for each feature.
      learning_rate: of lambda, in (0, inf).

    Shapes: features `[N, K]`, all else `[N]`; result float32 `[N]`, in nats. No gradient passes.

    Raises:
      AssertionError: shapes do not agree or dtypes are wrong.
      ValueError: a static hyperparameter out of range, or not one moment for each feature.

    Paper: Khalifa et al., 2020, arXiv 2012.11635.
    """
    checks.number("learning_rate", learning_rate, 0.0)
    coefficients, reference, behaviour, features = _features(
        state.coefficients, reference_logps, behaviour_logps, objective_rewards, valid, moments
    )
    kept = {"reference_logps": reference, "behaviour_logps": behaviour, "features": features, "valid": valid}
    return reference + features @ coefficients, kept


def _moment_update(
    state: MomentState, aux: dict[str, Array], *, moments: Sequence[float] = (0.5,), learning_rate: float = 0.05,
    axis_name: Any = None,
) -> MomentState:  # fmt: skip
    """`gdc_moment_update` with the whole batch."""
    columns = (aux["reference_logps"], aux["behaviour_logps"], aux["features"], aux["valid"])
    estimates, count = _moments(state.coefficients, *columns, moments, axis_name)
    coefficients = gdc_moment_update(
        state.coefficients, *columns, moments=moments, learning_rate=learning_rate, axis_name=axis_name
    )
    return MomentState(coefficients, jnp.where(count > 0, estimates, state.estimates))


gdc_moment_target = StatefulKernel(_moment_init, _moment_loss, _moment_update)


# ------------------------------------------------------------------------------------------------------- normalisers


class PartitionState(NamedTuple):
    """log_sums: float32 [n], log of the sum of P / q so far; counts: float32 [n]; n = 1, or a place per prompt."""

    log_sums: Array
    counts: Array


def _log_add(x: Array, y: Array) -> Array:
    """logaddexp of numbers that may be as low as log 0 here."""
    top = jnp.maximum(x, y)
    return top + jnp.log1p(jnp.exp(jnp.minimum(x, y) - top))


def _absorbed(target_logps, behaviour_logps, places, valid, state, size, decay, axis_name) -> PartitionState:
    """The state of `size` places with the rows of a batch; `places` beyond its end are no row's."""
    target, behaviour = checks.floats(target_logps=target_logps, behaviour_logps=behaviour_logps)
    checks.boolean(valid=valid)
    checks.same_shape(target_logps=target, valid=valid)
    log_weights = keep(_stop(target - behaviour), valid & (target > IMPOSSIBLE / 2), IMPOSSIBLE)
    old_sums, old_counts = prompt_memory.fixed_state(size, log_sums=state.log_sums, counts=state.counts)
    places = jnp.where(valid, places, size)
    tops = jnp.full(size, IMPOSSIBLE, log_weights.dtype).at[places].max(log_weights, mode="drop")
    tops = tops if axis_name is None else jax.lax.pmax(tops, axis_name)
    there = log_weights > IMPOSSIBLE / 2
    exps = jnp.where(there, jnp.exp(jnp.minimum(log_weights - tops.at[places].get(mode="clip"), 0.0)), 0.0)
    sums = jnp.zeros(size, exps.dtype).at[places].add(exps, mode="drop")
    counts = jnp.zeros(size, exps.dtype).at[places].add(1.0, mode="drop")
    sums, counts = (sums, counts) if axis_name is None else jax.lax.psum((sums, counts), axis_name)
    new = jnp.where(sums > 0, tops + jnp.log(jnp.maximum(sums, 1e-30)), IMPOSSIBLE)
    kept = jnp.where(counts > 0, decay, 1.0)  # what no row speaks of is not forgotten either
    old = jnp.where(old_sums <= IMPOSSIBLE / 2, IMPOSSIBLE, old_sums + jnp.log(kept))
    return PartitionState(_log_add(old, new), kept * old_counts + counts)


def _log_mean(state: PartitionState) -> Array:
    means = state.log_sums - jnp.log(jnp.maximum(state.counts, 1e-30))
    return jnp.where(state.log_sums > IMPOSSIBLE / 2, means, IMPOSSIBLE)


def _check_decay(decay) -> None:
    checks.number("decay", decay, 0.0, 1.0, closed="right")


def _partition_init(*, decay: float = 1.0) -> PartitionState:
    _check_decay(decay)
    return PartitionState(jnp.full(1, IMPOSSIBLE, jnp.float32), jnp.zeros(1, jnp.float32))


def _partition_loss(
    target_logps: Array,
    behaviour_logps: Array,
    valid: Array,
    state: PartitionState,
    *,
    decay: float = 1.0,
    axis_name: Any = None,
) -> tuple[Array, dict[str, Array]]:
    """log of the running mean of P / q over all samples so far, those of this batch among them.

    Unbiased for Z, whichever policies have sampled, so nothing need be forgotten, unless the target moves
    (`gdc_moment_target`). -1e30 as long as no sample was possible under the target. With this batch's own samples in it
    the estimate is there from the first batch on.

    Args:
      target_logps: log P of each completion. Held fixed, as is everything here.
      behaviour_logps: log q of each.
      valid: bool, False for rows that do not count.
      state: `PartitionState` of one place.
      decay: what the weight of earlier samples is multiplied by in every batch, in (0, 1].
      axis_name: mapped axis (or axes) over which the batch is split.

    Shapes: all `[N]`; result float32 `[N]`, one number for all. No gradient passes.

    Raises:
      AssertionError: shapes differ or dtypes are wrong.
      ValueError: static decay out of range.

    Paper: Khalifa et al., 2020, arXiv 2012.11635.
    """
    _check_decay(decay)
    places = jnp.zeros(jnp.shape(valid), jnp.int32)
    new = _absorbed(target_logps, behaviour_logps, places, valid, state, 1, decay, axis_name)
    columns = {"target_logps": target_logps, "behaviour_logps": behaviour_logps, "valid": valid}
    return jnp.broadcast_to(_stop(_log_mean(new)), jnp.shape(valid)), jax.tree.map(_stop, columns)


def _partition_update(
    state: PartitionState, aux: dict[str, Array], *, decay: float = 1.0, axis_name: Any = None
) -> PartitionState:
    places = jnp.zeros(aux["valid"].shape, jnp.int32)
    return _absorbed(aux["target_logps"], aux["behaviour_logps"], places, aux["valid"], state, 1, decay, axis_name)


log_partition = StatefulKernel(_partition_init, _partition_loss, _partition_update)


def _prompts_init(*, num_prompts: int = 1, decay: float = 1.0) -> PartitionState:
    checks.positive_integer("num_prompts", num_prompts)
    _check_decay(decay)
    return PartitionState(jnp.full(num_prompts, IMPOSSIBLE, jnp.float32), jnp.zeros(num_prompts, jnp.float32))


def _prompts_loss(
    target_logps: Array,
    behaviour_logps: Array,
    prompt_ids: Array,
    valid: Array,
    state: PartitionState,
    *,
    num_prompts: int = 1,
    decay: float = 1.0,
    axis_name: Any = None,
) -> tuple[Array, dict[str, Array]]:
    """`log_partition` for every prompt by itself: Z(c) of the conditional target p(y | c) = P_c(y) / Z(c).

    Args:
      target_logps: log P of each completion. Held fixed, as is everything here.
      behaviour_logps: log q of each.
      prompt_ids: int32, the prompt of each; ids outside the memory give NaN.
      valid: bool, False for rows that do not count, whose value is 0.
      state: `PartitionState` of a place per prompt.
      num_prompts: places.
      decay: as of `log_partition`, for a prompt that the batch has, in (0, 1].
      axis_name: mapped axis (or axes) over which the batch is split.

    Shapes: all `[N]`; result float32 `[N]`. No gradient passes.

    Raises:
      AssertionError: shapes differ or dtypes are wrong.
      ValueError: a static hyperparameter out of range.

    Paper: Korbak et al., 2021, arXiv 2112.00791.
    """
    new = _prompts_update(
        state,
        {"target_logps": target_logps, "behaviour_logps": behaviour_logps, "prompt_ids": prompt_ids, "valid": valid},
        num_prompts=num_prompts, decay=decay, axis_name=axis_name,
    )  # fmt: skip
    columns = {"target_logps": target_logps, "behaviour_logps": behaviour_logps}
    kept = jax.tree.map(_stop, columns | {"prompt_ids": prompt_ids, "valid": valid})
    return _stop(prompt_memory.recalled(_log_mean(new), prompt_ids, valid)), kept


def _prompts_update(
    state: PartitionState, aux: dict[str, Array], *, num_prompts: int = 1, decay: float = 1.0, axis_name: Any = None
) -> PartitionState:
    checks.positive_integer("num_prompts", num_prompts)
    _check_decay(decay)
    checks.integers(prompt_ids=aux["prompt_ids"])
    checks.boolean(valid=aux["valid"])
    checks.same_shape(prompt_ids=aux["prompt_ids"], valid=aux["valid"])
    places = prompt_memory.known(aux["prompt_ids"], aux["valid"], num_prompts)
    return _absorbed(
        aux["target_logps"], aux["behaviour_logps"], places, aux["valid"], state, num_prompts, decay, axis_name
    )


prompt_log_partitions = StatefulKernel(_prompts_init, _prompts_loss, _prompts_update)


def target_effective_sample_share(
    target_logps: Array, behaviour_logps: Array, valid: Array, *, axis_name: Any = None
) -> Array:
    """Effective sample size of the importance weights w = P / q over the number of samples: (sum w)^2 / (n sum w^2).

    1 where q is the target, 1 / n where one sample has all the weight: Z, and all that rests on it, is then not known.

    Args:
      target_logps: log P of each completion. Held fixed, as is everything here.
      behaviour_logps: log q of each.
      valid: bool, False for rows that do not count.
      axis_name: mapped axis (or axes) over which the batch is split.

    Shapes: all `[N]`; result float32 `[N]`, one number for all; 0 if no sample was possible. No gradient passes.

    Raises:
      AssertionError: shapes differ or dtypes are wrong.

    Paper: standard practice (Kong, 1992); the diagnostic of Khalifa et al., 2020, arXiv 2012.11635.
    """
    target, behaviour = checks.floats(target_logps=target_logps, behaviour_logps=behaviour_logps)
    checks.boolean(valid=valid)
    checks.same_shape(target_logps=target, valid=valid)
    there = valid & (target > IMPOSSIBLE / 2)
    log_weights = keep(_stop(target - behaviour), there, IMPOSSIBLE)
    top = jnp.max(log_weights)
    top = top if axis_name is None else jax.lax.pmax(top, axis_name)
    weights = jnp.where(there, jnp.exp(log_weights - top), 0.0)
    totals = (jnp.sum(weights), jnp.sum(weights**2), jnp.sum(valid.astype(weights.dtype)))
    total, squares, count = totals if axis_name is None else jax.lax.psum(totals, axis_name)
    share = jnp.square(total) / jnp.maximum(count * squares, 1e-30)
    return jnp.broadcast_to(share, target.shape)
