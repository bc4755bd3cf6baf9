"""Losses on single completions that are labelled wanted or unwanted, without a partner of the same prompt.

r = log pi(y|x) - log ref(y|x) is the log-ratio of a completion, s the sigmoid, `reference_*` held fixed. Both families
compare r with a moving zero point, estimated from the batch: `valid` says which of its rows are examples, and
`axis_name` over which mapped axis it is split.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep
from alignment.losses.stateful import StatefulKernel

Array = jax.Array
_stop = jax.lax.stop_gradient


def _log_ratio(policy_logps: Array, reference_logps: Array, **labels: Array) -> Array:
    policy_logps, reference_logps = checks.floats(policy_logps=policy_logps, reference_logps=reference_logps)
    checks.boolean(**labels)
    checks.same_shape(policy_logps=policy_logps, **labels)
    return policy_logps - _stop(reference_logps)


def _mean_where(values: Array, where: Array, axis_name: Any) -> tuple[Array, Array]:
    """Mean over the batch of the values that count, 0 if none does; and how many count."""
    total, count = jnp.sum(keep(values, where)), jnp.sum(where, dtype=values.dtype)
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)
    return total / jnp.maximum(count, 1), count


def kto_kl(
    policy_mismatched_logps: Array,
    reference_mismatched_logps: Array,
    valid: Array,
    *,
    axis_name: Any = None,
) -> Array:
    """KTO's zero point: z0 = max(0, mean over the batch of log pi(y'|x) - log ref(y'|x)), y' from another prompt.

    An estimate of KL(pi || ref) that costs no samples; biased, as y' was not drawn from pi. A batch of one example has
    no other prompt to take y' from, and then z0 would be its own reward.

    Args:
      policy_mismatched_logps, reference_mismatched_logps: summed log-probs of each mismatched completion. Held fixed.
      valid: bool, False for rows that only pad the batch.
      axis_name: mapped axis (or axes) over which the batch is split; z0 is that of the whole batch.

    Shapes: all `[B]`; result float32 `[]`, in nats. No gradient passes.

    Raises:
      AssertionError: shapes differ, log-probs not floating, `valid` not bool.

    Paper: Ethayarajh et al., 2024, arXiv 2402.01306. The authors' `KTOTrainer` and TRL agree.
    """
    ratios = _stop(_log_ratio(policy_mismatched_logps, reference_mismatched_logps, valid=valid))
    return jnp.maximum(_mean_where(ratios, valid, axis_name)[0], 0.0)


def kto(
    policy_logps: Array,
    reference_logps: Array,
    policy_mismatched_logps: Array,
    reference_mismatched_logps: Array,
    desirable: Array,
    valid: Array,
    *,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    axis_name: Any = None,
) -> Array:
    """Kahneman-Tversky Optimization: lambda_D (1 - s(beta (r - z0))) if wanted, lambda_U (1 - s(beta (z0 - r))) if not.

    z0 is `kto_kl` of the batch. The value function saturates on both sides: an example far from z0, whichever way,
    teaches little, which is also what makes it robust to wrong labels.

    Args:
      policy_logps: summed log-probs of the completions under the policy. Trained.
      reference_logps: the same under the reference. Held fixed.
      policy_mismatched_logps, reference_mismatched_logps: of completions of other prompts, for z0. Held fixed.
      desirable: bool, whether the completion is a wanted one.
      valid: bool, False for rows that only pad the batch.
      beta: in (0, inf).
      desirable_weight, undesirable_weight: lambda_D and lambda_U, in [0, inf). The paper keeps lambda_D n_D / (lambda_U
        n_U) between 1 and 4/3, n the numbers of examples.
      axis_name: mapped axis (or axes) over which the batch is split; z0 is that of the whole batch.

    Shapes: all `[B]`; result float32 `[B]`, between 0 and the weight.

    Raises:
      AssertionError: shapes differ, log-probs not floating, `desirable` or `valid` not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Ethayarajh et al., 2024, arXiv 2402.01306. The authors' `KTOTrainer` and TRL agree.
    """
    checks.number("beta", beta, 0.0)
    checks.number("desirable_weight", desirable_weight, 0.0, closed="left")
    checks.number("undesirable_weight", undesirable_weight, 0.0, closed="left")
    ratios = _log_ratio(policy_logps, reference_logps, desirable=desirable, valid=valid)
    checks.same_shape(policy_logps=ratios, policy_mismatched_logps=policy_mismatched_logps)
    z0 = kto_kl(policy_mismatched_logps, reference_mismatched_logps, valid, axis_name=axis_name)
    gaps = beta * (ratios - z0)
    # 1 - s(z) is s(-z), which does not cancel.
    wanted = desirable_weight * jax.nn.sigmoid(-gaps)
    return jnp.where(desirable, wanted, undesirable_weight * jax.nn.sigmoid(gaps))


def bco_delta(
    averages: Array,
    rewards: Array,
    desirable: Array,
    valid: Array,
    *,
    momentum: float = 0.9,
    axis_name: Any = None,
) -> Array:
    """Moving averages of the reward of wanted and of unwanted completions; BCO's shift delta is the mean of the two.

        average_k <- momentum * average_k + (1 - momentum) * mean of r over the batch's completions of group k

    The two groups weigh the same in delta however many examples each has. A group without an example in the batch keeps
    its average. Averages of 0 are a start without bias, as every reward is 0 while the policy is the reference.

    Args:
      averages: (wanted, unwanted). Held fixed, as is everything here: no gradient passes.
      rewards: beta * log(pi / ref) of each completion.
      desirable: bool, whether the completion is a wanted one.
      valid: bool, False for rows that only pad the batch.
      momentum: in [0, 1); 0 takes the means of this batch alone.
      axis_name: mapped axis (or axes) over which the batch is split; the means are those of the whole batch.

    Shapes: averages `[2]`; the rest `[B]`; result float32 `[2]`.

    Raises:
      AssertionError: shapes do not agree, averages or rewards not floating, `desirable` or `valid` not bool.
      ValueError: static momentum out of range.

    Paper: Jung et al., 2024, arXiv 2404.04656. TRL instead keeps the cumulative mean over all rewards seen, in which
    the larger group counts for more; the paper is followed here. The size of the momentum is ours.
    """
    (averages,), (rewards,) = checks.floats(averages=averages), checks.floats(rewards=rewards)
    checks.boolean(desirable=desirable, valid=valid)
    checks.same_shape(rewards=rewards, desirable=desirable, valid=valid)
    checks.number("momentum", momentum, 0.0, 1.0, closed="left")
    if averages.shape != (2,):
        raise AssertionError(f"averages must have shape (2,), got {averages.shape}")
    averages, rewards = _stop(averages), _stop(rewards)
    means, counts = zip(
        *(_mean_where(rewards, valid & group, axis_name) for group in (desirable, ~desirable)), strict=True
    )
    moved = momentum * averages + (1 - momentum) * jnp.stack(means)
    return jnp.where(jnp.stack(counts) > 0, moved, averages)


def bco_udm_weight(desirable_logits: Array, desirable: Array, *, smallest: float = 0.5, largest: float = 10.0) -> Array:
    """BCO's weight of a completion: 1 if wanted, clip(p / (1 - p), smallest, largest) if not, p = p(wanted | prompt).

    Where wanted and unwanted completions come from different prompts, the ratio of the two densities of the prompt
    moves the unwanted ones to the prompts of the wanted. p comes from a classifier of prompts, trained beforehand;
    multiply the losses of the examples with this.

    Args:
      desirable_logits: log(p / (1 - p)) of each example's prompt. Held fixed.
      desirable: bool, whether the completion is a wanted one.
      smallest, largest: ends of the clip, in (0, inf).

    Shapes: both `[...]`, usually `[B]`; result float32 `[...]`. No gradient passes.

    Raises:
      AssertionError: shapes differ, logits not floating, `desirable` not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Jung et al., 2024, arXiv 2404.04656 (underlying distribution matching). TRL agrees.
    """
    (desirable_logits,) = checks.floats(desirable_logits=desirable_logits)
    checks.boolean(desirable=desirable)
    checks.same_shape(desirable_logits=desirable_logits, desirable=desirable)
    checks.number("smallest", smallest, 0.0)
    checks.number("largest", largest, 0.0)
    # Clipped as a logit: its exponential overflows.
    ratios = jnp.exp(jnp.clip(_stop(desirable_logits), jnp.log(smallest), jnp.log(largest)))
    return jnp.where(desirable, 1.0, ratios)


class BcoState(NamedTuple):
    """averages: float32 [2], moving averages of the reward of wanted and of unwanted completions."""

    averages: Array


def _bco_init(*, beta: float = 0.1, momentum: float = 0.9) -> BcoState:
    """Rewards are 0 while the policy is the reference, and so are their averages."""
    checks.number("beta", beta, 0.0)
    checks.number("momentum", momentum, 0.0, 1.0, closed="left")
    return BcoState(averages=jnp.zeros(2, jnp.float32))


def _bco_loss(
    policy_logps: Array,
    reference_logps: Array,
    desirable: Array,
    valid: Array,
    state: BcoState,
    *,
    beta: float = 0.1,
    momentum: float = 0.9,
    axis_name: Any = None,
) -> tuple[Array, dict[str, Array]]:
    """Binary Classifier Optimization: -log s(rho - delta) if wanted, -log s(delta - rho) if not, rho = beta * r.

    A classifier of wanted against unwanted whose logit is the implicit reward. For any shift delta the losses of the
    two completions of a pair add up to at least `dpo` of the pair; delta, half-way between the average rewards of the
    two groups, makes the bound tight. It is moved by this batch before it is used, see `bco_delta`.

    Args:
      policy_logps: summed log-probs of the completions under the policy. Trained.
      reference_logps: the same under the reference. Held fixed.
      desirable: bool, whether the completion is a wanted one.
      valid: bool, False for rows that only pad the batch.
      state: from `bco.init` or `bco.update`. Held fixed.
      beta: in (0, inf).
      momentum: of the averages, in [0, 1).
      axis_name: mapped axis (or axes) over which the batch is split.

    Shapes: all `[B]`, state.averages `[2]`; values float32 `[B]`, in nats; aux holds `rewards`, `desirable` and
    `valid`, `[B]`.

    Raises:
      AssertionError: shapes do not agree, log-probs not floating, `desirable` or `valid` not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Jung et al., 2024, arXiv 2404.04656. delta follows the paper and not TRL, see `bco_delta`.
    """
    checks.number("beta", beta, 0.0)
    rewards = beta * _log_ratio(policy_logps, reference_logps, desirable=desirable, valid=valid)
    averages = bco_delta(state.averages, rewards, desirable, valid, momentum=momentum, axis_name=axis_name)
    gaps = rewards - averages.mean()
    values = jax.nn.softplus(jnp.where(desirable, -gaps, gaps))
    return values, {"rewards": _stop(rewards), "desirable": desirable, "valid": valid}


def _bco_update(
    state: BcoState, aux: dict[str, Array], *, beta: float = 0.1, momentum: float = 0.9, axis_name: Any = None
) -> BcoState:
    """Keeps the averages that the loss used, from the aux of the whole batch."""
    checks.number("beta", beta, 0.0)
    averages = bco_delta(
        state.averages, aux["rewards"], aux["desirable"], aux["valid"], momentum=momentum, axis_name=axis_name
    )
    return BcoState(averages=averages.astype(state.averages.dtype))


bco = StatefulKernel(init=_bco_init, loss=_bco_loss, update=_bco_update)
"""BCO on single completions; the docstring of `bco.loss` has formula, shapes and hyperparameters."""
