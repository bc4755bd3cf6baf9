"""Losses on the differences between responses to one prompt: whatever a prompt adds to all its rewards drops out.

A row of the batch is a prompt with its K responses (K = 2 in most papers). `labels` holds their rewards, in any order
unless a function says otherwise; `responses_mask` tells which responses there are, and nothing else of the others is
looked at. Log-probs are sums over the tokens of a response, in nats. A list with fewer than two responses has no pair,
and loss 0. The mean over pairs is one over the unordered pairs of a list.
"""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep, log_softmax, masked_sum

Array = jax.Array
_stop = jax.lax.stop_gradient
# exp of a sequence's log-ratio leaves float32 long before real log-ratios do; e^20 is as good as infinite for a clip.
_LARGEST = 20.0


def _present(responses_mask: Array, **logps: Array) -> Array:
    """Which responses there are, `[..., K]`."""
    checks.boolean(responses_mask=responses_mask)
    checks.leading_shape(**logps, responses_mask=responses_mask)
    return jnp.any(responses_mask, axis=-1)


def _pairs(valid: Array) -> Array:
    """Unordered pairs i < j of responses that are both there, bool `[..., K, K]`."""
    upper = jnp.triu(jnp.ones((valid.shape[-1],) * 2, bool), 1)
    return valid[..., :, None] & valid[..., None, :] & upper


def _differences(values: Array) -> Array:
    """x_i - x_j for all i, j: `[..., K]` to `[..., K, K]`."""
    return values[..., :, None] - values[..., None, :]


def _sum_over_pairs(values: Array, valid: Array) -> Array:
    return jnp.sum(jnp.where(_pairs(valid), values, 0.0), axis=(-2, -1))


def _mean_over_pairs(values: Array, valid: Array) -> Array:
    return _sum_over_pairs(values, valid) / jnp.maximum(jnp.sum(_pairs(valid), axis=(-2, -1)), 1)


def _p3o_parts(policy, behaviour, reference, labels, responses_mask, eps, beta) -> tuple[Array, Array, Array]:
    """Entry checks, then KL-shaped reward differences (fixed), log w, and which responses there are."""
    policy, behaviour, reference, labels = checks.floats(
        policy_responses_logps=policy,
        behaviour_responses_logps=behaviour,
        reference_responses_logps=reference,
        labels=labels,
    )
    checks.number("eps", eps, 0.0, closed="left")
    checks.number("beta", beta, 0.0, closed="left")
    valid = _present(responses_mask, policy_responses_logps=policy)
    policy, behaviour, reference, labels = (keep(x, valid) for x in (policy, behaviour, reference, labels))
    rewards = _stop(labels - beta * (behaviour - reference))
    return _differences(rewards), policy - _stop(behaviour), valid


def p3o_separate(
    policy_responses_logps: Array,
    behaviour_responses_logps: Array,
    reference_responses_logps: Array,
    labels: Array,
    responses_mask: Array,
    *,
    eps: float = 0.2,
    beta: float = 0.1,
) -> Array:
    """Pairwise PPO, ratios clipped one by one: -1/2 sum over j in {1, 2} of min(B_j w_j, B_j clip(w_j, 1 - e, 1 + e)).

    With R = labels - beta * (log pi_old - log ref) and w = pi / pi_old of whole responses, B_1 = (R_1 - R_2) w_2 and
    B_2 = (R_2 - R_1) w_1, both held fixed. At pi = pi_old the gradient is -(R_1 - R_2) / 2 on log pi(y_1) and its
    negative on log pi(y_2): each response is the other's baseline, which is RLOO with two samples. Without the clip it
    is the importance-weighted pairwise gradient, (R_1 - R_2) w_1 w_2 / 2. More than two responses: mean over pairs.

    Args:
      policy_responses_logps: log pi(y_i | x), summed over completion tokens. Trained.
      behaviour_responses_logps: the same under the policy that sampled them. Held fixed.
      reference_responses_logps: the same under the frozen reference, for the KL in the reward. Held fixed.
      labels: reward of each response, in any order. Held fixed.
      responses_mask: bool, True on the tokens of each response; a response without a token is not there.
      eps: half-width of the clip, in [0, inf).
      beta: weight of the KL in the reward, in [0, inf).

    Shapes: log-probs and labels `[..., K]`, mask `[..., K, T]`; result float32 `[...]`, in units of reward. Log-ratios
    are clipped to 20 in size before exp, and have no gradient beyond.

    Raises:
      AssertionError: shapes do not agree, log-probs or labels not floating, mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Wu et al., 2023, arXiv 2310.00212 (V1). No official code; the clipped form is reconstructed from its gradient
    at pi_old and without the clip, both of which it has exactly.
    """
    gaps, log_ratios, valid = _p3o_parts(
        policy_responses_logps, behaviour_responses_logps, reference_responses_logps, labels, responses_mask, eps, beta
    )
    ratios = jnp.exp(jnp.clip(log_ratios, -_LARGEST, _LARGEST))
    # Row i of the table: B_i against partner j, on w_i. Its mean over pairs has both orders of a pair, hence the half.
    b = _stop(gaps * ratios[..., None, :])
    clipped = jnp.clip(ratios, 1 - eps, 1 + eps)
    gains = jnp.minimum(b * ratios[..., :, None], b * clipped[..., :, None])
    return -0.5 * _mean_over_pairs(gains + jnp.swapaxes(gains, -1, -2), valid)


def p3o_joint(
    policy_responses_logps: Array,
    behaviour_responses_logps: Array,
    reference_responses_logps: Array,
    labels: Array,
    responses_mask: Array,
    *,
    eps: float = 0.2,
    eps_difference: float = 0.2,
    beta: float = 0.1,
) -> Array:
    """Pairwise PPO, clipped jointly: -min(D o u, D clip(o, 1 - e, 1 + e) clip(u, -e2, e2)).

    D = R_1 - R_2 with R as in `p3o_separate`, o = w_1 w_2 held fixed, u = (log w_1 - log w_2) / 2: the weight of the
    pair and the direction in which it moves are clipped each on its own. Same gradient as `p3o_separate` at pi_old and
    without the clips. More than two responses: mean over pairs.

    Args:
      policy_responses_logps: log pi(y_i | x), summed over completion tokens. Trained.
      behaviour_responses_logps: the same under the policy that sampled them. Held fixed.
      reference_responses_logps: the same under the frozen reference, for the KL in the reward. Held fixed.
      labels: reward of each response, in any order. Held fixed.
      responses_mask: bool, True on the tokens of each response; a response without a token is not there.
      eps: half-width of the clip of the pair's weight, in [0, inf).
      eps_difference: half-width e2 of the clip of u, in nats, in [0, inf).
      beta: weight of the KL in the reward, in [0, inf).

    Shapes: log-probs and labels `[..., K]`, mask `[..., K, T]`; result float32 `[...]`, in units of reward.

    Raises:
      AssertionError: shapes do not agree, log-probs or labels not floating, mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Wu et al., 2023, arXiv 2310.00212 (V2). No official code; reconstructed as `p3o_separate` is.
    """
    gaps, log_ratios, valid = _p3o_parts(
        policy_responses_logps, behaviour_responses_logps, reference_responses_logps, labels, responses_mask, eps, beta
    )
    checks.number("eps_difference", eps_difference, 0.0, closed="left")
    fixed = _stop(log_ratios)
    weights = jnp.exp(jnp.clip(fixed[..., :, None] + fixed[..., None, :], -_LARGEST, _LARGEST))
    moves = _differences(log_ratios) / 2
    clipped = gaps * jnp.clip(weights, 1 - eps, 1 + eps) * jnp.clip(moves, -eps_difference, eps_difference)
    return -_mean_over_pairs(jnp.minimum(gaps * weights * moves, clipped), valid)


def _regularised(policy, reference, labels, responses_mask, beta) -> tuple[Array, Array, Array]:
    """Entry checks, then R_b = labels - beta * log-ratio, log pi (0 where there is no response) and which there are."""
    policy, reference, labels = checks.floats(
        policy_responses_logps=policy, reference_responses_logps=reference, labels=labels
    )
    checks.number("beta", beta, 0.0)
    valid = _present(responses_mask, policy_responses_logps=policy)
    policy, reference, labels = keep(policy, valid), _stop(keep(reference, valid)), _stop(keep(labels, valid))
    return labels - beta * (policy - reference), policy, valid


def _others(valid: Array) -> Array:
    """k - 1, the number of partners each response has (at least 1)."""
    return jnp.maximum(jnp.sum(valid, axis=-1) - 1, 1)


def copg(
    policy_responses_logps: Array,
    reference_responses_logps: Array,
    labels: Array,
    responses_mask: Array,
    *,
    beta: float = 0.1,
) -> Array:
    """Contrastive policy gradient: -(R_b(y_1) - R_b(y_2)) * (log pi(y_1) - log pi(y_2)), the first factor held fixed.

    R_b = labels - beta * (log pi - log ref). The responses may come from any sampler: pi* ~ ref exp(R / beta) makes
    R_b constant, so it is a stationary point of every single pair, without importance weights. Off-policy the right
    baseline is the sampler's mean of R_b, and here the partner is that baseline. k responses: the sum over pairs
    divided by k - 1. The value means nothing (only its gradient does); `copg_squared` is the loss with a value.

    Args:
      policy_responses_logps: log pi(y_i | x), summed over completion tokens. Trained.
      reference_responses_logps: the same under the reference. Held fixed.
      labels: reward of each response, in any order. Held fixed.
      responses_mask: bool, True on the tokens of each response; a response without a token is not there.
      beta: in (0, inf); 0.03 to 0.1 for language models.

    Shapes: log-probs and labels `[..., K]`, mask `[..., K, T]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes do not agree, log-probs or labels not floating, mask not bool.
      ValueError: static beta out of range.

    Paper: Flet-Berliac et al., 2024, arXiv 2406.19185. No official code.
    """
    rewards, policy, valid = _regularised(
        policy_responses_logps, reference_responses_logps, labels, responses_mask, beta
    )
    losses = -_stop(_differences(rewards)) * _differences(policy)
    return _sum_over_pairs(losses, valid) / _others(valid)


def copg_squared(
    policy_responses_logps: Array,
    reference_responses_logps: Array,
    labels: Array,
    responses_mask: Array,
    *,
    beta: float = 0.1,
) -> Array:
    """Contrastive policy gradient as regression: sum over pairs of (R_b(y_i) - R_b(y_j))^2, divided by k - 1.

    Its gradient is 2 beta times that of `copg`, and it is 0 where every pair is at its optimum. With two responses and
    a reward of 1/2 more for the first it is beta^2 times IPO with tau = beta.

    Args:
      policy_responses_logps: log pi(y_i | x), summed over completion tokens. Trained.
      reference_responses_logps: the same under the reference. Held fixed.
      labels: reward of each response, in any order. Held fixed.
      responses_mask: bool, True on the tokens of each response; a response without a token is not there.
      beta: in (0, inf).

    Shapes: log-probs and labels `[..., K]`, mask `[..., K, T]`; result float32 `[...]`, in squared units of reward.

    Raises:
      AssertionError: shapes do not agree, log-probs or labels not floating, mask not bool.
      ValueError: static beta out of range.

    Paper: Flet-Berliac et al., 2024, arXiv 2406.19185; for k responses as the Command A report (Cohere, 2025, arXiv
    2504.00698) states it.
    """
    rewards, _, valid = _regularised(policy_responses_logps, reference_responses_logps, labels, responses_mask, beta)
    return _sum_over_pairs(jnp.square(_differences(rewards)), valid) / _others(valid)


def rdp(
    policy_responses_logps: Array,
    reference_responses_logps: Array,
    labels: Array,
    responses_mask: Array,
    *,
    beta: float = 10.0,
) -> Array:
    """Reward difference prediction: ((a_1 - a_2) - (R_1 - R_2) / beta)^2 with a = log pi - log ref, mean over pairs.

    The log-ratio of two trajectories is regressed on their rewards: zero exactly if pi ~ ref exp(R / beta) on them. It
    is `copg_squared` over beta^2 for two responses. `prdp` is the form to train with when pi moves far between
    refreshes of the samples.

    Args:
      policy_responses_logps: log pi(y_i | x), summed over completion tokens (or denoising steps). Trained.
      reference_responses_logps: the same under the reference. Held fixed.
      labels: reward of each response, in any order. Held fixed.
      responses_mask: bool, True on the tokens of each response; a response without a token is not there.
      beta: in (0, inf); 10 on the scale of the paper's HPSv2 rewards.

    Shapes: log-probs and labels `[..., K]`, mask `[..., K, T]`; result float32 `[...]`, in squared nats.

    Raises:
      AssertionError: shapes do not agree, log-probs or labels not floating, mask not bool.
      ValueError: static beta out of range.

    Paper: Deng et al., 2024, arXiv 2402.08714. No official code.
    """
    policy, reference, labels = checks.floats(
        policy_responses_logps=policy_responses_logps,
        reference_responses_logps=reference_responses_logps,
        labels=labels,
    )
    checks.number("beta", beta, 0.0)
    valid = _present(responses_mask, policy_responses_logps=policy)
    log_ratios = keep(policy, valid) - _stop(keep(reference, valid))
    targets = _stop(_differences(keep(labels, valid))) / beta
    return _mean_over_pairs(jnp.square(_differences(log_ratios) - targets), valid)


def prdp(
    policy_responses_token_logps: Array,
    behaviour_responses_token_logps: Array,
    reference_responses_token_logps: Array,
    labels: Array,
    responses_mask: Array,
    *,
    beta: float = 10.0,
    eps: float = 1e-2,
) -> Array:
    """Proximal reward difference prediction: the larger of `rdp` with the log-ratios as they are and with them clipped.

    The log-ratio to the reference of each step is clipped to within eps of what it was under the snapshot that sampled
    the trajectories; where the clipped error is the larger, a clipped step has no gradient. Never below `rdp`, equal to
    it at the snapshot. The clip is per step, so what a whole trajectory may move grows with its length.

    Args:
      policy_responses_token_logps: log-prob of each token (or denoising step) under the policy. Trained.
      behaviour_responses_token_logps: the same under the snapshot. Held fixed.
      reference_responses_token_logps: the same under the reference. Held fixed.
      labels: reward of each response, in any order. Held fixed.
      responses_mask: bool, True on the tokens of each response; a response without a token is not there.
      beta: in (0, inf).
      eps: half-width of the clip per step, in nats, in [0, inf). The paper's value was not recovered; the default is a
        guess to be tuned (1e-4 to 1e-2).

    Shapes: log-probs and mask `[..., K, T]`, labels `[..., K]`; result float32 `[...]`, in squared nats.

    Raises:
      AssertionError: shapes do not agree, log-probs or labels not floating, mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Deng et al., 2024, arXiv 2402.08714. No official code.
    """
    policy, behaviour, reference = checks.floats(
        policy_responses_token_logps=policy_responses_token_logps,
        behaviour_responses_token_logps=behaviour_responses_token_logps,
        reference_responses_token_logps=reference_responses_token_logps,
    )
    (labels,) = checks.floats(labels=labels)
    checks.number("beta", beta, 0.0)
    checks.number("eps", eps, 0.0, closed="left")
    valid = _present(responses_mask, labels=labels)
    checks.same_shape(policy_responses_token_logps=policy, responses_mask=responses_mask)
    policy, behaviour, reference = (keep(x, responses_mask) for x in (policy, behaviour, reference))
    log_ratios, old = policy - _stop(reference), _stop(behaviour - reference)
    clipped = jnp.clip(log_ratios, old - eps, old + eps)
    targets = _stop(_differences(keep(labels, valid))) / beta
    errors, clipped_errors = (
        jnp.square(_differences(masked_sum(x, responses_mask)) - targets) for x in (log_ratios, clipped)
    )
    return _mean_over_pairs(jnp.maximum(errors, clipped_errors), valid)


def pro(policy_responses_logps: Array, labels: Array, responses_mask: Array, *, sft_weight: float = 0.05) -> Array:
    """Preference ranking: each response against all that rank behind it, and the likelihood of the best.

        s_k = log pi(y_k | x) / |y_k|,   T_j = labels_k - labels_j for j behind k,   T_k = the largest of them
        loss = sum over k < K of log(exp(T_k s_k) + sum over j of exp(T_j s_j)) - T_k s_k - sft_weight (K - 1)^2 s_1

    The reward differences are inverse temperatures: they multiply the scores, and a large one saturates the softmax.
    With two responses the first term is -log s((labels_1 - labels_2)(s_1 - s_2)). No reference.

    Args:
      policy_responses_logps: log pi(y_i | x), summed over completion tokens, best response first. Trained.
      labels: reward of each response, falling along the list. Held fixed.
      responses_mask: bool, True on the tokens of each response, whose number is its length; a response without a token
        is not there, and K counts those that are.
      sft_weight: weight of the best response's mean negative log-prob, in [0, inf).

    Shapes: log-probs and labels `[..., K]`, mask `[..., K, T]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, log-probs or labels not floating, mask not bool.
      ValueError: static sft_weight out of range.

    Paper: Song et al., 2023, arXiv 2306.17492. The paper divides by T = 1 / (labels_k - labels_j), which is the same;
    its list-wise baseline code in A-LoL agrees.
    """
    policy, labels = checks.floats(policy_responses_logps=policy_responses_logps, labels=labels)
    checks.number("sft_weight", sft_weight, 0.0, closed="left")
    valid = _present(responses_mask, policy_responses_logps=policy)
    lengths = jnp.maximum(jnp.sum(responses_mask, axis=-1), 1)
    scores, labels = keep(policy, valid) / lengths, _stop(keep(labels, valid))
    gaps = _differences(labels)
    behind = _pairs(valid)
    has_any = jnp.any(behind, axis=-1)
    largest = jnp.where(has_any, jnp.max(jnp.where(behind, gaps, -jnp.inf), axis=-1), 0.0)
    own = largest * scores
    size = labels.shape[-1]
    # Place K of each row is the response itself; -log_softmax there is the loss.
    table = jnp.concatenate([gaps * scores[..., None, :], own[..., :, None]], axis=-1)
    counts = jnp.concatenate([behind, jnp.ones_like(behind[..., :1])], axis=-1)
    ranking = jnp.sum(jnp.where(has_any, -log_softmax(table, counts)[..., size], 0.0), axis=-1)
    first = jnp.argmax(valid, axis=-1)
    best = jnp.take_along_axis(scores, first[..., None], axis=-1)[..., 0]
    pairs_of_best = jnp.maximum(jnp.sum(valid, axis=-1) - 1, 0)
    return ranking - sft_weight * jnp.square(pairs_of_best) * best
