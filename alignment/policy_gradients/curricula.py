"""Which prompts to train on, and with how many rollouts: the numbers that decide it (`selection` decides).

Knapsack RL: what a group of N rollouts is worth for a prompt of success rate p. PCL: how far a prompt's predicted
success rate is from 1/2. GAIN-RL: how concentrated the hidden states of a question are, and the window that slides down
the ranking by it. All elementwise in prompts, but for `pcl_value_loss`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep
from alignment.policy_gradients import grouping

Array = jax.Array
_stop = jax.lax.stop_gradient


# --- Knapsack RL -----------------------------------------------------------------------------------------------------


def mixed_group_probability(success_rates: Array, group_sizes: Array) -> Array:
    """P_mix(N, p) = 1 - p^N - (1 - p)^N: how likely N rollouts hold both a success and a failure.

    Only then does a group estimator train. 0 at p = 0 and 1, and for N = 1.

    Args:
      success_rates: p of each prompt, in [0, 1]. Held fixed.
      group_sizes: N of each prompt, integer, at least 1.

    Shapes: both `[...]`; result float32 `[...]` in [0, 1]. No gradient passes.

    Raises:
      AssertionError: shapes differ, rates not floating, sizes not integer.

    Paper: Li et al., 2025, arXiv 2509.25849.
    """
    (rates,) = map(_stop, checks.floats(success_rates=success_rates))
    checks.integers(group_sizes=group_sizes)
    checks.same_shape(success_rates=rates, group_sizes=group_sizes)
    sizes = jnp.maximum(group_sizes, 1).astype(rates.dtype)
    return jnp.maximum(1 - rates**sizes - (1 - rates) ** sizes, 0.0)


def knapsack_information_gain(success_rates: Array, valid: Array) -> Array:
    """InfoGain(p) = p (1 - p)^2: to first order, what one step on a success adds to the success rate.

    dp/dz = p (1 - p) for the logit z of a success, which such a step moves by 1 - p. Largest at p = 1/3.

    Args:
      success_rates: p of each prompt, in [0, 1]. Held fixed.
      valid: bool, False for prompts that are not there; their value is 0.

    Shapes: both `[...]`; result float32 `[...]`. No gradient passes.

    Raises:
      AssertionError: shapes differ, rates not floating, `valid` not bool.

    Paper: Li et al., 2025, arXiv 2509.25849.
    """
    (rates,) = map(_stop, checks.floats(success_rates=success_rates))
    rates = keep(rates, valid)
    return rates * jnp.square(1 - rates)


def knapsack_value(success_rates: Array, group_sizes: Array) -> Array:
    """Value(N, p) = P_mix(N, p) * InfoGain(p), what `selection.knapsack_allocation` maximises the sum of.

    Concave in N, so that giving the rollouts out one by one, each to where it adds most, is optimal.

    Args:
      success_rates: p of each prompt, in [0, 1]. Held fixed.
      group_sizes: N of each prompt, integer, at least 1.

    Shapes: both `[...]`; result float32 `[...]`. No gradient passes.

    Raises:
      AssertionError: shapes differ, rates not floating, sizes not integer.

    Paper: Li et al., 2025, arXiv 2509.25849.
    """
    mixed = mixed_group_probability(success_rates, group_sizes)
    return mixed * knapsack_information_gain(success_rates, jnp.ones(mixed.shape, bool))


# --- PCL -------------------------------------------------------------------------------------------------------------


def pcl_distances(prompt_values: Array, valid: Array, *, tau: float = 0.5) -> Array:
    """|V(x) - tau| of each prompt of the pool; PCL trains on the m smallest (`selection.smallest`).

    Args:
      prompt_values: V, predicted success rate of each prompt. Held fixed.
      valid: bool, False for prompts that are not there; they get the largest number there is.
      tau: the success rate sought, in [0, 1].

    Shapes: both `[...]`, usually `[pool]`; result float32 `[...]`. No gradient passes.

    Raises:
      AssertionError: shapes differ, values not floating, `valid` not bool.
      ValueError: static tau out of range.

    Paper: Gao et al., 2025, arXiv 2510.01135.
    """
    (values,) = map(_stop, checks.floats(prompt_values=prompt_values))
    checks.number("tau", tau, 0.0, 1.0, closed="both")
    return keep(jnp.abs(keep(values, valid) - tau), valid, jnp.finfo(values.dtype).max)


def pcl_value_loss(
    prompt_values: Array, rewards: Array, group_ids: Array, valid: Array, *, axis_name: Any = None
) -> Array:
    """(V(x) - mean reward of the prompt's rollouts)^2, with the rollouts that the policy's step drew anyway.

    Every completion carries the loss of its prompt; with groups of one size their mean is the mean over prompts.

    Args:
      prompt_values: V of each completion's prompt, the same for all of a group. Trained.
      rewards: score of each completion. Held fixed.
      group_ids: integer, shared by the completions of one prompt.
      valid: bool, False for rows that are not there; their value is 0.
      axis_name: mapped axis (or axes) over which the batch is split; groups may lie on several devices.

    Shapes: all `[N]`; result float32 `[N]`.

    Raises:
      AssertionError: shapes differ or are not [N], values or rewards not floating, ids not integer, `valid` not bool.

    Paper: Gao et al., 2025, arXiv 2510.01135.
    """
    values, rewards = checks.floats(prompt_values=prompt_values, rewards=rewards)
    rewards = grouping.checked_rewards(rewards, group_ids, valid)
    same = grouping.same_group(group_ids, valid, axis_name)
    mean = grouping.moments(grouping.whole(rewards, axis_name), same, ddof=0).mean
    return keep(jnp.square(keep(values, valid) - mean), valid)


# --- GAIN-RL ---------------------------------------------------------------------------------------------------------


def _directions(hidden_states: Array, counted: Array) -> Array:
    """Unit vectors [..., T, D], 0 where not counted and for a hidden state of 0."""
    (hidden,) = map(_stop, checks.floats(hidden_states=hidden_states))
    checks.leading_shape(mask=counted, hidden_states=hidden)
    hidden = jnp.where(counted[..., None], hidden, 0.0)
    # By the largest entry first: squares of 1e20 overflow.
    largest = jnp.max(jnp.abs(hidden), axis=-1, keepdims=True)
    hidden = hidden / jnp.where(largest > 0, largest, 1.0)
    norm = jnp.sqrt(jnp.sum(jnp.square(hidden), axis=-1, keepdims=True))
    return hidden / jnp.where(norm > 0, norm, 1.0)


def angle_concentration_within(hidden_states: Array, question_mask: Array) -> Array:
    """C_intra: mean cosine between a question token's hidden state and those before it, itself included.

    By the sum S of the unit vectors: over i >= j the cosines add up to (S.S + L) / 2, over L (L + 1) / 2 pairs. The L
    ones of i = j keep it above 0 for short questions.

    Args:
      hidden_states: inputs of the last layer's MLP, one per token. Held fixed.
      question_mask: bool, True on tokens of the question; nothing is looked at elsewhere.

    Shapes: hidden_states `[..., T, D]`, usually `[B, T, D]`; mask `[..., T]`; result float32 `[...]`, in [-1, 1]; 0
    for a question without tokens. No gradient passes.

    Raises:
      AssertionError: shapes do not agree, hidden states not floating, mask not bool.

    Paper: Wang et al., 2025, arXiv 2506.02281. The authors' code slices rows of the table of cosines twice, at a fixed
    offset, and keeps one diagonal too many; the formula is followed.
    """
    checks.boolean(question_mask=question_mask)
    directions = _directions(hidden_states, question_mask)
    count = jnp.sum(question_mask, axis=-1).astype(directions.dtype)
    squared = jnp.sum(jnp.square(jnp.sum(directions, axis=-2)), axis=-1)
    own = jnp.sum(jnp.square(directions), axis=(-2, -1))  # L, less the hidden states that are 0
    return (squared + own) / jnp.maximum(count * (count + 1), 1)


def angle_concentration_between(hidden_states: Array, question_mask: Array, context_mask: Array) -> Array:
    """C_inter: mean cosine between the hidden states of the question and of what precedes it (system, examples).

    Args:
      hidden_states: inputs of the last layer's MLP, one per token. Held fixed.
      question_mask, context_mask: bool, True on tokens of either; nothing is looked at elsewhere.

    Shapes: hidden_states `[..., T, D]`, usually `[B, T, D]`; masks `[..., T]`; result float32 `[...]`, in [-1, 1]; 0 if
    one of them has no tokens. No gradient passes.

    Raises:
      AssertionError: shapes do not agree, hidden states not floating, masks not bool.

    Paper: Wang et al., 2025, arXiv 2506.02281.
    """
    checks.boolean(question_mask=question_mask, context_mask=context_mask)
    checks.same_shape(question_mask=question_mask, context_mask=context_mask)
    question, context = (jnp.sum(_directions(hidden_states, m), axis=-2) for m in (question_mask, context_mask))
    pairs = jnp.sum(question_mask, axis=-1) * jnp.sum(context_mask, axis=-1)
    return jnp.sum(question * context, axis=-1) / jnp.maximum(pairs, 1)


def angle_concentration(
    hidden_states: Array, question_mask: Array, context_mask: Array, *, between_weight: float = 1.0
) -> Array:
    """C = C_intra + w * C_inter: prompts of a high one have large gradients and come first in GAIN-RL.

    The gradient of a linear layer is sum_i g_i x_i^T over the tokens, of squared norm sum_ij (g_i.g_j)(x_i.x_j): larger
    the more the x_i point one way.

    Args:
      hidden_states: inputs of the last layer's MLP, one per token. Held fixed.
      question_mask, context_mask: bool, True on tokens of the question and of what precedes it.
      between_weight: w, in [0, inf); 1 in the paper, 8 in the authors' code.

    Shapes: hidden_states `[..., T, D]`, usually `[B, T, D]`; masks `[..., T]`; result float32 `[...]`. No gradient
    passes.

    Raises:
      AssertionError: shapes do not agree, hidden states not floating, masks not bool.
      ValueError: static between_weight out of range.

    Paper: Wang et al., 2025, arXiv 2506.02281.
    """
    checks.number("between_weight", between_weight, 0.0, closed="left")
    within = angle_concentration_within(hidden_states, question_mask)
    return within + between_weight * angle_concentration_between(hidden_states, question_mask, context_mask)


def gain_rl_sampling_weights(ranks: Array, centers: Array, *, sigma: float = 1000.0) -> Array:
    """exp(-((rank - mu) / sigma)^2 / 2), at least 1e-30: how readily a prompt is drawn.

    Args:
      ranks: place of each prompt by concentration, 0 for the highest (`selection.ranks`), integer.
      centers: mu, the middle of the window, once per prompt. Held fixed.
      sigma: width of the window in prompts, in (0, inf).

    Shapes: both `[...]`, usually `[num_prompts]`; result float32 `[...]`. No gradient passes.

    Raises:
      AssertionError: shapes differ, ranks not integer, centers not floating.
      ValueError: static sigma out of range.

    Paper: Wang et al., 2025, arXiv 2506.02281. The floor is not theirs: without it a window that has slid past the
    data set leaves nothing to draw.
    """
    (centers,) = map(_stop, checks.floats(centers=centers))
    checks.integers(ranks=ranks)
    checks.same_shape(ranks=ranks, centers=centers)
    checks.number("sigma", sigma, 0.0)
    return jnp.maximum(jnp.exp(-0.5 * jnp.square((ranks - centers) / sigma)), 1e-30)


def gain_rl_next_center(
    centers: Array,
    accuracies: Array,
    concentrations: Array,
    *,
    num_samples: int = 1000,
    accuracy_slope: float = 2.0,
    accuracy_center: float = 0.5,
    concentration_slope: float = 2.0,
) -> Array:
    """mu <- mu + clip(n/2 tanh(a (Acc - b)) + n/2 tanh(g C), 0, n): on to the next prompts as these are learnt.

    Args:
      centers: mu. Held fixed.
      accuracies: Acc, mean accuracy of the epoch, in [0, 1]. Held fixed.
      concentrations: C, mean concentration of the epoch's prompts. Held fixed.
      num_samples: n, prompts per epoch, at least 1: the window never goes back, nor on by more than that.
      accuracy_slope: a, in [0, inf).
      accuracy_center: b, in (-inf, inf).
      concentration_slope: g, in [0, inf).

    Shapes: all `[...]`, usually `[]`; result float32 `[...]`. No gradient passes.

    Raises:
      AssertionError: shapes differ or an array not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Wang et al., 2025, arXiv 2506.02281. In the authors' code the new center takes effect an epoch later.
    """
    centers, accuracies, concentrations = map(
        _stop, checks.floats(centers=centers, accuracies=accuracies, concentrations=concentrations)
    )
    checks.positive_integer("num_samples", num_samples)
    checks.number("accuracy_slope", accuracy_slope, 0.0, closed="left")
    checks.number("accuracy_center", accuracy_center, -jnp.inf)
    checks.number("concentration_slope", concentration_slope, 0.0, closed="left")
    by_accuracy = jnp.tanh(accuracy_slope * (accuracies - accuracy_center))
    by_concentration = jnp.tanh(concentration_slope * concentrations)
    return centers + jnp.clip(0.5 * num_samples * (by_accuracy + by_concentration), 0.0, num_samples)
