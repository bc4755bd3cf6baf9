"""SPO: a remembered success rate per prompt as baseline, and as the rule by which prompts are drawn.

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
from alignment.policy_gradients import grouping, prompt_memory

Array = jax.Array
_stop = jax.lax.stop_gradient


def spo_drifts(policy_token_logps: Array, behaviour_token_logps: Array, mask: Array) -> Array:
    """How far the policy has moved since a completion was sampled: mean over its tokens of |log pi_then - log pi|.

    To be had from the stored last completion of a prompt when that is visited again; 0 on the first visit.

    Args:
      policy_token_logps: log-prob of each token now. Held fixed.
      behaviour_token_logps: the same when it was sampled. Held fixed.
      mask: bool, True on completion tokens; nothing is looked at elsewhere.

    Shapes: all `[..., T]`, usually `[N, T]`; result float32 `[...]`, in nats per token. No gradient passes.

    Raises:
      AssertionError: shapes differ, log-probs not floating, mask not bool.

    Paper: Xu and Ding, 2025, arXiv 2509.13232, which has a KL here; the authors' recipe in verl takes the absolute
    value, which is followed. `spo_signed_drifts` estimates the KL.
    """
    policy, behaviour = checks.floats(
        policy_token_logps=policy_token_logps, behaviour_token_logps=behaviour_token_logps
    )
    moved = jnp.abs(_stop(keep(behaviour, mask)) - _stop(keep(policy, mask)))
    return jnp.sum(moved, axis=-1) / jnp.maximum(jnp.sum(mask, axis=-1), 1)


def spo_signed_drifts(policy_token_logps: Array, behaviour_token_logps: Array, mask: Array) -> Array:
    """Mean over the tokens of log pi_then - log pi: an unbiased estimate of KL(pi_then || pi) per token.

    Args:
      policy_token_logps: log-prob of each token now. Held fixed.
      behaviour_token_logps: the same when it was sampled. Held fixed.
      mask: bool, True on completion tokens; nothing is looked at elsewhere.

    Shapes: all `[..., T]`, usually `[N, T]`; result float32 `[...]`, in nats per token; may be negative. No gradient
    passes.

    Raises:
      AssertionError: shapes differ, log-probs not floating, mask not bool.

    Paper: Xu and Ding, 2025, arXiv 2509.13232.
    """
    policy, behaviour = checks.floats(
        policy_token_logps=policy_token_logps, behaviour_token_logps=behaviour_token_logps
    )
    moved = _stop(keep(behaviour, mask)) - _stop(keep(policy, mask))
    return jnp.sum(moved, axis=-1) / jnp.maximum(jnp.sum(mask, axis=-1), 1)


def spo_forgetting(
    drifts: Array, valid: Array, *, d_half: float = 0.06, rho_min: float = 0.875, rho_max: float = 0.96
) -> Array:
    """The share of old evidence that is kept: rho = clip(2^(-D / D_half), rho_min, rho_max).

    Args:
      drifts: D, of `spo_drifts`; 0 on a first visit. Held fixed.
      valid: bool, False for rows that are not there; nothing in them is looked at, and their value is 1.
      d_half: the drift at which half is forgotten (before the clip), in (0, inf).
      rho_min, rho_max: in (0, 1) and (0, 1].

    Shapes: both `[...]`, usually `[N]`; result float32 `[...]`. No gradient passes.

    Raises:
      AssertionError: shapes differ, drifts not floating, `valid` not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Xu and Ding, 2025, arXiv 2509.13232.
    """
    (drifts,) = checks.floats(drifts=drifts)
    checks.number("d_half", d_half, 0.0)
    checks.number("rho_min", rho_min, 0.0, 1.0)
    checks.number("rho_max", rho_max, 0.0, 1.0, closed="right")
    rho = jnp.exp2(-_stop(keep(drifts, valid)) / d_half)
    return keep(jnp.minimum(jnp.maximum(rho, rho_min), rho_max), valid, 1.0)


class SpoState(NamedTuple):
    """successes, failures: float32 [num_prompts], discounted counts (alpha and beta of a Beta distribution)."""

    successes: Array
    failures: Array


def spo_prior(reward_sums: Array, sample_counts: Array, *, rho_min: float = 0.875) -> SpoState:
    """The state that n0 offline samples per prompt, whose rewards add up to S, make:

        alpha = N0 (S + 1/2) / (n0 + 1),   beta = N0 (n0 - S + 1/2) / (n0 + 1),   N0 = 1 / (1 - rho_min)

    N0 is how much evidence the quickest forgetting leaves standing; without samples the rate is 1/2.

    Args:
      reward_sums: S of each prompt, in [0, n0]. Held fixed.
      sample_counts: n0 of each prompt, integer; the authors draw 8.
      rho_min: of `spo`, in (0, 1).

    Shapes: both `[...]`, usually `[num_prompts]`; result a pair of float32 `[...]`. No gradient passes.

    Raises:
      AssertionError: shapes differ, sums not floating, counts not integer.
      ValueError: static rho_min out of range.

    Paper: Xu and Ding, 2025, arXiv 2509.13232.
    """
    (sums,) = map(_stop, checks.floats(reward_sums=reward_sums))
    checks.integers(sample_counts=sample_counts)
    checks.same_shape(reward_sums=sums, sample_counts=sample_counts)
    checks.number("rho_min", rho_min, 0.0, 1.0)
    scale = 1 / ((1 - rho_min) * (sample_counts + 1))
    return SpoState((sums + 0.5) * scale, (sample_counts - sums + 0.5) * scale)


def spo_sampling_weights(successes: Array, failures: Array, *, exploration: float = 0.05) -> Array:
    """How readily a prompt is drawn: sqrt(v (1 - v)) + eps, v = alpha / (alpha + beta); to be divided by their sum.

    The standard deviation of a reward of the prompt: prompts at 1/2 teach most, and eps revisits the others.

    Args:
      successes, failures: alpha and beta, of the state of `spo`. Held fixed.
      exploration: eps, in [0, inf).

    Shapes: both `[...]`, usually `[num_prompts]`; result float32 `[...]`. No gradient passes.

    Raises:
      AssertionError: shapes differ or counts not floating.
      ValueError: static exploration out of range.

    Paper: Xu and Ding, 2025, arXiv 2509.13232.
    """
    successes, failures = map(_stop, checks.floats(successes=successes, failures=failures))
    checks.number("exploration", exploration, 0.0, closed="left")
    rates = _rates(successes, failures)
    return jnp.sqrt(jnp.maximum(rates * (1 - rates), 0.0)) + exploration


def _rates(successes: Array, failures: Array) -> Array:
    evidence = successes + failures
    return jnp.where(evidence > 0, successes / jnp.where(evidence > 0, evidence, 1.0), 0.5)


def _spo_init(
    *, num_prompts: int = 1, d_half: float = 0.06, rho_min: float = 0.875, rho_max: float = 0.96, eps: float = 1e-8
) -> SpoState:
    """A rate of 1/2 for every prompt. Where offline samples of the prompts exist, use `spo_prior`."""
    checks.positive_integer("num_prompts", num_prompts)
    return spo_prior(jnp.zeros(num_prompts), jnp.zeros(num_prompts, jnp.int32), rho_min=rho_min)


def _spo_estimate(
    rewards: Array,
    drifts: Array,
    prompt_ids: Array,
    valid: Array,
    state: SpoState,
    *,
    num_prompts: int = 1,
    d_half: float = 0.06,
    rho_min: float = 0.875,
    rho_max: float = 0.96,
    eps: float = 1e-8,
    axis_name: Any = None,
) -> tuple[Array, dict[str, Array]]:
    """Single-stream advantages: a_i = r_i - v of the prompt, and over the batch A_i = (a_i - mean) / (std + eps).

    One completion per prompt is enough, as the baseline v = alpha / (alpha + beta) is remembered, not measured on the
    spot: no sample is wasted on a group of equal rewards. After the step

        alpha <- rho alpha + r,   beta <- rho beta + (1 - r),   rho of `spo_forgetting`

    once per completion, in the order of the batch. For rewards that are not 0 and 1 this is v <- v + (r - v) / N,
    N <- rho N + 1, with N = alpha + beta; beta itself then means nothing.

    Args:
      rewards: score of each completion. Held fixed.
      drifts: how far the policy is from where it was at the prompt's last visit; 0 on the first. Held fixed.
      prompt_ids: integer, the number of the prompt in the data set.
      valid: bool, False for rows that are not there; nothing in them is looked at, and their advantage is 0.
      state: of `spo.init`, `spo_prior` or `spo.update`. Held fixed.
      num_prompts: size of the state, at least 1.
      d_half, rho_min, rho_max: of `spo_forgetting`.
      eps: added to the deviation (of one degree of freedom less), in [0, inf).
      axis_name: mapped axis (or axes) over which the batch is split; the statistics are those of the whole batch.

    Shapes: arrays `[N]`, state `[num_prompts]`; values float32 `[N]`; aux holds rewards, drifts, prompt_ids and valid,
    `[N]`. No gradient passes.

    Raises:
      AssertionError: shapes do not agree, rewards or drifts not floating, ids not integer, `valid` not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Xu and Ding, 2025, arXiv 2509.13232; with the clipped surrogate (0.2 and 0.28) per token. The authors'
    recipe in verl agrees.
    """
    _check_spo(num_prompts, eps)
    rewards, drifts = checks.floats(rewards=rewards, drifts=drifts)
    spo_forgetting(drifts, valid, d_half=d_half, rho_min=rho_min, rho_max=rho_max)
    rewards = grouping.checked_rewards(rewards, prompt_ids, valid)
    successes, failures = prompt_memory.fixed_state(num_prompts, successes=state.successes, failures=state.failures)
    gains = rewards - prompt_memory.recalled(_rates(successes, failures), prompt_ids, valid).astype(rewards.dtype)
    over_batch = grouping.moments(grouping.whole(gains, axis_name), grouping.everyone(valid, axis_name), ddof=1)
    advantages = grouping.standardised(gains, over_batch.mean, over_batch.std, eps)
    # A comparison with NaN is False: it would hide an unknown prompt behind an advantage of 0.
    advantages = keep(jnp.where(jnp.isnan(gains), jnp.nan, advantages), valid)
    return advantages, {"rewards": rewards, "drifts": _stop(drifts), "prompt_ids": prompt_ids, "valid": valid}


def _check_spo(num_prompts: int, eps: float) -> None:
    checks.positive_integer("num_prompts", num_prompts)
    checks.number("eps", eps, 0.0, closed="left")


def _spo_update(
    state: SpoState,
    aux: dict[str, Array],
    *,
    num_prompts: int = 1,
    d_half: float = 0.06,
    rho_min: float = 0.875,
    rho_max: float = 0.96,
    eps: float = 1e-8,
    axis_name: Any = None,
) -> SpoState:
    """Takes in the rewards, a prompt that is in the batch more than once in the order of the batch."""
    _check_spo(num_prompts, eps)
    valid, ids = aux["valid"], aux["prompt_ids"]
    rewards = keep(aux["rewards"], valid)
    log_rho = jnp.log(spo_forgetting(aux["drifts"], valid, d_half=d_half, rho_min=rho_min, rho_max=rho_max))
    same = grouping.same_group(ids, valid, axis_name)
    numbers = grouping.row_numbers(valid.shape[0], axis_name)
    later = same & (jnp.arange(same.shape[1])[None, :] > numbers[:, None])
    # What a row adds is discounted by the later visits of its prompt, what was there by all of them.
    discounts = jnp.exp(grouping.total(grouping.whole(log_rho, axis_name), later))
    known = prompt_memory.known(ids, valid, num_prompts)

    def summed(values):
        totals = jnp.zeros(num_prompts, jnp.float32).at[known].add(values.astype(jnp.float32), mode="drop")
        return totals if axis_name is None else jax.lax.psum(totals, axis_name)

    kept = jnp.exp(summed(log_rho))
    return SpoState(
        (kept * state.successes + summed(discounts * rewards)).astype(state.successes.dtype),
        (kept * state.failures + summed(discounts * (1 - rewards))).astype(state.failures.dtype),
    )


spo = StatefulKernel(init=_spo_init, loss=_spo_estimate, update=_spo_update)
