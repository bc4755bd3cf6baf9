"""Rankings by likelihood (Chen et al., 2024, arXiv 2405.19534); not what DPO's reward accuracy measures."""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.analysis.rankings import idealized_log_ratio
from alignment.losses import links
from alignment.losses.masking import indicator, keep
from alignment.metrics.pairs import reward_margin

Array = jax.Array
_stop = jax.lax.stop_gradient


def ranking_accuracy(policy_chosen_logps: Array, policy_rejected_logps: Array) -> Array:
    """1 where the policy itself, not its ratio to the reference, finds the chosen completion at least as likely.

    Summed log-probs, so length counts. A tie is 1. Shapes: `[B]` each; result float32 `[B]`.
    """
    chosen, rejected = checks.floats(
        policy_chosen_logps=policy_chosen_logps, policy_rejected_logps=policy_rejected_logps
    )
    return indicator(chosen >= rejected, chosen - rejected)


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
    return indicator(jnp.where(proportions == 0.5, tied, ordered), chosen - rejected + proportions)


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
    return indicator(~jnp.any(wrong, axis=(1, 2)), jnp.sum(logps + labels, axis=1))


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
    return indicator(ratio > 0, ratio)


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
    return indicator(margins >= flip, margins - flip)
