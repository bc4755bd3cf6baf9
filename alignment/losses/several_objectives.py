"""Losses for several objectives: pairs with the rewards of other objectives, with an objective each, with harm labels;
and lists whose responses judges have looked at. Log-probs are sums over the tokens of a completion, in nats."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses import links, margins
from alignment.losses.masking import keep

Array = jax.Array
_stop = jax.lax.stop_gradient


def modpo(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    chosen_margin_rewards: Array,
    rejected_margin_rewards: Array,
    *,
    beta: float = 0.1,
    share: float = 0.5,
    margin_shares: Sequence[float] = (1.0,),
) -> Array:
    """Multi-objective DPO: -log s((beta h - w_-^T (r_-(y_w) - r_-(y_l))) / w), h the log-ratio of the pair.

    The pairs are of one objective, of weight w; the others enter by their rewards r_-, as a margin. At the optimum
    beta log(pi / ref) is w r + w_-^T r_- up to a constant of the prompt. w = 1 is DPO; rewards that are equal on both
    sides make it DPO with beta / w. Towards w = 0 the gradient grows as 1 / w: lower the learning rate with it. The
    margin rewards have to be on the trained objective's Bradley-Terry scale; r_j = beta log(pi_j / ref) of a DPO model
    of objective j will do.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      chosen_margin_rewards, rejected_margin_rewards: of both completions under each other objective. Held fixed.
      beta: strength of the tie to the reference, in (0, inf).
      share: w of the trained objective, in (0, 1]; all weights sum to 1.
      margin_shares: how the others divide what is left, w_- = (1 - w) shares: one for each, at least 0, with sum 1.

    Shapes: log-probs `[...]`, usually `[B]`; margin rewards `[..., K - 1]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, log-probs or rewards not floating.
      ValueError: static beta or share out of range, or margin_shares not K - 1 numbers of the simplex.

    Paper: Zhou et al., 2023, arXiv 2310.03708; the authors' code agrees.
    """
    margin = margins.log_ratio(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=beta
    )
    checks.number("share", share, 0.0, 1.0, closed="right")
    chosen, rejected = checks.floats(
        chosen_margin_rewards=chosen_margin_rewards, rejected_margin_rewards=rejected_margin_rewards
    )
    checks.leading_shape(policy_chosen_logps=margin, chosen_margin_rewards=chosen)
    shares = checks.simplex("margin_shares", margin_shares, chosen.shape[-1]).astype(margin.dtype)
    return links.logistic((margin - (1 - share) * (_stop(chosen - rejected) @ shares)) / share)


def mah_dpo(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    objective_ids: Array,
    valid: Array,
    *,
    beta: float = 0.1,
    head_weights: Sequence[float] = (0.5, 0.5),
    axis_name: Any = None,
) -> Array:
    """Multi-action-head DPO: DPO under the output head of each pair's objective, every objective weighing alike.

    The mean over the batch is sum_h a_h L_h / sum_h a_h over the objectives h that the batch has pairs of, L_h the mean
    of -log s(beta h) over them: a pair's own loss times a_h N / (n_h sum a). The log-probs are those of the pair's own
    head (`config.model.output_heads`), so the other heads get no gradient from it; the trunk gets all. One head is DPO.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy's head of the pair. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      objective_ids: integer in [0, H), the objective that the pair was labelled for.
      valid: bool, False for rows that only pad the batch.
      beta: strength of the tie to the reference, in (0, inf).
      head_weights: a, one for each of the H objectives, at least 0, with sum 1.
      axis_name: mapped axis (or axes) over which the batch is split; the counts are those of the whole batch.

    Shapes: all `[B]`; result float32 `[B]`, in nats.

    Raises:
      AssertionError: shapes differ, log-probs not floating, ids not integer, valid not bool.
      ValueError: static beta out of range, or head_weights not on the simplex.

    Paper: Shen et al., 2025, arXiv 2510.01167; the authors' weights are equal.
    """
    margin = margins.log_ratio(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=beta
    )
    checks.integers(objective_ids=objective_ids)
    checks.boolean(valid=valid)
    checks.same_shape(policy_chosen_logps=margin, objective_ids=objective_ids, valid=valid)
    weights = checks.simplex("head_weights", head_weights, len(head_weights)).astype(margin.dtype)
    of_head = jax.nn.one_hot(jnp.where(valid, objective_ids, -1), len(head_weights), dtype=margin.dtype)
    counts = jnp.sum(of_head, axis=0)
    counts = counts if axis_name is None else jax.lax.psum(counts, axis_name)
    present = jnp.sum(jnp.where(counts > 0, weights, 0.0))
    factors = jnp.where(counts > 0, weights * jnp.sum(counts) / jnp.maximum(counts, 1), 0.0)
    factors = factors / jnp.where(present > 0, present, 1.0)
    return links.logistic(keep(margin, valid)) * (of_head @ factors)


def safe_rlhf_cost(
    chosen_rewards: Array, rejected_rewards: Array, chosen_harmful: Array, rejected_harmful: Array
) -> Array:
    """Cost model: -log s(C_l - C_w) - log s(s_w C_w) - log s(s_l C_l), s = +1 for a harmful answer and -1 otherwise.

    The more harmful answer of the pair is the rejected one, and gets the *larger* cost: the opposite of a reward model.
    The last two terms put the zero of the cost between harmful and harmless, so that a constraint C <= 0 has a meaning.

    Args:
      chosen_rewards, rejected_rewards: what the trained head says, here a cost. Trained.
      chosen_harmful, rejected_harmful: bool, whether the answer is harmful by itself.

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`, in nats; 3 log 2 where all costs are 0.

    Raises:
      AssertionError: shapes differ, costs not floating, labels not bool.

    Paper: Dai et al., 2023, arXiv 2310.12773.
    """
    chosen, rejected = checks.floats(chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards)
    checks.boolean(chosen_harmful=chosen_harmful, rejected_harmful=rejected_harmful)
    checks.same_shape(chosen_rewards=chosen, chosen_harmful=chosen_harmful, rejected_harmful=rejected_harmful)
    signed = [jnp.where(harmful, c, -c) for c, harmful in ((chosen, chosen_harmful), (rejected, rejected_harmful))]
    return links.logistic(rejected - chosen) + links.logistic(signed[0]) + links.logistic(signed[1])


def _judged(labels: Array, judgements: Array, responses_mask: Array, **logps: Array) -> tuple[list[Array], Array]:
    """Entry checks; log-probs, labels and judgements of the responses that are there, and which those are."""
    arrays = checks.floats(**logps, labels=labels)
    checks.boolean(judgements=judgements, responses_mask=responses_mask)
    checks.leading_shape(labels=arrays[-1], responses_mask=responses_mask)
    checks.same_shape(labels=arrays[-1], judgements=judgements)
    there = jnp.any(responses_mask, axis=-1)
    return [keep(array, there) for array in arrays], there


def _pick(values: Array, at: Array) -> Array:
    return jnp.take_along_axis(values, at[..., None], axis=-1)[..., 0]


def cgpo_codpo(
    policy_responses_logps: Array,
    reference_responses_logps: Array,
    labels: Array,
    judgements: Array,
    responses_mask: Array,
    *,
    beta: float = 0.1,
    nll_weight: float = 5.0,
) -> Array:
    """CODPO: -log s(beta h) - (lambda / |y_w|) log pi(y_w), the best satisfying response against the worst violation.

    If no response violates, the rejected one is the worst of all (with equal rewards the last); with all satisfied this
    is online DPO of the best against the worst. A prompt without a satisfying response gives 0: leave it out of the
    mean with `cgpo_satisfiable`. A response alone is paired with itself, and only its likelihood is trained.

    Args:
      policy_responses_logps: summed log-probs under the policy. Trained.
      reference_responses_logps: the same under the reference. Held fixed.
      labels: reward of each response. Held fixed.
      judgements: bool, whether every judge is satisfied with the response.
      responses_mask: bool, True on the tokens of the responses; a row without any is a response that is not there.
      beta: strength of the tie to the reference, in (0, inf).
      nll_weight: lambda, in [0, inf); 0 is DPO on the picks.

    Shapes: log-probs, labels and judgements `[..., K]`, responses_mask `[..., K, T]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, log-probs or labels not floating, judgements or mask not bool.
      ValueError: static beta or nll_weight out of range.

    Paper: Xu et al., 2024, arXiv 2409.20370 (eq. 14). An early draft for TRL masked rewards by multiplication, which
    picks a satisfied response as the rejected one or a violating one as chosen, depending on the rewards' sign.
    """
    checks.number("beta", beta, 0.0)
    checks.number("nll_weight", nll_weight, 0.0, closed="left")
    (policy, reference, scores), there = _judged(
        labels, judgements, responses_mask, policy_responses_logps=policy_responses_logps,
        reference_responses_logps=reference_responses_logps,
    )  # fmt: skip
    good, bad = there & judgements, there & ~judgements
    chosen = jnp.argmax(jnp.where(good, scores, -jnp.inf), axis=-1)
    candidates = jnp.where(jnp.any(bad, axis=-1, keepdims=True), bad, there)
    # From the end, so that a list of equal rewards is not paired with itself.
    last = jnp.argmin(jnp.where(candidates, scores, jnp.inf)[..., ::-1], axis=-1)
    rejected = scores.shape[-1] - 1 - last
    ratios = policy - _stop(reference)
    lengths = _pick(jnp.sum(responses_mask, axis=-1), chosen).astype(policy.dtype)
    losses = links.logistic(beta * (_pick(ratios, chosen) - _pick(ratios, rejected)))
    losses = losses - nll_weight * _pick(policy, chosen) / jnp.maximum(lengths, 1)
    return keep(losses, jnp.any(good, axis=-1))


def cgpo_crraft(
    policy_responses_logps: Array,
    behaviour_responses_logps: Array,
    reference_responses_logps: Array,
    labels: Array,
    prompt_baselines: Array,
    judgements: Array,
    responses_mask: Array,
    *,
    kl_max: float = 5.0,
) -> Array:
    """CRRAFT: -R(y*) log pi(y*), y* the eligible response of the largest R = sigmoid(r - r_base).

    Eligible are the responses that satisfy every judge and have log pi_old - log ref <= kl_max, a limit on one sample
    that long answers pass soon: scale it with their length. The sum of the log-probs is not normalised by length. A
    prompt without an eligible response gives 0: leave it out of the mean with `cgpo_eligible`.

    Args:
      policy_responses_logps: summed log-probs under the policy. Trained.
      behaviour_responses_logps: the same under the policy that sampled. Held fixed.
      reference_responses_logps: the same under the reference. Held fixed.
      labels: r, reward of each response. Held fixed.
      prompt_baselines: r_base, reward of the baseline answer to the prompt. Held fixed.
      judgements: bool, whether every judge is satisfied with the response.
      responses_mask: bool, True on the tokens of the responses; a row without any is a response that is not there.
      kl_max: in nats per response, in (0, inf).

    Shapes: log-probs, labels and judgements `[..., K]`, prompt_baselines `[...]`, responses_mask `[..., K, T]`; result
    float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, log-probs or rewards not floating, judgements or mask not bool.
      ValueError: static kl_max out of range.

    Paper: Xu et al., 2024, arXiv 2409.20370 (eq. 18).
    """
    checks.number("kl_max", kl_max, 0.0)
    (policy, behaviour, reference, scores), there = _judged(
        labels, judgements, responses_mask, policy_responses_logps=policy_responses_logps,
        behaviour_responses_logps=behaviour_responses_logps, reference_responses_logps=reference_responses_logps,
    )  # fmt: skip
    (baselines,) = checks.floats(prompt_baselines=prompt_baselines)
    checks.leading_shape(prompt_baselines=baselines, labels=scores)
    eligible = there & judgements & (_stop(behaviour - reference) <= kl_max)
    best = jnp.argmax(jnp.where(eligible, scores, -jnp.inf), axis=-1)
    calibrated = jax.nn.sigmoid(_stop(_pick(scores, best) - baselines))
    return keep(-calibrated * _pick(policy, best), jnp.any(eligible, axis=-1))
