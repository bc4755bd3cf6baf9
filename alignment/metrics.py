"""What any run can log: pure functions of the same named arrays as the losses, per example or per token, unreduced.

No gradient passes through any of them. Token metrics are 0 behind the mask and are meant for `token_mean`; metrics per
example for `example_mean`. `beta` should be that of the loss, or rewards of different runs do not compare. Metrics of
one sequence (`token_nll`, `token_entropy`, `kl_to_reference`, `sequence_forward_kls`) are bound to a side by the
config.
"""

from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.analysis.rankings import idealized_log_ratio
from alignment.losses import links
from alignment.losses.masking import keep, masked_sum
from alignment.losses.preference import implicit_reward

Array = jax.Array
_stop = jax.lax.stop_gradient

__all__ = [
    "approx_kl",
    "chosen_log_ratio",
    "chosen_logp",
    "chosen_reward",
    "clip_fraction",
    "dpo_flip_loss",
    "dpo_flipped",
    "draft_acceptance",
    "explained_variance",
    "first_token_ndcg",
    "forward_kl_to_teacher",
    "general_preference_accuracy",
    "idealized_ranking_accuracy",
    "kl_to_reference",
    "kl_to_teacher",
    "length_normalized_idealized_ranking_accuracy",
    "length_normalized_ranking_accuracy",
    "list_ranking_accuracy",
    "pair_mass_log_ratio",
    "ranking_accuracy",
    "ranking_accuracy_with_ties",
    "rejected_log_ratio",
    "rejected_logp",
    "rejected_reward",
    "reward_accuracy",
    "reward_heads_accuracy",
    "reward_margin",
    "reward_model_accuracy",
    "sequence_forward_kls",
    "sequence_kl",
    "sequence_kl_k3",
    "step_accuracy",
    "target_kl",
    "target_kl_gain",
    "target_total_variation",
    "token_entropy",
    "token_nll",
    "unseen_mass",
]


def chosen_reward(policy_chosen_logps: Array, reference_chosen_logps: Array, *, beta: float = 0.1) -> Array:
    """Implicit reward of the chosen completion, beta * log(pi / ref). Shapes: `[B]` each; result float32 `[B]`."""
    return implicit_reward(policy_chosen_logps, reference_chosen_logps, beta=beta)


def rejected_reward(policy_rejected_logps: Array, reference_rejected_logps: Array, *, beta: float = 0.1) -> Array:
    """Implicit reward of the rejected completion, beta * log(pi / ref). Shapes: `[B]` each; result float32 `[B]`."""
    return implicit_reward(policy_rejected_logps, reference_rejected_logps, beta=beta)


def reward_margin(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.1,
) -> Array:
    """Implicit reward of the chosen completion minus that of the rejected one. Shapes: `[B]` each; result f32 `[B]`."""
    checks.same_shape(policy_chosen_logps=policy_chosen_logps, policy_rejected_logps=policy_rejected_logps)
    chosen = chosen_reward(policy_chosen_logps, reference_chosen_logps, beta=beta)
    return chosen - rejected_reward(policy_rejected_logps, reference_rejected_logps, beta=beta)


def reward_accuracy(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
) -> Array:
    """1 where the implicit reward ranks the pair as labelled; a tie is 0, so policy == reference scores 0, not 1/2.

    Shapes: `[B]` each; result float32 `[B]`.
    """
    margins = reward_margin(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    return _indicator(margins > 0, margins)


def reward_model_accuracy(chosen_rewards: Array, rejected_rewards: Array) -> Array:
    """1 where the reward head ranks the pair as labelled; a tie is 0. Shapes: `[B]` each; result float32 `[B]`."""
    chosen_rewards, rejected_rewards = checks.floats(chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards)
    return _indicator(chosen_rewards > rejected_rewards, chosen_rewards - rejected_rewards)


def reward_heads_accuracy(chosen_head_rewards: Array, rejected_head_rewards: Array) -> Array:
    """Share of the heads that rank the pair as labelled; a tie is 0. Shapes: `[B, n]` each; result float32 `[B]`."""
    chosen, rejected = checks.floats(
        chosen_head_rewards=chosen_head_rewards, rejected_head_rewards=rejected_head_rewards
    )
    return jnp.mean(_indicator(chosen > rejected, chosen - rejected), axis=-1)


def general_preference_accuracy(chosen_head_rewards: Array, rejected_head_rewards: Array, *, blocks: int = 1) -> Array:
    """1 where the skew-symmetric score of the first `blocks` pairs of heads ranks the pair as labelled, equal weights.

    Shapes: `[B, n]` each, n >= 2 * blocks; result float32 `[B]`.
    """
    chosen, rejected = checks.floats(
        chosen_head_rewards=chosen_head_rewards, rejected_head_rewards=rejected_head_rewards
    )
    checks.positive_integer("blocks", blocks)
    if chosen.shape[-1] < 2 * blocks:
        raise ValueError(f"blocks must be at most half the number of heads, {chosen.shape[-1]}, got {blocks}")
    a, b, c, d = (x[..., i : 2 * blocks : 2] for x in (chosen, rejected) for i in (0, 1))
    scores = jnp.sum(a * d - b * c, axis=-1)
    return _indicator(scores > 0, scores)


def step_accuracy(token_head_scores: Array, step_labels: Array, step_mask: Array) -> Array:
    """Share of a solution's steps whose likelier class is the label (1 from 1/2 on); a tie is 0, no steps are 0.

    Shapes: `[B, T, 2]`, `[B, T]`, `[B, T]`; result float32 `[B]`.
    """
    (scores,) = checks.floats(token_head_scores=token_head_scores)
    (labels,) = checks.floats(step_labels=step_labels)
    checks.boolean(step_mask=step_mask)
    checks.same_shape(step_labels=labels, step_mask=step_mask)
    checks.leading_shape(step_labels=labels, token_head_scores=scores)
    odds = jnp.where(step_mask, scores[..., 1] - scores[..., 0], 0.0)
    right = _indicator(jnp.where(labels >= 0.5, odds > 0, odds < 0), odds)
    return jnp.sum(jnp.where(step_mask, right, 0.0), axis=-1) / jnp.maximum(step_mask.sum(axis=-1), 1)


def _indicator(condition: Array, difference: Array) -> Array:
    # A NaN compares as False and would pass for an honest miss.
    return _stop(jnp.where(jnp.isnan(difference), difference, condition.astype(difference.dtype)))


# --- rankings by likelihood (Chen et al., 2024, arXiv 2405.19534); not what DPO's reward accuracy measures ------------


def ranking_accuracy(policy_chosen_logps: Array, policy_rejected_logps: Array) -> Array:
    """1 where the policy itself, not its ratio to the reference, finds the chosen completion at least as likely.

    Summed log-probs, so length counts. A tie is 1. Shapes: `[B]` each; result float32 `[B]`.
    """
    chosen, rejected = checks.floats(
        policy_chosen_logps=policy_chosen_logps, policy_rejected_logps=policy_rejected_logps
    )
    return _indicator(chosen >= rejected, chosen - rejected)


def length_normalized_ranking_accuracy(
    policy_chosen_logps: Array, policy_rejected_logps: Array, chosen_lengths: Array, rejected_lengths: Array
) -> Array:
    """`ranking_accuracy` by log-prob per token. Shapes: `[B]` each, lengths integer; result float32 `[B]`."""
    return ranking_accuracy(
        _per_token(policy_chosen_logps, chosen_lengths), _per_token(policy_rejected_logps, rejected_lengths)
    )


def ranking_accuracy_with_ties(
    policy_chosen_logps: Array, policy_rejected_logps: Array, preference_proportions: Array, *, eps: float = 0.01
) -> Array:
    """1 where the policy orders the pair as the raters do; where they split evenly, where it sees no difference either.

    Above a proportion of 1/2 the chosen completion must be the likelier one, below it the rejected one; at exactly 1/2
    the two *probabilities* must differ by less than eps, which long completions always do.
    Shapes: `[B]` each; result float32 `[B]`.
    """
    chosen, rejected, proportions = checks.floats(
        policy_chosen_logps=policy_chosen_logps,
        policy_rejected_logps=policy_rejected_logps,
        preference_proportions=preference_proportions,
    )
    checks.number("eps", eps, 0.0)
    tied = jnp.abs(jnp.exp(chosen) - jnp.exp(rejected)) < eps
    ordered = jnp.where(proportions > 0.5, chosen > rejected, chosen < rejected)
    return _indicator(jnp.where(proportions == 0.5, tied, ordered), chosen - rejected + proportions)


def list_ranking_accuracy(policy_responses_logps: Array, labels: Array, responses_mask: Array) -> Array:
    """1 where the policy's likelihoods put a whole list in the order of its labels (exact match), else 0.

    Responses of equal label may stand in any order, and equal likelihoods break no order: with two responses this is
    `ranking_accuracy`. Responses with no token are not looked at.
    Shapes: log-probs and labels `[B, K]`, mask `[B, K, T]`; result float32 `[B]`.
    """
    logps, labels = checks.floats(policy_responses_logps=policy_responses_logps, labels=labels)
    checks.boolean(responses_mask=responses_mask)
    checks.leading_shape(policy_responses_logps=logps, responses_mask=responses_mask)
    valid = jnp.any(responses_mask, axis=-1)
    logps, labels = keep(logps, valid), keep(labels, valid)
    better = (labels[:, :, None] > labels[:, None, :]) & valid[:, :, None] & valid[:, None, :]
    wrong = better & (logps[:, :, None] < logps[:, None, :])
    return _indicator(~jnp.any(wrong, axis=(1, 2)), jnp.sum(logps + labels, axis=1))


def first_token_ndcg(policy_responses_token_logps: Array, labels: Array, responses_mask: Array) -> Array:
    """NDCG@10 of the order by the first token: sum of (2^label - 1) / log2(1 + rank) over that of the right order.

    Shapes: log-probs and mask `[B, K, T]`, labels `[B, K]`, at least 0; result float32 `[B]`, 0 for a list without a
    response of a label above 0. Equal scores keep the order of the list.
    """
    (logps,), (labels,) = checks.floats(logps=policy_responses_token_logps), checks.floats(labels=labels)
    first = keep(logps, responses_mask)[..., 0]
    checks.same_shape(labels=labels, first_tokens=first)
    there = jnp.any(responses_mask, axis=-1)
    gains = jnp.exp2(keep(labels, there)) - 1
    discounts = 1 / jnp.log2(2 + jnp.arange(min(gains.shape[-1], 10)))

    def total(keys: Array) -> Array:
        order = jnp.argsort(-jnp.where(there, keys, -jnp.inf), axis=-1, stable=True)[..., : len(discounts)]
        return jnp.sum(jnp.take_along_axis(gains, order, axis=-1) * discounts, axis=-1)

    best = total(labels)
    return _stop(jnp.where(best > 0, total(first) / jnp.where(best > 0, best, 1.0), 0.0))


def idealized_ranking_accuracy(
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    preference_proportions: Array,
    *,
    beta: float = 0.1,
    floor: float = 1e-3,
) -> Array:
    """1 where the exact optimum of DPO would find the chosen completion likelier; a tie is 0.

    Its mean minus that of `ranking_accuracy` is the alignment gap. `chosen` should be what most raters prefer: a pair
    with a proportion below 1/2 counts as right only if the reference outweighs the raters. `floor` stands in for the
    minority of a unanimous pair. Shapes: `[B]` each; result float32 `[B]`.
    """
    ratio = idealized_log_ratio(
        reference_chosen_logps, reference_rejected_logps, preference_proportions, beta=beta, floor=floor
    )
    return _indicator(ratio > 0, ratio)


def length_normalized_idealized_ranking_accuracy(
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    preference_proportions: Array,
    chosen_lengths: Array,
    rejected_lengths: Array,
    *,
    beta: float = 0.1,
    floor: float = 1e-3,
) -> Array:
    """`idealized_ranking_accuracy` with the reference's log-probs per token. Shapes: `[B]` each; result f32 `[B]`."""
    return idealized_ranking_accuracy(
        _per_token(reference_chosen_logps, chosen_lengths),
        _per_token(reference_rejected_logps, rejected_lengths),
        preference_proportions,
        beta=beta,
        floor=floor,
    )


def _per_token(logps: Array, lengths: Array) -> Array:
    (logps,) = checks.floats(logps=logps)
    checks.integers(lengths=lengths)
    checks.same_shape(logps=logps, lengths=lengths)
    return logps / jnp.maximum(lengths, 1)


def dpo_flip_loss(reference_chosen_logps: Array, reference_rejected_logps: Array, *, beta: float = 0.1) -> Array:
    """The DPO loss at which a pair flips into the right order: -log s(beta * c), c = log ref(y_l|x) - log ref(y_w|x).

    The policy ranks the pair rightly exactly where its `dpo` loss with this beta is at most this. It depends on the
    reference alone: log 2 at c = 0, near exp(-beta * c) for a pair that the reference has badly wrong, and so a measure
    of difficulty. Summed log-probs: in real data the lengths of the two sides dominate c.
    Shapes: `[B]` each; result float32 `[B]`, in nats.
    """
    chosen, rejected = checks.floats(
        reference_chosen_logps=reference_chosen_logps, reference_rejected_logps=reference_rejected_logps
    )
    checks.number("beta", beta, 0.0)
    return _stop(links.logistic(beta * (rejected - chosen)))


def dpo_flipped(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.1,
) -> Array:
    """1 where the DPO loss has come down to `dpo_flip_loss`: a theorem says that this is `ranking_accuracy`.

    Shapes: `[B]` each; result float32 `[B]`.
    """
    chosen, rejected = checks.floats(
        reference_chosen_logps=reference_chosen_logps, reference_rejected_logps=reference_rejected_logps
    )
    margins = reward_margin(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=beta
    )
    # Both losses are the same falling function of their margins, and beyond margins of about 100 both round to 0: the
    # margins are compared in their place.
    flip = beta * (rejected - chosen)
    return _indicator(margins >= flip, margins - flip)


# --- what a preference loss does to both sides (the 3D properties: Yan et al., 2024, arXiv 2406.07327) ----------------


def chosen_log_ratio(policy_chosen_logps: Array, reference_chosen_logps: Array) -> Array:
    """Change of the chosen completion's log-prob since the reference, in nats. Shapes: `[B]` each; result f32 `[B]`.

    Below 0 the loss has made worse what it was to teach (degradation).
    """
    return chosen_reward(policy_chosen_logps, reference_chosen_logps, beta=1.0)


def rejected_log_ratio(policy_rejected_logps: Array, reference_rejected_logps: Array) -> Array:
    """Change of the rejected completion's log-prob since the reference, in nats. Shapes: `[B]` each; result f32 `[B]`.

    It falls steeply under DPO (drastic drop), whatever the chosen one does.
    """
    return rejected_reward(policy_rejected_logps, reference_rejected_logps, beta=1.0)


def unseen_mass(policy_chosen_logps: Array, policy_rejected_logps: Array) -> Array:
    """Probability of all completions that are in neither side of the pair, 1 - p_w - p_l (dispersion).

    Tells something for short completions; long ones have a mass of nearly nothing, and there `pair_mass_log_ratio`
    still shows the change. Shapes: `[B]` each; result float32 `[B]`, in [0, 1].
    """
    chosen, rejected = checks.floats(
        policy_chosen_logps=policy_chosen_logps, policy_rejected_logps=policy_rejected_logps
    )
    mass = jnp.exp(chosen) + jnp.exp(rejected)
    return _stop(jnp.maximum(1 - mass, 0.0))  # a NaN stays one; two sides of rounded log-probs may exceed 1 by a hair


def pair_mass_log_ratio(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
) -> Array:
    """log((p_w + p_l) / (q_w + q_l)): below 0, probability has gone from the pair to completions that no one showed.

    The relative form of `unseen_mass`'s change, defined at any length. Shapes: `[B]` each; result float32 `[B]`.
    """
    chosen, rejected, reference_chosen, reference_rejected = checks.floats(
        policy_chosen_logps=policy_chosen_logps,
        policy_rejected_logps=policy_rejected_logps,
        reference_chosen_logps=reference_chosen_logps,
        reference_rejected_logps=reference_rejected_logps,
    )
    return _stop(jnp.logaddexp(chosen, rejected) - jnp.logaddexp(reference_chosen, reference_rejected))


# --- log-probs and per-token quantities ------------------------------------------------------------------------------


def chosen_logp(policy_chosen_logps: Array) -> Array:
    """Summed log-prob of the chosen completion, in nats. Shapes: `[B]`; result float32 `[B]`."""
    return _stop(*checks.floats(policy_chosen_logps=policy_chosen_logps))


def rejected_logp(policy_rejected_logps: Array) -> Array:
    """Summed log-prob of the rejected completion, in nats. Shapes: `[B]`; result float32 `[B]`."""
    return _stop(*checks.floats(policy_rejected_logps=policy_rejected_logps))


def token_nll(policy_token_logps: Array, mask: Array) -> Array:
    """Negative log-prob of each token, in nats. Shapes: `[B, T]` each; result float32 `[B, T]`."""
    (policy_token_logps,) = checks.floats(policy_token_logps=policy_token_logps)
    return _stop(-keep(policy_token_logps, mask))


def token_entropy(policy_token_entropies: Array, mask: Array) -> Array:
    """Entropy of the policy at each position, in nats. Shapes: `[B, T]` each; result float32 `[B, T]`."""
    (policy_token_entropies,) = checks.floats(policy_token_entropies=policy_token_entropies)
    return _stop(keep(policy_token_entropies, mask))


def kl_to_reference(policy_token_kls: Array, mask: Array) -> Array:
    """KL(policy || reference) over the vocabulary at each position, in nats.

    Shapes: `[B, T]` each; result float32 `[B, T]`.
    """
    (policy_token_kls,) = checks.floats(policy_token_kls=policy_token_kls)
    return _stop(keep(policy_token_kls, mask))


def sequence_forward_kls(policy_token_forward_kls: Array, mask: Array) -> Array:
    """Sequential KL(reference || policy), summed over the completion (SeqKL of TDPO), in nats.

    Shapes: `[B, T]` each; result float32 `[B]`.
    """
    (policy_token_forward_kls,) = checks.floats(policy_token_forward_kls=policy_token_forward_kls)
    return _stop(masked_sum(policy_token_forward_kls, mask))


def sequence_kl(policy_token_logps: Array, reference_token_logps: Array, mask: Array) -> Array:
    """log pi - log ref of each completion, of which the mean over the policy's own samples is KL(policy || reference).

    Shapes: `[B, T]` each; result float32 `[B]`, in nats per sequence; may be negative.
    """
    return masked_sum(_gaps(policy_token_logps, reference_token_logps, mask), mask)


def sequence_kl_k3(policy_token_logps: Array, reference_token_logps: Array, mask: Array) -> Array:
    """Sum over the tokens of exp(-d) - 1 + d, d = log pi - log ref: the same mean as `sequence_kl`, never negative.

    d is taken into [-20, 20]. Schulman, 2020, "Approximating KL divergence".
    Shapes: `[B, T]` each; result float32 `[B]`, in nats per sequence.
    """
    gaps = jnp.clip(_gaps(policy_token_logps, reference_token_logps, mask), -20.0, 20.0)
    return masked_sum(jnp.expm1(-gaps) + gaps, mask)


def _gaps(policy_token_logps: Array, reference_token_logps: Array, mask: Array) -> Array:
    policy, reference = checks.floats(
        policy_token_logps=policy_token_logps, reference_token_logps=reference_token_logps
    )
    return _stop(keep(policy, mask) - keep(reference, mask))


# --- against a teacher, or towards a target distribution --------------------------------------------------------------


def kl_to_teacher(teacher_token_kls: Array, mask: Array) -> Array:
    """KL(policy || teacher) over the vocabulary at each position, in nats.

    Shapes: `[B, T]` each; result float32 `[B, T]`.
    """
    return _stop(keep(*checks.floats(teacher_token_kls=teacher_token_kls), mask))


def forward_kl_to_teacher(teacher_token_forward_kls: Array, mask: Array) -> Array:
    """KL(teacher || policy) over the vocabulary at each position, in nats.

    Shapes: `[B, T]` each; result float32 `[B, T]`.
    """
    return _stop(keep(*checks.floats(teacher_token_forward_kls=teacher_token_forward_kls), mask))


def draft_acceptance(teacher_token_total_variations: Array, mask: Array) -> Array:
    """How likely the teacher accepts a token that the policy drafts: 1 - TV (Leviathan et al., 2022, arXiv 2211.17192).

    Shapes: `[B, T]` each; result float32 `[B, T]`.
    """
    (distances,) = checks.floats(teacher_token_total_variations=teacher_token_total_variations)
    return _stop(keep(1 - distances, mask))


def target_kl(policy_logps: Array, behaviour_logps: Array, target_logps: Array, log_partitions: Array) -> Array:
    """KL(target || policy), of which the mean over samples of any q is an estimate: P / (Z q) log(P / pi) - log Z.

    The log-weight is bounded at 20; a completion without probability under the target (below -5e29) gives -log Z.
    Shapes: `[B]` each; result float32 `[B]`, in nats.
    """
    gap, weight, log_z = _weighted(policy_logps, behaviour_logps, target_logps, log_partitions)
    return _stop(weight * gap - log_z)


def target_kl_gain(policy_logps: Array, behaviour_logps: Array, target_logps: Array, log_partitions: Array) -> Array:
    """KL(target || q) - KL(target || policy), of which the mean over samples of q is an estimate.

    P / (Z q) log(policy / q): above 0 where the policy has come nearer to the target than what sampled.
    Shapes: `[B]` each; result float32 `[B]`, in nats.
    """
    weight = _weighted(policy_logps, behaviour_logps, target_logps, log_partitions)[1]
    return _stop(weight * (policy_logps - behaviour_logps)).astype(weight.dtype)


def target_total_variation(
    policy_logps: Array, behaviour_logps: Array, target_logps: Array, log_partitions: Array
) -> Array:
    """Total variation between target and policy, of which the mean over samples of any q is an estimate.

    |pi / q - P / (Z q)| / 2. Shapes: `[B]` each; result float32 `[B]`.
    """
    weight = _weighted(policy_logps, behaviour_logps, target_logps, log_partitions)[1]
    ratio = jnp.exp(jnp.clip(policy_logps - behaviour_logps, -20.0, 20.0))
    return _stop(0.5 * jnp.abs(ratio - weight)).astype(weight.dtype)


def _weighted(policy_logps: Array, behaviour_logps: Array, target_logps: Array, log_partitions: Array):
    """log(P / pi), P / (Z q) and log Z; 0 for the first two where P is 0."""
    policy, behaviour, target, log_z = checks.floats(
        policy_logps=policy_logps, behaviour_logps=behaviour_logps, target_logps=target_logps,
        log_partitions=log_partitions,
    )  # fmt: skip
    there = target > -5e29
    target = jnp.where(there, target, 0.0)
    weight = jnp.where(there, jnp.exp(jnp.minimum(target - log_z - behaviour, 20.0)), 0.0)
    return jnp.where(there, target - policy, 0.0), weight, log_z


# --- online runs: how far an update has gone from what sampled, and what the critic knows ----------------------------


def _log_ratios(policy_token_logps: Array, behaviour_token_logps: Array, mask: Array) -> Array:
    policy, behaviour = checks.floats(
        policy_token_logps=policy_token_logps, behaviour_token_logps=behaviour_token_logps
    )
    return _stop(keep(policy, mask) - keep(behaviour, mask))


def clip_fraction(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    mask: Array,
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
) -> Array:
    """1 on tokens whose ratio r = pi / pi_old has left [1 - eps_low, 1 + eps_high], on whichever side.

    Clipped PPO drops the gradient of a part of these only: of those that the advantage would drive further out.
    Shapes: `[..., T]` each; result float32 `[..., T]`.
    """
    checks.number("eps_low", eps_low, 0.0, 1.0, closed="left")
    checks.number("eps_high", eps_high, 0.0, closed="left")
    log_ratios = _log_ratios(policy_token_logps, behaviour_token_logps, mask)
    return _indicator((log_ratios < jnp.log1p(-eps_low)) | (log_ratios > jnp.log1p(eps_high)), log_ratios)


def approx_kl(policy_token_logps: Array, behaviour_token_logps: Array, mask: Array) -> Array:
    """(r - 1) - log r on each token, r = pi / pi_old: estimates KL(pi_old || pi), never negative, 0 before any update.

    The log-ratio is taken into [-20, 20]. Schulman, 2020, "Approximating KL divergence" (k3).
    Shapes: `[..., T]` each; result float32 `[..., T]`, in nats.
    """
    log_ratios = jnp.clip(_log_ratios(policy_token_logps, behaviour_token_logps, mask), -20.0, 20.0)
    return jnp.expm1(log_ratios) - log_ratios


def explained_variance(
    behaviour_token_values: Array, token_returns: Array, mask: Array, valid: Array, *, axis_name: Any = None
) -> Array:
    """1 - Var(returns - values) / Var(returns) over the tokens of the batch, for `token_mean`: 1 for a perfect critic.

    0 for a critic that says the same everywhere, below 0 for one that misleads; 0 as well where all returns are equal.
    The values are those at the rollout: what the critic knew before it saw the returns. Token t is given
    1 - (e_t - mean e)^2 / Var(returns), e = returns - values, of which the mean over the tokens is the number meant.
    Shapes: `[N, T]`, valid bool `[N]`; result float32 `[N, T]`. `axis_name`: mapped axis that the batch is split over.
    """
    values, returns = checks.floats(behaviour_token_values=behaviour_token_values, token_returns=token_returns)
    checks.boolean(valid=valid)
    checks.same_shape(token_returns=returns, mask=mask)
    counted = mask & valid[..., None]

    def mean(x: Array) -> Array:
        total, count = jnp.sum(keep(x, counted)), jnp.sum(counted)
        if axis_name is not None:
            total, count = jax.lax.psum(total, axis_name), jax.lax.psum(count, axis_name)
        return total / jnp.maximum(count, 1)

    values, returns = keep(values, counted), keep(returns, counted)
    errors = returns - values
    variance = mean(jnp.square(returns - mean(returns)))
    varies = variance > 0
    share = 1 - jnp.square(errors - mean(errors)) / jnp.where(varies, variance, 1.0)
    return _stop(keep(jnp.where(varies | jnp.isnan(variance), share, 0.0), counted))
