"""Demonstrations and rollouts in one batch: HPT, LUFFY, SRFT and ExPO.

`demonstration_mask` [N, T] is True on tokens that somebody else wrote, and so a part of `mask`; a row may begin with a
demonstration and go on with a rollout. Losses of demonstrations alone take only that mask, so that `token_mean` divides
by their tokens; the others give every completion token a value.
"""

from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep
from alignment.policy_gradients import grouping
from alignment.policy_gradients.advantages import grpo_advantages

Array = jax.Array
_stop = jax.lax.stop_gradient
_LARGEST_LOG_RATIO = 20.0
_LARGEST_ENTROPY = 20.0  # nats: of a vocabulary of 485 million


def _demonstrated(demonstration_mask: Array, mask: Array) -> Array:
    checks.boolean(demonstration_mask=demonstration_mask, mask=mask)
    checks.same_shape(demonstration_mask=demonstration_mask, mask=mask)
    return demonstration_mask & mask


def _ratios(policy: Array, behaviour: Array, mask: Array) -> Array:
    log_ratios = keep(policy, mask) - _stop(keep(behaviour, mask))
    return jnp.exp(jnp.clip(log_ratios, -_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO))


def _shaped(policy: Array, mask: Array, gamma: float) -> Array:
    """f(pi) = pi / (pi + gamma), as a sigmoid of log pi - log gamma; in (0, 1] whatever comes in."""
    return jax.nn.sigmoid(keep(policy, mask) - jnp.log(gamma))


def hpt_rows(
    correct: Array,
    group_ids: Array,
    demonstration_mask: Array,
    valid: Array,
    *,
    gate: float = 0.0,
    axis_name: Any = None,
) -> Array:
    """Hybrid post-training: which rows train, 1 or 0. Rollouts if P > gate, else the prompt's demonstrations.

    P is the share of correct ones among the valid rollouts of the prompt. Each prompt trains by exactly one of the two:
    reinforcement where the policy already solves it, imitation where it does not. gate = 0 turns to the demonstration
    exactly where all rollouts fail and a group estimator has nothing to say. A prompt without a demonstration that
    is not solved trains nothing. gate >= 1 is pure SFT, gate < 0 pure reinforcement.

    Args:
      correct: bool, the verdict on each completion.
      group_ids: integer, shared by the completions and the demonstrations of one prompt.
      demonstration_mask: bool, True on tokens of demonstrations; a row with one is a demonstration.
      valid: bool, False for rows that are not there; their value is 0.
      gate: in [-1, 1]; the authors use 0 for Qwen2.5-Math and 2/8 for Llama-3.1-8B.
      axis_name: mapped axis (or axes) over which the batch is split; groups may lie on several devices.

    Shapes: demonstration_mask `[N, T]`, the others `[N]`; result float32 `[N]`. No gradient passes.

    Raises:
      AssertionError: shapes do not agree, ids not integer, masks not bool.
      ValueError: static gate out of range.

    Paper: Lv et al., 2025, arXiv 2509.04419. The authors' trainer removes the rows of the branch not taken, as here, so
    the weights of the reductions do not count them either.
    """
    checks.boolean(correct=correct, demonstration_mask=demonstration_mask)
    checks.leading_shape(correct=correct, demonstration_mask=demonstration_mask)
    right = grouping.checked_rewards(correct.astype(jnp.float32), group_ids, valid)
    checks.number("gate", gate, -1.0, 1.0, closed="both")
    demonstration = jnp.any(demonstration_mask, axis=-1)
    rollouts = grouping.same_group(group_ids, valid & ~demonstration, axis_name)
    share = grouping.total(grouping.whole(right, axis_name), rollouts) / jnp.maximum(jnp.sum(rollouts, axis=-1), 1)
    return keep(jnp.where((share > gate) != demonstration, 1.0, 0.0), valid)


def hpt_rollouts(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    token_advantages: Array,
    demonstration_mask: Array,
    mask: Array,
) -> Array:
    """Hybrid post-training on rollouts: -A r, without clip; 0 on tokens of demonstrations.

    Args:
      policy_token_logps: log-prob of each token under the policy. Trained.
      behaviour_token_logps: the same when it was sampled. Held fixed.
      token_advantages: A, the reward less the mean of the prompt's rollouts. Held fixed.
      demonstration_mask: bool, True on tokens of demonstrations.
      mask: bool, True on completion tokens; nothing is looked at elsewhere, and the value is 0 there.

    Shapes: all `[..., T]`, usually `[N, T]`; result float32 `[..., T]`; reduced by `constant`. The log-ratio is cut at
    +-20.

    Raises:
      AssertionError: shapes differ, an array not floating, masks not bool.

    Paper: Lv et al., 2025, arXiv 2509.04419. The paper prints a clipped surrogate and advantages divided by their
    deviation; the authors' script switches both off and divides by a constant length, which is followed.
    """
    policy, behaviour, advantages = checks.floats(
        policy_token_logps=policy_token_logps,
        behaviour_token_logps=behaviour_token_logps,
        token_advantages=token_advantages,
    )
    own = mask & ~_demonstrated(demonstration_mask, mask)
    return keep(-_stop(keep(advantages, own)) * _ratios(policy, behaviour, own), own)


def expo_advantages(
    rewards: Array,
    group_ids: Array,
    demonstration_mask: Array,
    valid: Array,
    *,
    eps: float = 1e-6,
    ddof: int = 1,
    axis_name: Any = None,
) -> Array:
    """GRPO's advantages among the completions that were sampled; 0 for a self-explanation, which is only imitated.

    In a group whose samples all fail they are 0, so that -log pi of the explanation alone moves the policy: what is
    sampled is trained with the mask of `sampled_tokens_mask`, and the explanation by `demonstration_nll`.

    Args:
      rewards: of each completion. Held fixed, as is everything here.
      group_ids: integer, shared by the completions of one prompt and its explanation.
      demonstration_mask: bool, True on tokens of explanations; a row with one is an explanation.
      valid: bool, False for rows that do not count.
      eps: in (0, inf).
      ddof: 1 divides the sum of squares by the number of samples less one, 0 by that number.
      axis_name: mapped axis (or axes) over which the batch is split; groups may lie on several devices.

    Shapes: demonstration_mask `[N, T]`, the others `[N]`; result float32 `[N]`.

    Raises:
      AssertionError: shapes do not agree, rewards not floating, ids not integer, masks not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Zhou et al., 2025 (ExPO), arXiv 2507.02834, ExP-GRPO. The explanation is sampled with the answer in its
    prompt and trained without it.
    """
    checks.boolean(demonstration_mask=demonstration_mask, valid=valid)
    checks.leading_shape(valid=valid, demonstration_mask=demonstration_mask)
    sampled = valid & ~jnp.any(demonstration_mask, axis=-1)
    return grpo_advantages(rewards, group_ids, sampled, eps=eps, ddof=ddof, axis_name=axis_name)


def sampled_tokens_mask(mask: Array, demonstration_mask: Array) -> Array:
    """True on the completion tokens that the policy drew: those of no demonstration.

    Args:
      mask: bool, True on completion tokens.
      demonstration_mask: bool, True on tokens of demonstrations.

    Shapes: both `[..., T]`; result bool `[..., T]`.

    Raises:
      AssertionError: shapes differ or dtypes are wrong.

    Paper: Zhou et al., 2025 (ExPO), arXiv 2507.02834.
    """
    checks.boolean(mask=mask, demonstration_mask=demonstration_mask)
    checks.same_shape(mask=mask, demonstration_mask=demonstration_mask)
    return mask & ~demonstration_mask


def demonstration_nll(policy_token_logps: Array, demonstration_mask: Array) -> Array:
    """Imitation: -log pi on tokens of demonstrations; the SFT branch of HPT.

    Args:
      policy_token_logps: log-prob of each token under the policy. Trained.
      demonstration_mask: bool, True on tokens of demonstrations; nothing is looked at elsewhere, and the value is 0.

    Shapes: both `[..., T]`, usually `[N, T]`; result float32 `[..., T]`, in nats; reduced by `token_mean`.

    Raises:
      AssertionError: shapes differ, log-probs not floating, mask not bool.

    Paper: Lv et al., 2025, arXiv 2509.04419: a mean per sequence in the paper, per token in the authors' code.
    """
    (policy,) = checks.floats(policy_token_logps=policy_token_logps)
    return -keep(policy, demonstration_mask)


def luffy(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    token_advantages: Array,
    demonstration_mask: Array,
    mask: Array,
    *,
    gamma: float = 0.1,
) -> Array:
    """LUFFY: -A r on rollouts, -A f(pi) on demonstrations, f(x) = x / (x + gamma).

    The policy that wrote a demonstration is unknown, so no ratio corrects for it: f takes the place of pi itself, whose
    gradient vanishes on just the tokens there is something to learn from. f's gradient in log pi is gamma pi /
    (pi + gamma)^2, largest at pi = gamma. gamma to 0 makes f 1 everywhere, and demonstrations teach nothing;
    for large gamma gamma * f is pi. Advantages come from rollouts and demonstrations of a prompt together.

    Args:
      policy_token_logps: log-prob of each token under the policy. Trained.
      behaviour_token_logps: the same when it was sampled; not looked at on demonstrations. Held fixed.
      token_advantages: A. Held fixed.
      demonstration_mask: bool, True on tokens of demonstrations.
      mask: bool, True on completion tokens; nothing is looked at elsewhere, and the value is 0 there.
      gamma: in (0, inf).

    Shapes: all `[..., T]`, usually `[N, T]`; result float32 `[..., T]`; reduced by `constant` or `token_mean`. The
    log-ratio is cut at +-20.

    Raises:
      AssertionError: shapes differ, an array not floating, masks not bool.
      ValueError: static gamma out of range.

    Paper: Yan et al., 2025, arXiv 2504.14945. Without a clip on rollouts, as in the authors' later code.
    """
    policy, behaviour, advantages = checks.floats(
        policy_token_logps=policy_token_logps,
        behaviour_token_logps=behaviour_token_logps,
        token_advantages=token_advantages,
    )
    checks.number("gamma", gamma, 0.0)
    shown = _demonstrated(demonstration_mask, mask)
    weights = jnp.where(shown, _shaped(policy, shown, gamma), _ratios(policy, behaviour, mask & ~shown))
    return keep(-_stop(keep(advantages, mask)) * weights, mask)


def _row_entropies(entropies: Array, counted: Array) -> Array:
    """Mean token entropy of each row, held fixed, [..., 1]; 0 for a row without tokens."""
    entropies = jnp.sum(_stop(keep(entropies, counted)), axis=-1, keepdims=True)
    return jnp.clip(entropies / jnp.maximum(jnp.sum(counted, axis=-1, keepdims=True), 1), 0.0, _LARGEST_ENTROPY)


def srft_demonstrations(
    policy_token_logps: Array,
    policy_token_entropies: Array,
    demonstration_mask: Array,
    *,
    coefficient: float = 0.5,
) -> Array:
    """SRFT's imitation: -c exp(-H) log pi, H the mean token entropy of the demonstration.

    Where the policy is unsure of a demonstration, imitation holds back, lest it upset what the policy has learnt.

    Args:
      policy_token_logps: log-prob of each token under the policy. Trained.
      policy_token_entropies: entropy of the next-token distribution, in nats. Held fixed.
      demonstration_mask: bool, True on tokens of demonstrations; nothing is looked at elsewhere, and the value is 0.
      coefficient: c, in [0, inf).

    Shapes: all `[..., T]`, usually `[N, T]`; result float32 `[..., T]`; reduced by `token_mean`. H is cut to [0, 20].

    Raises:
      AssertionError: shapes differ, an array not floating, mask not bool.
      ValueError: static coefficient out of range.

    Paper: Fu et al., 2025, arXiv 2506.19767, by the re-implementation in the HPT authors' code.
    """
    policy, entropies = checks.floats(
        policy_token_logps=policy_token_logps, policy_token_entropies=policy_token_entropies
    )
    checks.number("coefficient", coefficient, 0.0, closed="left")
    weights = coefficient * jnp.exp(-_row_entropies(entropies, demonstration_mask))
    return -keep(weights * keep(policy, demonstration_mask), demonstration_mask)


def srft_reinforcement(
    policy_token_logps: Array,
    policy_token_entropies: Array,
    token_advantages: Array,
    correct: Array,
    demonstration_mask: Array,
    mask: Array,
    *,
    positive_weight: float = 0.1,
    gamma: float = 0.1,
) -> Array:
    """SRFT's reinforcement: -A log pi on rollouts, A = w exp(H) if correct, else -1; LUFFY's -A f(pi) on the rest.

    H is the mean token entropy of the rollout: a correct one teaches more where the policy is unsure, which keeps up
    entropy. No ratio: it is meant for rollouts of the present policy.

    Args:
      policy_token_logps: log-prob of each token under the policy. Trained.
      policy_token_entropies: entropy of the next-token distribution, in nats. Held fixed.
      token_advantages: of rollouts and demonstrations together; looked at on demonstrations alone. Held fixed.
      correct: bool, the verdict on each completion.
      demonstration_mask: bool, True on tokens of demonstrations.
      mask: bool, True on completion tokens; nothing is looked at elsewhere, and the value is 0 there.
      positive_weight: w, in [0, inf).
      gamma: of f(x) = x / (x + gamma), in (0, inf).

    Shapes: correct `[...]`, the others `[..., T]`, usually `[N, T]`; result float32 `[..., T]`; reduced by `constant`
    or `token_mean`. H is cut to [0, 20].

    Raises:
      AssertionError: shapes do not agree, an array not floating, masks not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Fu et al., 2025, arXiv 2506.19767, by the re-implementation in the HPT authors' code.
    """
    policy, entropies, advantages = checks.floats(
        policy_token_logps=policy_token_logps,
        policy_token_entropies=policy_token_entropies,
        token_advantages=token_advantages,
    )
    checks.boolean(correct=correct)
    checks.leading_shape(correct=correct, mask=mask)
    checks.number("positive_weight", positive_weight, 0.0, closed="left")
    checks.number("gamma", gamma, 0.0)
    shown = _demonstrated(demonstration_mask, mask)
    own = mask & ~shown
    verdicts = jnp.where(correct[..., None], positive_weight * jnp.exp(_row_entropies(entropies, own)), -1.0)
    on_rollouts = -verdicts * keep(policy, own)
    on_demonstrations = -_stop(keep(advantages, shown)) * _shaped(policy, shown, gamma)
    return keep(jnp.where(shown, on_demonstrations, on_rollouts), mask)
