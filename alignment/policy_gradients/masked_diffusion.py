"""Policy gradients for masked diffusion language models and for flow models, on precomputed likelihood terms.

A masked diffusion model predicts the tokens behind [MASK], all at once. Kernels here never see it; what they expect of
one, however small, is a pure function

    predict(params, tokens [..., P + L] int, masked [..., P + L] bool) -> logits [..., P + L, V]

that replaces the tokens where `masked` is True by [MASK], attends in both directions, and does not shift: the logits at
a place are about the token at that place. From it come the arrays of this module:

* `policy_masked_token_logps` [..., n, L]: log p(y_i | what is not masked) of n Monte-Carlo maskings of the response,
  read only where `masked` [..., n, L] is True; `times` [..., n] are the rates they were drawn with (`mdlm_masks`).
* `policy_elbo_terms` [..., n] (`mdlm_elbo_terms`), which stand in for a log-prob; `behaviour_elbo_terms` are those of
  the policy that sampled. Use the *same* times and maskings for all the models compared: their noise then cancels.
* `policy_token_logps` [..., T] of one pass with the whole response masked (`mean_field_token_logps`): with these the
  clipped surrogate and the k3 penalty of the autoregressive family are diffu-GRPO.

Only response tokens are ever masked by the bound; a prompt is only masked where diffu-GRPO says so.
"""

from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep, masked_sum

Array = jax.Array
_stop = jax.lax.stop_gradient
_LARGEST = 20.0  # nats


def mdlm_masks(uniforms: Array, times: Array, mask: Array) -> Array:
    """Which tokens to hide: each response token on its own with probability t.

    Args:
      uniforms: uniform numbers in [0, 1), one per token and masking.
      times: t of each masking, in (0, 1].
      mask: bool, True on response tokens; no other is ever hidden.

    Shapes: uniforms `[..., n, L]`, times `[..., n]`, mask `[..., L]`; result bool `[..., n, L]`.

    Raises:
      AssertionError: shapes do not agree or dtypes are wrong.

    Paper: Sahoo et al., 2024, arXiv 2406.07524.
    """
    (uniforms,), (times,) = checks.floats(uniforms=uniforms), checks.floats(times=times)
    checks.boolean(mask=mask)
    checks.leading_shape(times=times, uniforms=uniforms)
    _one_response_per_maskings(mask, uniforms)
    return (uniforms < times[..., None]) & mask[..., None, :]


def _one_response_per_maskings(mask: Array, maskings: Array) -> None:
    if mask.shape != (*maskings.shape[:-2], maskings.shape[-1]):
        raise AssertionError(f"mask must have shape {(*maskings.shape[:-2], maskings.shape[-1])}, got {mask.shape}")


def mdlm_elbo_terms(
    policy_masked_token_logps: Array, masked: Array, times: Array, *, smallest_time: float = 1e-3
) -> Array:
    """Terms of the evidence lower bound: (1 / t) * sum over hidden tokens i of log p(y_i | what is not hidden).

    With t uniform on (0, 1) the expectation of a term is a lower bound B(y|x) of log p(y|x): the log-likelihood of the
    tokens in order, averaged over all orders in which they can be generated. A masking that hides nothing gives 0. The
    factor 1 / t is heavy-tailed; drawing t from (smallest_time, 1) instead is the usual remedy, and biases the bound.

    Args:
      policy_masked_token_logps: log-prob of each token given what is not hidden. Trained.
      masked: bool, which tokens are hidden; nothing else is looked at.
      times: t, the rate each masking was drawn with, in (0, 1]. Held fixed.
      smallest_time: smaller t divide as this one, in (0, 1].

    Shapes: log-probs and masked `[..., n, L]`, times `[..., n]`; result float32 `[..., n]`, in nats. Its mean over n is
    the estimate of B.

    Raises:
      AssertionError: shapes do not agree or dtypes are wrong.
      ValueError: static smallest_time out of range.

    Paper: Sahoo et al., 2024, arXiv 2406.07524; as the likelihood of a policy in Zhu et al., 2025 (LLaDA 1.5, VRPO),
    arXiv 2505.19223, who share times and maskings between the models compared.
    """
    (logps,), (times,) = checks.floats(policy_masked_token_logps=policy_masked_token_logps), checks.floats(times=times)
    checks.leading_shape(times=times, policy_masked_token_logps=logps)
    checks.number("smallest_time", smallest_time, 0.0, 1.0, closed="right")
    return masked_sum(logps, masked) / jnp.maximum(_stop(times), smallest_time)


def mdlm_elbo_terms_by_count(policy_masked_token_logps: Array, masked: Array, mask: Array) -> Array:
    """Terms of the same bound for maskings of a drawn size: (L / l) * sum over the l hidden tokens of their log-probs.

    l is uniform on 1 .. L and then l of the L response tokens are hidden. Same expectation as `mdlm_elbo_terms` and no
    1 / t: lower variance. A masking that hides nothing gives 0.

    Args:
      policy_masked_token_logps: log-prob of each token given what is not hidden. Trained.
      masked: bool, which tokens are hidden; nothing else is looked at.
      mask: bool, True on response tokens; their number is L.

    Shapes: log-probs and masked `[..., n, L]`, mask `[..., L]`; result float32 `[..., n]`, in nats.

    Raises:
      AssertionError: shapes do not agree or dtypes are wrong.

    Paper: Sahoo et al., 2024, arXiv 2406.07524, with the estimator of Nie et al., 2025 (LLaDA), arXiv 2502.09992.
    """
    (logps,) = checks.floats(policy_masked_token_logps=policy_masked_token_logps)
    checks.boolean(mask=mask)
    _one_response_per_maskings(mask, logps)
    hidden = jnp.maximum(jnp.sum(masked, axis=-1), 1)
    return masked_sum(logps, masked) * (jnp.sum(mask, axis=-1)[..., None] / hidden)


def mdlm_elbo_exact(policy_subset_token_logps: Array, subsets: Array) -> Array:
    """The bound without Monte Carlo: sum over S of (|S| - 1)! (L - |S|)! / L! * sum over i in S of log p(y_i | not S).

    S runs over the sets of hidden tokens. It is the mean over all L! orders of the log-likelihood of generating the
    tokens in that order, so it is log p(y|x) for a predictor whose conditionals belong to one distribution. For L up to
    about ten; the oracle of the estimates.

    Args:
      policy_subset_token_logps: log p(y_i | tokens outside S) for every S, read for i in S. Trained.
      subsets: bool, the sets S, each non-empty one once and the empty one or not; the same for each response.

    Shapes: both `[..., S, L]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ, log-probs not floating, subsets not bool.

    Paper: Sahoo et al., 2024, arXiv 2406.07524 (the exact form of its bound in discrete time, standard for any-order
    models).
    """
    (logps,) = checks.floats(policy_subset_token_logps=policy_subset_token_logps)
    size, length = jnp.sum(subsets, axis=-1).astype(logps.dtype), subsets.shape[-1]
    lgamma = jax.lax.lgamma
    # The empty set has no term: give it the weight of a set of one, times an empty sum.
    weights = jnp.exp(
        lgamma(jnp.maximum(size, 1.0)) + lgamma(length - size + 1.0) - lgamma(jnp.full_like(size, length + 1.0))
    )
    return jnp.sum(weights * masked_sum(logps, subsets), axis=-1)


def _paired_terms(policy: Array, behaviour: Array, advantages: Array) -> tuple[Array, Array]:
    """Entry checks, then d = ell_policy - ell_behaviour and the advantages, held fixed."""
    policy, behaviour = checks.floats(policy_elbo_terms=policy, behaviour_elbo_terms=behaviour)
    (advantages,) = checks.floats(advantages=advantages)
    checks.leading_shape(advantages=advantages, policy_elbo_terms=policy)
    return policy - _stop(behaviour), _stop(advantages)


def elbo_surrogate(policy_elbo_terms: Array, behaviour_elbo_terms: Array, advantages: Array) -> Array:
    """The objective that BGPO bounds: -A * exp(mean over j of (ell_policy - ell_behaviour)).

    The exponential of a mean keeps all n graphs alive until its end, so memory grows with n. The mean is clipped to 20
    nats in size before exp.

    Args:
      policy_elbo_terms: from `mdlm_elbo_terms`. Trained.
      behaviour_elbo_terms: the same terms, with the same times and maskings, of the policy that sampled. Held fixed.
      advantages: of each response. Held fixed.

    Shapes: terms `[..., n]`, advantages `[...]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.

    Paper: the starting point of Lin et al., 2025, arXiv 2510.11683.
    """
    differences, advantages = _paired_terms(policy_elbo_terms, behaviour_elbo_terms, advantages)
    return -advantages * jnp.exp(jnp.clip(jnp.mean(differences, axis=-1), -_LARGEST, _LARGEST))


def bgpo(policy_elbo_terms: Array, behaviour_elbo_terms: Array, advantages: Array) -> Array:
    """Boundary-guided policy optimization: -sum over j of g_j, a lower bound of the objective that is a plain sum.

        g_j = (1 + d_j) A / n  if A >= 0,   exp(d_j) A / n  if A < 0,   d_j = ell_policy - ell_behaviour

    Being a sum, its gradient can be accumulated one masking at a time, with the memory of one, so that n may be large
    (16 to 32): call it on slices [..., j : j + 1] and add loss / n. For A >= 0 it is advantage-weighted maximisation of
    the bound. On-policy its value and gradient are those of `elbo_surrogate`; away from there it is loose. No clip as
    PPO's; d_j is clipped to 20 nats in size before exp, since one masking's term has the tail of 1 / t.

    Args:
      policy_elbo_terms: from `mdlm_elbo_terms`. Trained.
      behaviour_elbo_terms: the same terms, with the same times and maskings, of the policy that sampled. Held fixed.
      advantages: (r - mean) / std of each response within its group. Held fixed.

    Shapes: terms `[..., n]`, advantages `[...]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.

    Paper: Lin et al., 2025, arXiv 2510.11683. Formulas of the paper; the authors' code (THU-KEG/BGPO) was not read.
    """
    differences, advantages = _paired_terms(policy_elbo_terms, behaviour_elbo_terms, advantages)
    linear = jnp.mean(1 + differences, axis=-1)
    convex = jnp.mean(jnp.exp(jnp.clip(differences, -_LARGEST, _LARGEST)), axis=-1)
    return -advantages * jnp.where(advantages >= 0, linear, convex)


def diffu_grpo_prompt_masks(uniforms: Array, prompt_mask: Array, *, rate: float = 0.15) -> Array:
    """Which prompt tokens diffu-GRPO hides for one inner update: each with probability `rate`, drawn afresh each time.

    A regulariser: the same response is scored under different prompts in the 12 inner updates of a batch. The old and
    the new log-probs of one update share a draw.

    Args:
      uniforms: uniform numbers in [0, 1).
      prompt_mask: bool, True on prompt tokens.
      rate: in [0, 1]; 0 in the released code of IGPO, which shares the estimator.

    Shapes: both `[...]`, usually `[N, P]`; result bool `[...]`.

    Raises:
      AssertionError: shapes differ or dtypes are wrong.
      ValueError: static rate out of range.

    Paper: Zhao et al., 2025, arXiv 2504.12216.
    """
    (uniforms,) = checks.floats(uniforms=uniforms)
    checks.boolean(prompt_mask=prompt_mask)
    checks.same_shape(uniforms=uniforms, prompt_mask=prompt_mask)
    checks.number("rate", rate, 0.0, 1.0, closed="both")
    return prompt_mask & (uniforms < rate)


def mean_field_token_logps(policy_logits: Array, tokens: Array, mask: Array) -> Array:
    """Log-prob of each response token from the one pass in which the whole response is hidden.

    Log softmax at each place, read at the token: the tokens are treated as independent given the prompt, so a
    sequence's sum is not its log-likelihood (and a sequence-level ratio means little). One forward pass for all.

    Args:
      policy_logits: of the pass with all response tokens hidden. Trained.
      tokens: the response, integers.
      mask: bool, True on response tokens; nothing is looked at elsewhere.

    Shapes: logits `[..., T, V]`, tokens and mask `[..., T]`; result float32 `[..., T]`, in nats, 0 behind the mask.

    Raises:
      AssertionError: shapes do not agree or dtypes are wrong.

    Paper: Zhao et al., 2025 (d1), arXiv 2504.12216.
    """
    (logits,) = checks.floats(policy_logits=policy_logits)
    checks.integers(tokens=tokens)
    checks.boolean(mask=mask)
    checks.same_shape(tokens=tokens, mask=mask)
    checks.leading_shape(mask=mask, policy_logits=logits)
    logps = jax.nn.log_softmax(jnp.where(mask[..., None], logits, 0.0))
    return keep(jnp.take_along_axis(logps, jnp.where(mask, tokens, 0)[..., None], axis=-1)[..., 0], mask)


def igpo_hint_masks(
    length_uniforms: Array,
    chunk_uniforms: Array,
    shares: Array,
    mask: Array,
    *,
    smallest_chunk: int = 5,
    largest_chunk: int = 10,
) -> Array:
    """Which tokens of a reference trace an in-painted sample is given: a random share of its random chunks.

    The trace is cut into chunks of length uniform on smallest .. largest (the last may be shorter); the round(share *
    chunks) of them with the smallest numbers stay fixed at their places, the model fills in the rest.

    Args:
      length_uniforms: uniform numbers in [0, 1); number c cuts chunk c.
      chunk_uniforms: uniform numbers in [0, 1); number c decides whether chunk c stays.
      shares: eta of each sample, drawn from U(0.2, 0.6) in the paper; 1 gives the full trace, 0 none of it.
      mask: bool, True on the tokens of the trace, without the final answer, which must never be given away.
      smallest_chunk, largest_chunk: in tokens, 1 <= smallest <= largest.

    Shapes: shares `[...]`, the others `[..., T]`; result bool `[..., T]`.

    Raises:
      AssertionError: shapes do not agree or dtypes are wrong.
      ValueError: chunk lengths out of range.

    Paper: Zhao et al., 2025, arXiv 2509.10396. Chunks of 5 to 10 as in the released run (its functions default to 4 to
    8); the released code also spreads the chunks apart to the length of the generation, here they keep their places.
    """
    lengths, order = checks.floats(length_uniforms=length_uniforms, chunk_uniforms=chunk_uniforms)
    (shares,) = checks.floats(shares=shares)
    checks.boolean(mask=mask)
    checks.same_shape(length_uniforms=lengths, mask=mask)
    checks.leading_shape(shares=shares, mask=mask)
    checks.positive_integer("smallest_chunk", smallest_chunk)
    if largest_chunk < smallest_chunk:
        raise ValueError(f"largest_chunk must lie in [smallest_chunk, inf), got {largest_chunk}")
    choices = largest_chunk - smallest_chunk + 1
    # A uniform number of half precision can be rounded up to 1.
    sizes = smallest_chunk + jnp.minimum((lengths * choices).astype(jnp.int32), choices - 1)
    ends = jnp.cumsum(sizes, axis=-1)
    places = jnp.cumsum(mask, axis=-1) - 1
    chunk_of = jnp.sum(places[..., :, None] >= ends[..., None, :], axis=-1)
    length = jnp.sum(mask, axis=-1)
    chunks = jnp.sum((ends - sizes) < length[..., None], axis=-1)
    exists = jnp.arange(mask.shape[-1]) < chunks[..., None]
    ranks = jnp.argsort(jnp.argsort(jnp.where(exists, order, jnp.inf), axis=-1), axis=-1)
    stays = exists & (ranks < jnp.round(shares * chunks)[..., None])
    return mask & jnp.take_along_axis(stays, jnp.minimum(chunk_of, mask.shape[-1] - 1), axis=-1)


def igpo_replacements(
    rewards: Array,
    in_painted_correct: Array,
    group_ids: Array,
    valid: Array,
    *,
    lambda_: float = 0.5,
    axis_name: Any = None,
) -> Array:
    """Which in-painted sample takes the place of each response, or -1: only in groups where every response is wrong.

    A response i comes with an in-painted sample i of the same prompt. In a group of G whose rewards are all 0, K =
    min(correct in-painted samples, floor(lambda * G)) responses, the first in the batch, are replaced by the first K
    correct in-painted samples. Other groups are left alone. With advantages r - mean over the new group, a replacement
    has 1 - K / G and a wrong response -K / G.

    Args:
      rewards: of each response; a wrong one has 0. Held fixed.
      in_painted_correct: bool, whether the in-painted sample of the row was verified.
      group_ids: integers; rows of one prompt share theirs.
      valid: bool, False for rows that only pad the batch.
      lambda_: largest share of a group that is replaced, in [0, 1]; 0.5 is 4 of 8.
      axis_name: mapped axis (or axes) over which the batch is split, if it is; the numbers are then those of rows of
        the whole batch.

    Shapes: all `[N]`; result int32 `[N]`.

    Raises:
      AssertionError: shapes differ or are not `[N]`, or dtypes are wrong.
      ValueError: static lambda_ out of range.

    Paper: Zhao et al., 2025, arXiv 2509.10396.
    """
    (rewards,) = checks.floats(rewards=rewards)
    checks.boolean(in_painted_correct=in_painted_correct, valid=valid)
    checks.integers(group_ids=group_ids)
    checks.same_shape(rewards=rewards, in_painted_correct=in_painted_correct, group_ids=group_ids, valid=valid)
    checks.number("lambda_", lambda_, 0.0, 1.0, closed="both")
    if rewards.ndim != 1:
        raise AssertionError(f"rewards must have shape ('N',), the whole batch on one axis, got {rewards.shape}")
    size, start = rewards.shape[0], 0
    every = (rewards, in_painted_correct, group_ids, valid)
    if axis_name is not None:
        start = jax.lax.axis_index(axis_name) * size
        every = tuple(jax.lax.all_gather(x, axis_name, tiled=True) for x in every)
    rewards_of, correct, ids, there = every
    numbers = jnp.arange(ids.shape[0])
    mates = (ids[:, None] == ids) & there
    earlier = numbers < numbers[:, None]
    wrong = jnp.where(there, rewards_of, 0.0) == 0
    all_wrong = ~jnp.any(mates & ~wrong, axis=1)
    good = there & correct
    limit = jnp.floor(lambda_ * jnp.sum(mates, axis=1)).astype(jnp.int32)
    count = jnp.minimum(jnp.sum(mates & good, axis=1), limit)
    place = jnp.sum(mates & earlier, axis=1)  # of a row among its group
    good_place = jnp.sum(mates & good & earlier, axis=1)  # of a row's in-painted sample among the correct ones
    matches = mates & good & (good_place == place[:, None])
    found = jnp.where(there & all_wrong & (place < count), jnp.argmax(matches, axis=1), -1)
    return jax.lax.dynamic_slice_in_dim(found, start, size).astype(jnp.int32)


def igpo_token_mask(token_entropies: Array, hint_mask: Array, mask: Array, *, tau: float = 0.2) -> Array:
    """Tokens IGPO trains: all that the model generated, and of the hints the share tau it is most uncertain about.

    Hint tokens are off-policy; where the model is sure of something else their gradient is large and disruptive.
    Per response, max(1, floor(tau * hints)) of them are kept; of equal entropies, the earlier.

    Args:
      token_entropies: of the policy's prediction at each place. Held fixed.
      hint_mask: bool, True on tokens that were given, not generated.
      mask: bool, True on response tokens.
      tau: in [0, 1]; 1 keeps all hint tokens.

    Shapes: all `[..., T]`; result bool `[..., T]`.

    Raises:
      AssertionError: shapes differ or dtypes are wrong.
      ValueError: static tau out of range.

    Paper: Zhao et al., 2025, arXiv 2509.10396. At least one hint token stays, as in the authors' code.
    """
    (entropies,) = checks.floats(token_entropies=token_entropies)
    checks.boolean(hint_mask=hint_mask, mask=mask)
    checks.same_shape(token_entropies=entropies, hint_mask=hint_mask, mask=mask)
    checks.number("tau", tau, 0.0, 1.0, closed="both")
    hints = hint_mask & mask
    ranks = jnp.argsort(jnp.argsort(-jnp.where(hints, _stop(entropies), -jnp.inf), axis=-1), axis=-1)
    kept = jnp.maximum(jnp.floor(tau * jnp.sum(hints, axis=-1) + 1e-6), 1)
    return mask & (~hints | (ranks < kept[..., None]))


def awm_logps(policy_velocities: Array, samples: Array, noises: Array, time_weights: Array) -> Array:
    """Log-likelihood stand-in of a flow model on a clean sample: -w(t) * mean over dimensions of (v - (noise - x))^2.

    v is the model's velocity at x_t = (1 - t) x + t * noise, and noise - x its target: the pre-training loss with its
    sign turned. w(t) = 1, t or t^2 in the paper. Use the same t and noise for the policy and what it is compared with.

    Args:
      policy_velocities: v at x_t. Trained.
      samples: x, the sampler's final result. Held fixed.
      noises: standard normal. Held fixed.
      time_weights: w(t) of each sample. Held fixed.

    Shapes: time_weights `[...]`, the others `[..., D]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.

    Paper: Xue et al., 2025, arXiv 2509.25050. A mean over dimensions, as the authors' code has, not a sum: ratios are
    near 1 by construction.
    """
    velocities, samples, noises = checks.floats(policy_velocities=policy_velocities, samples=samples, noises=noises)
    (time_weights,) = checks.floats(time_weights=time_weights)
    checks.leading_shape(time_weights=time_weights, policy_velocities=velocities)
    return -_stop(time_weights) * jnp.mean(jnp.square(velocities - _stop(noises - samples)), axis=-1)


def awm(
    policy_logps: Array,
    behaviour_logps: Array,
    advantages: Array,
    *,
    clip: float = 1.0,
    largest_advantage: float = 5.0,
) -> Array:
    """Advantage weighted matching: max(-A r, -A clip(r, 1 - c, 1 + c)) with r = exp(log p - log p_old) of `awm_logps`.

    On-policy its gradient is A w(t) times that of the matching loss: pre-training on the model's own samples, weighted
    by how good they are. A negative advantage pushes the velocity away from its target, without bound but for the clip
    and a penalty (`awm_velocity_penalty`).

    Args:
      policy_logps: from `awm_logps`. Trained.
      behaviour_logps: the same with the same t and noise, of the model that sampled. Held fixed.
      advantages: z-score of the reward within the group, cut to +-largest_advantage here. Held fixed.
      clip: c, half-width of the clip, in [0, inf); 1 in the released configs, practically off.
      largest_advantage: in (0, inf).

    Shapes: all `[...]`; result float32 `[...]`. Log-ratios are clipped to 20 in size before exp.

    Raises:
      AssertionError: shapes differ or an array is not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Xue et al., 2025, arXiv 2509.25050. The authors' code agrees.
    """
    policy, behaviour, advantages = checks.floats(
        policy_logps=policy_logps, behaviour_logps=behaviour_logps, advantages=advantages
    )
    checks.number("clip", clip, 0.0, closed="left")
    checks.number("largest_advantage", largest_advantage, 0.0)
    ratios = jnp.exp(jnp.clip(policy - _stop(behaviour), -_LARGEST, _LARGEST))
    advantages = jnp.clip(_stop(advantages), -largest_advantage, largest_advantage)
    return jnp.maximum(-advantages * ratios, -advantages * jnp.clip(ratios, 1 - clip, 1 + clip))


def awm_velocity_penalty(policy_velocities: Array, reference_velocities: Array) -> Array:
    """Mean over dimensions of (v - v_ref)^2: a flow model's KL to its reference, up to a factor that depends on t.

    Weighed with 1e-4 to 3e-3 in the released configs.

    Args:
      policy_velocities: of the model. Trained.
      reference_velocities: at the same point and time, of the frozen reference (or of an average of the weights). Held
        fixed.

    Shapes: both `[..., D]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.

    Paper: Xue et al., 2025, arXiv 2509.25050.
    """
    policy, reference = checks.floats(policy_velocities=policy_velocities, reference_velocities=reference_velocities)
    return jnp.mean(jnp.square(policy - _stop(reference)), axis=-1)
