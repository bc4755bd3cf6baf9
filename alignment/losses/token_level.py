"""Losses on pairs that look inside a completion: which of its tokens say how much.

Notation as in `preference`: h is the log-ratio margin of the chosen completion y_w over the rejected y_l, a_w and a_l
their own log-ratios, s the sigmoid, `reference_*` held fixed. Where a kernel asks for token log-probs it sums them
itself, with weights of its own, under the mask: what stands elsewhere is not looked at. The two sides of a pair may be
padded to different lengths T.
"""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses import links, margins
from alignment.losses.masking import keep, masked_sum

Array = jax.Array
_stop = jax.lax.stop_gradient


def position_kl(policy_logits: Array, reference_logits: Array) -> Array:
    """KL(reference || policy) over the full vocabulary at every position, from materialised logits.

        sum over v of ref_v * (log ref_v - log pi_v)

    The training step delivers the same numbers as `*_token_forward_kls` in a chunked pass that never holds the
    vocabulary at every position; this is the direct form, for small models and as its oracle. A token that the
    reference gives probability 0 (logit -inf) contributes 0.

    Args:
      policy_logits: unnormalised log-probs under the policy. Trained.
      reference_logits: the same under the reference. Held fixed.

    Shapes: logits `[..., V]`; result float32 `[...]`, in nats, >= 0 up to rounding.

    Raises:
      AssertionError: shapes differ or logits are not floating.

    Paper: Zeng et al., 2024, arXiv 2404.11999 (the per-position term of their sequential KL).
    """
    policy_logits, reference_logits = checks.floats(policy_logits=policy_logits, reference_logits=reference_logits)
    policy = jax.nn.log_softmax(policy_logits)
    reference = jax.nn.log_softmax(_stop(reference_logits))
    # 0 * (-inf - -inf) is NaN: leave out what has no mass before the product.
    has_mass = reference > -jnp.inf
    difference = jnp.where(has_mass, reference, 0.0) - jnp.where(has_mass, policy, 0.0)
    return jnp.sum(jnp.exp(reference) * difference, axis=-1)


def _tdpo_parts(
    policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps,
    policy_chosen_token_forward_kls, policy_rejected_token_forward_kls, chosen_mask, rejected_mask,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Entry checks, then the margin h and the sequential KL of the chosen and of the rejected side."""
    margin = margins.log_ratio(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=1.0
    )
    (chosen_kls,) = checks.floats(policy_chosen_token_forward_kls=policy_chosen_token_forward_kls)
    (rejected_kls,) = checks.floats(policy_rejected_token_forward_kls=policy_rejected_token_forward_kls)
    checks.leading_shape(policy_chosen_logps=margin, policy_chosen_token_forward_kls=chosen_kls)
    checks.leading_shape(policy_rejected_logps=margin, policy_rejected_token_forward_kls=rejected_kls)
    return margin, masked_sum(chosen_kls, chosen_mask), masked_sum(rejected_kls, rejected_mask)


def tdpo1(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    policy_chosen_token_forward_kls: Array,
    policy_rejected_token_forward_kls: Array,
    chosen_mask: Array,
    rejected_mask: Array,
    *,
    beta: float = 0.1,
) -> Array:
    """Token-level DPO, first form: -log s(beta * h - beta * (SeqKL(y_l) - SeqKL(y_w))).

    SeqKL(y) is the sum over completion positions of KL(ref(. | x, y_<t) || pi(. | x, y_<t)), reference first, over the
    full vocabulary. The gradient passes through both SeqKL terms.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      policy_chosen_token_forward_kls, policy_rejected_token_forward_kls: KL(reference || policy) at each completion
        position, in nats. Trained.
      chosen_mask, rejected_mask: bool, True on completion tokens; KLs elsewhere are not looked at.
      beta: in (0, inf).

    Shapes: log-probs `[...]`, usually `[B]`; KLs and masks `[..., T]` (T may differ between the sides); result float32
    `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, log-probs or KLs not floating, masks not bool.
      ValueError: static beta out of range.

    Paper: Zeng et al., 2024, arXiv 2404.11999. The authors' `tdpo_loss(if_tdpo2=False)` agrees.
    """
    margin, chosen_kl, rejected_kl = _tdpo_parts(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps,
        policy_chosen_token_forward_kls, policy_rejected_token_forward_kls, chosen_mask, rejected_mask,
    )  # fmt: skip
    checks.number("beta", beta, 0.0)
    return links.logistic(beta * (margin - (rejected_kl - chosen_kl)))


def tdpo2(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    policy_chosen_token_forward_kls: Array,
    policy_rejected_token_forward_kls: Array,
    chosen_mask: Array,
    rejected_mask: Array,
    *,
    beta: float = 0.1,
    alpha: float = 0.5,
) -> Array:
    """Token-level DPO, second form: -log s(beta * h - alpha * beta * (SeqKL(y_l) - stop_gradient(SeqKL(y_w)))).

    SeqKL as in `tdpo1`. No gradient passes through the chosen side's SeqKL, so that the divergence of the rejected side
    is the one being controlled.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      policy_chosen_token_forward_kls: KL(reference || policy) at each position of the chosen completion. Held fixed.
      policy_rejected_token_forward_kls: the same for the rejected completion. Trained.
      chosen_mask, rejected_mask: bool, True on completion tokens; KLs elsewhere are not looked at.
      beta: in (0, inf).
      alpha: weight of the KL difference, in [0, inf); 0 is `dpo`.

    Shapes: log-probs `[...]`, usually `[B]`; KLs and masks `[..., T]` (T may differ between the sides); result float32
    `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, log-probs or KLs not floating, masks not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Zeng et al., 2024, arXiv 2404.11999. The authors' `tdpo_loss(if_tdpo2=True)` agrees, gradients included;
    their shipped config has the first form switched on although the paper's headline results are this one.
    """
    margin, chosen_kl, rejected_kl = _tdpo_parts(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps,
        policy_chosen_token_forward_kls, policy_rejected_token_forward_kls, chosen_mask, rejected_mask,
    )  # fmt: skip
    checks.number("beta", beta, 0.0)
    checks.number("alpha", alpha, 0.0, closed="left")
    return links.logistic(beta * (margin - alpha * (rejected_kl - _stop(chosen_kl))))


def treg_token_rewards(better_token_logps: Array, worse_token_logps: Array) -> Array:
    """T-REG's token rewards: s(log ev(y_t | better, y_<t) - log ev(y_t | worse, y_<t)) - 1/2.

    One model, the evaluator ev, scores a completion twice: after a prompt that asks for a better answer and after one
    that asks for a worse one. A token that is likelier under the first is worth something. The prompts differ in
    length, so the arrays are aligned by the position in the completion.

    Args:
      better_token_logps, worse_token_logps: log-probs of the same completion tokens under the evaluator after the two
        prompts. Held fixed.

    Shapes: both `[...]`, usually `[B, T]`; result float32 `[...]` in [-1/2, 1/2]. No gradient passes.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.

    Paper: Zhou et al., 2024, arXiv 2412.02685; the evaluator is the reference model.
    """
    better, worse = checks.floats(better_token_logps=better_token_logps, worse_token_logps=worse_token_logps)
    # s(z) - 1/2 without the cancellation near 0.
    return 0.5 * jnp.tanh(0.5 * _stop(better - worse))


def _rewarded_sums(side: str, logps: Array, rewards: Array, mask: Array) -> tuple[Array, Array]:
    """Entry checks, then sum_t log pi(y_t | .) and sum_t rhat_t log pi(y_t | .) of one side, rewards held fixed."""
    logps, rewards = checks.floats(**{f"policy_{side}_token_logps": logps, f"{side}_token_rewards": rewards})
    logps = keep(logps, mask)
    return logps.sum(-1), jnp.sum(_stop(keep(rewards, mask)) * logps, axis=-1)


def treg(
    policy_chosen_token_logps: Array,
    policy_rejected_token_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    chosen_token_rewards: Array,
    rejected_token_rewards: Array,
    chosen_mask: Array,
    rejected_mask: Array,
    *,
    beta: float = 0.1,
    alpha: float = 0.25,
) -> Array:
    """DPO with token-level reward regularisation: -log s(beta * h) - alpha * w * beta * sum_t rhat_t log pi(y_t | .).

    The sum runs over the tokens of both completions, rhat_t are their rewards and w = s(-beta * h), held fixed, is
    DPO's own weight of the pair. The gradient of a chosen token is therefore -beta w (1 + alpha rhat_t), of a rejected
    one beta w (1 - alpha rhat_t): with |rhat| < 1/2 and alpha < 2 no token changes direction, DPO's gradient is only
    shared out differently among the tokens.

    Args:
      policy_chosen_token_logps, policy_rejected_token_logps: log-prob of each token under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: summed log-probs under the reference. Held fixed.
      chosen_token_rewards, rejected_token_rewards: rhat of each token, from `treg_token_rewards`. Held fixed.
      chosen_mask, rejected_mask: bool, True on completion tokens; nothing is looked at elsewhere.
      beta: in (0, inf).
      alpha: weight of the token rewards, in [0, inf); 0 is `dpo`. The paper searches 0.1, 0.25 and 0.5.

    Shapes: token arrays `[..., T]` (T may differ between the sides); reference log-probs `[...]`, usually `[B]`;
    result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, an array not floating, masks not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Zhou et al., 2024, arXiv 2412.02685. The authors' code was not available; that w is held fixed follows from
    its part in the paper, the weight of a gradient.
    """
    checks.number("beta", beta, 0.0)
    checks.number("alpha", alpha, 0.0, closed="left")
    sums, weighted = [], []
    for name, logps, rewards, mask in (
        ("chosen", policy_chosen_token_logps, chosen_token_rewards, chosen_mask),
        ("rejected", policy_rejected_token_logps, rejected_token_rewards, rejected_mask),
    ):
        total, regulariser = _rewarded_sums(name, logps, rewards, mask)
        sums.append(total)
        weighted.append(regulariser)
    h = margins.log_ratio(*sums, reference_chosen_logps, reference_rejected_logps, beta=1.0)
    pair_weight = _stop(jax.nn.sigmoid(-beta * h))
    return links.logistic(beta * h) - alpha * beta * pair_weight * (weighted[0] + weighted[1])


def simpo_reg(
    policy_chosen_token_logps: Array,
    policy_rejected_token_logps: Array,
    chosen_token_rewards: Array,
    rejected_token_rewards: Array,
    chosen_mask: Array,
    rejected_mask: Array,
    *,
    beta: float = 2.0,
    gamma: float = 0.5,
    alpha: float = 0.25,
) -> Array:
    """SimPO with T-REG's regulariser: -log s(m) - alpha * s(-m) * beta * sum_t rhat_t log pi(y_t | .).

    m = beta * (mean log pi(y_w) - mean log pi(y_l)) - gamma is `simpo`'s margin, and its weight s(-m), held fixed,
    takes the place of DPO's in `treg`. The means divide SimPO's own token gradients by the length of the completion,
    the regulariser's they do not, so here a token of a long completion can change direction.

    Args:
      policy_chosen_token_logps, policy_rejected_token_logps: log-prob of each token under the policy. Trained.
      chosen_token_rewards, rejected_token_rewards: rhat of each token, from `treg_token_rewards`. Held fixed.
      chosen_mask, rejected_mask: bool, True on completion tokens; nothing is looked at elsewhere.
      beta: in (0, inf), SimPO's scale.
      gamma: SimPO's target margin, in [0, inf).
      alpha: weight of the token rewards, in [0, inf); 0 is `simpo`.

    Shapes: all `[..., T]` (T may differ between the sides), usually `[B, T]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, an array not floating, masks not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Zhou et al., 2024, arXiv 2412.02685, SimPO-REG. The authors' code was not available.
    """
    checks.number("beta", beta, 0.0)
    checks.number("gamma", gamma, 0.0, closed="left")
    checks.number("alpha", alpha, 0.0, closed="left")
    means, weighted = [], []
    for name, logps, rewards, mask in (
        ("chosen", policy_chosen_token_logps, chosen_token_rewards, chosen_mask),
        ("rejected", policy_rejected_token_logps, rejected_token_rewards, rejected_mask),
    ):
        total, regulariser = _rewarded_sums(name, logps, rewards, mask)
        means.append(total / jnp.maximum(mask.sum(-1), 1))
        weighted.append(regulariser)
    checks.same_shape(policy_chosen_token_logps=means[0], policy_rejected_token_logps=means[1])
    margin = beta * (means[0] - means[1]) - gamma
    return links.logistic(margin) - alpha * beta * _stop(jax.nn.sigmoid(-margin)) * (weighted[0] + weighted[1])


def _token_log_ratios(
    policy_chosen_token_logps, policy_rejected_token_logps,
    reference_chosen_token_logps, reference_rejected_token_logps, chosen_mask, rejected_mask,
) -> tuple[Array, Array]:  # fmt: skip
    """Entry checks; log pi - log ref of every token of the chosen and of the rejected side, 0 behind the masks."""
    policy, reference = checks.floats(
        policy_chosen_token_logps=policy_chosen_token_logps, reference_chosen_token_logps=reference_chosen_token_logps
    )
    chosen = keep(policy - _stop(reference), chosen_mask)
    policy, reference = checks.floats(
        policy_rejected_token_logps=policy_rejected_token_logps,
        reference_rejected_token_logps=reference_rejected_token_logps,
    )
    rejected = keep(policy - _stop(reference), rejected_mask)
    checks.same_shape(policy_chosen_token_logps=chosen[..., 0], policy_rejected_token_logps=rejected[..., 0])
    return chosen, rejected


def sparse_token_dpo(
    policy_chosen_token_logps: Array,
    policy_rejected_token_logps: Array,
    reference_chosen_token_logps: Array,
    reference_rejected_token_logps: Array,
    chosen_token_scores: Array,
    rejected_token_scores: Array,
    chosen_mask: Array,
    rejected_mask: Array,
    *,
    beta: float = 0.1,
    sparsity: float = 0.01,
) -> Array:
    """DPO on gated tokens: -log s(beta * (sum_t u_w,t D_w,t - sum_t u_l,t D_l,t)) + sparsity * (sum u_w + sum u_l).

    D_t is the log-ratio log pi - log ref of a token and u_t = s(score_t) its gate, learnt together with the policy. The
    price on open gates leaves open those that tell the two completions apart, so that what both share stops coupling
    their gradients. The gates may close altogether (loss log 2): watch their sum.

    Args:
      policy_chosen_token_logps, policy_rejected_token_logps: log-prob of each token under the policy. Trained.
      reference_chosen_token_logps, reference_rejected_token_logps: the same under the reference. Held fixed.
      chosen_token_scores, rejected_token_scores: score of each token from a trained head. Trained.
      chosen_mask, rejected_mask: bool, True on completion tokens; nothing is looked at elsewhere.
      beta: in (0, inf).
      sparsity: price of an open gate, in [0, inf).

    Shapes: all `[..., T]` (T may differ between the sides), usually `[B, T]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, an array not floating, masks not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Yuan et al., 2024, arXiv 2410.13828, who propose sparse token masks against gradient entanglement. No code
    was published: gates from a sigmoid of a linear head are ours.
    """
    chosen, rejected = _token_log_ratios(
        policy_chosen_token_logps, policy_rejected_token_logps,
        reference_chosen_token_logps, reference_rejected_token_logps, chosen_mask, rejected_mask,
    )  # fmt: skip
    checks.number("beta", beta, 0.0)
    checks.number("sparsity", sparsity, 0.0, closed="left")
    (chosen_scores,) = checks.floats(chosen_token_scores=chosen_token_scores)
    (rejected_scores,) = checks.floats(rejected_token_scores=rejected_token_scores)
    chosen_gates = keep(jax.nn.sigmoid(keep(chosen_scores, chosen_mask)), chosen_mask)
    rejected_gates = keep(jax.nn.sigmoid(keep(rejected_scores, rejected_mask)), rejected_mask)
    margin = jnp.sum(chosen_gates * chosen, axis=-1) - jnp.sum(rejected_gates * rejected, axis=-1)
    return links.logistic(beta * margin) + sparsity * (chosen_gates.sum(-1) + rejected_gates.sum(-1))


def _places(mask: Array) -> Array:
    """How many tokens of the completion stand before each position: 0 at its first token, wherever that is."""
    return jnp.cumsum(mask, axis=-1) - 1


def _discounted_sum(values: Array, mask: Array, gamma: float) -> Array:
    places = jnp.maximum(_places(mask), 0)
    return jnp.sum(values * jnp.power(gamma, places.astype(values.dtype)), axis=-1)


def _biased_contrast(chosen: Array, rejected: Array, contrastive_bias: float, label_smoothing: float) -> Array:
    # Not `links.logistic`: with a bias the two orders are not each other's mirror image.
    kept = jax.nn.softplus(contrastive_bias * rejected - chosen)
    swapped = jax.nn.softplus(contrastive_bias * chosen - rejected)
    return (1 - label_smoothing) * kept + label_smoothing * swapped


def _check_cpl(alpha, contrastive_bias, gamma, label_smoothing) -> None:
    checks.number("alpha", alpha, 0.0)
    checks.number("contrastive_bias", contrastive_bias, 0.0, 1.0, closed="right")
    checks.number("gamma", gamma, 0.0, 1.0, closed="right")
    checks.number("label_smoothing", label_smoothing, 0.0, 1.0, closed="both")


def cpl(
    policy_chosen_token_logps: Array,
    policy_rejected_token_logps: Array,
    chosen_mask: Array,
    rejected_mask: Array,
    *,
    alpha: float = 0.1,
    contrastive_bias: float = 0.5,
    gamma: float = 1.0,
    label_smoothing: float = 0.0,
) -> Array:
    """Contrastive Preference Learning: softplus(lambda * A(y_l) - A(y_w)), A(y) = alpha * sum_t gamma^t log pi(y_t).

    Preferences are read as being about regret, under which the log-prob of the policy that is sought is the advantage
    itself: no reward model and no reference. With lambda < 1 a pair of unlikely segments costs more than a pair of
    likely ones with the same difference, which keeps the policy near the data; that presumes log-probs, not
    log-densities, which can be positive. Segments should be of similar length: a longer one sums more negative terms.

    Args:
      policy_chosen_token_logps, policy_rejected_token_logps: log-prob of each token (or action) under the policy.
        Trained.
      chosen_mask, rejected_mask: bool, True on tokens of the completion; nothing is looked at elsewhere.
      alpha: temperature, in (0, inf).
      contrastive_bias: lambda, in (0, 1].
      gamma: discount by place in the completion, in (0, 1].
      label_smoothing: probability that the label is the wrong way round, in [0, 1]; an array `[...]` gives every pair
        a soft label of its own.

    Shapes: all `[..., T]` (T may differ between the sides), usually `[B, T]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, log-probs not floating, masks not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Hejna et al., 2023, arXiv 2310.13639. The authors' `biased_bce_with_logits` agrees; the paper writes gamma^t
    and their code has no discount, hence the default 1. Their behaviour-cloning term is the term `sft` beside this one.
    """
    _check_cpl(alpha, contrastive_bias, gamma, label_smoothing)
    (chosen,) = checks.floats(policy_chosen_token_logps=policy_chosen_token_logps)
    (rejected,) = checks.floats(policy_rejected_token_logps=policy_rejected_token_logps)
    chosen = alpha * _discounted_sum(keep(chosen, chosen_mask), chosen_mask, gamma)
    rejected = alpha * _discounted_sum(keep(rejected, rejected_mask), rejected_mask, gamma)
    checks.same_shape(policy_chosen_token_logps=chosen, policy_rejected_token_logps=rejected)
    return _biased_contrast(chosen, rejected, contrastive_bias, label_smoothing)


def cpl_kl(
    policy_chosen_token_logps: Array,
    policy_rejected_token_logps: Array,
    reference_chosen_token_logps: Array,
    reference_rejected_token_logps: Array,
    chosen_mask: Array,
    rejected_mask: Array,
    *,
    alpha: float = 0.2,
    contrastive_bias: float = 0.75,
    gamma: float = 1.0,
    label_smoothing: float = 0.0,
) -> Array:
    """CPL with a reference: softplus(lambda * A(y_l) - A(y_w)), A(y) = alpha * sum_t gamma^t log(pi / ref)(y_t | .).

    `cpl` whose advantage is the log-ratio to a frozen policy. Without bias and discount it is `dpo` with beta = alpha.

    Args:
      policy_chosen_token_logps, policy_rejected_token_logps: log-prob of each token under the policy. Trained.
      reference_chosen_token_logps, reference_rejected_token_logps: the same under the reference. Held fixed.
      chosen_mask, rejected_mask: bool, True on tokens of the completion; nothing is looked at elsewhere.
      alpha, contrastive_bias, gamma, label_smoothing: as in `cpl`.

    Shapes: all `[..., T]` (T may differ between the sides), usually `[B, T]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, log-probs not floating, masks not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Hejna et al., 2023, arXiv 2310.13639, CPL-KL.
    """
    _check_cpl(alpha, contrastive_bias, gamma, label_smoothing)
    chosen, rejected = _token_log_ratios(
        policy_chosen_token_logps, policy_rejected_token_logps,
        reference_chosen_token_logps, reference_rejected_token_logps, chosen_mask, rejected_mask,
    )  # fmt: skip
    chosen = alpha * _discounted_sum(chosen, chosen_mask, gamma)
    rejected = alpha * _discounted_sum(rejected, rejected_mask, gamma)
    return _biased_contrast(chosen, rejected, contrastive_bias, label_smoothing)


def ld_dpo_logp(token_logps: Array, mask: Array, shorter_lengths: Array, *, alpha: float = 0.5) -> Array:
    """Length-desensitised log-prob: the first n tokens count in full, those after them alpha times.

        sum_{t <= n} log pi(y_t) + alpha * sum_{t > n} log pi(y_t),  n = min(|y_w|, |y_l|)

    Args:
      token_logps: log-prob of each token. Trained (when of the policy).
      mask: bool, True on completion tokens; nothing is looked at elsewhere. Places are counted among these.
      shorter_lengths: n, the token count of the pair's shorter completion, integer. Held fixed.
      alpha: in [0, 1]; 1 is the plain sum, 0 cuts the completion to n tokens.

    Shapes: token_logps and mask `[..., T]`; shorter_lengths `[...]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, log-probs not floating, mask not bool, lengths not integer.
      ValueError: static alpha out of range.

    Paper: Liu et al., 2024, arXiv 2409.06411. TRL's `ld_alpha` agrees.
    """
    (token_logps,) = checks.floats(token_logps=token_logps)
    checks.integers(shorter_lengths=shorter_lengths)
    checks.number("alpha", alpha, 0.0, 1.0, closed="both")
    token_logps = keep(token_logps, mask)
    checks.leading_shape(shorter_lengths=shorter_lengths, token_logps=token_logps)
    counts_in_full = _places(mask) < jnp.asarray(shorter_lengths)[..., None]
    return jnp.sum(jnp.where(counts_in_full, 1.0, alpha) * token_logps, axis=-1)


def ld_dpo(
    policy_chosen_token_logps: Array,
    policy_rejected_token_logps: Array,
    reference_chosen_token_logps: Array,
    reference_rejected_token_logps: Array,
    chosen_mask: Array,
    rejected_mask: Array,
    *,
    beta: float = 0.1,
    alpha: float = 0.5,
) -> Array:
    """Length-desensitised DPO: `dpo` on the log-probs of `ld_dpo_logp`, of the policy and of the reference alike.

    What the longer completion has beyond the length of the shorter counts alpha times, so that length itself is less of
    a signal. Completions of equal length give `dpo`.

    Args:
      policy_chosen_token_logps, policy_rejected_token_logps: log-prob of each token under the policy. Trained.
      reference_chosen_token_logps, reference_rejected_token_logps: the same under the reference. Held fixed.
      chosen_mask, rejected_mask: bool, True on completion tokens; nothing is looked at elsewhere.
      beta: in (0, inf).
      alpha: in [0, 1]; the paper's best lie between 0.5 and 0.6.

    Shapes: all `[..., T]` (T may differ between the sides), usually `[B, T]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, log-probs not floating, masks not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Liu et al., 2024, arXiv 2409.06411.
    """
    checks.number("beta", beta, 0.0)
    chosen, rejected = _token_log_ratios(
        policy_chosen_token_logps, policy_rejected_token_logps,
        reference_chosen_token_logps, reference_rejected_token_logps, chosen_mask, rejected_mask,
    )  # fmt: skip
    shorter = jnp.minimum(jnp.sum(chosen_mask, axis=-1), jnp.sum(rejected_mask, axis=-1))
    # The weights are the same for both models, so weighted log-ratios are ratios of weighted log-probs.
    chosen = ld_dpo_logp(chosen, chosen_mask, shorter, alpha=alpha)
    rejected = ld_dpo_logp(rejected, rejected_mask, shorter, alpha=alpha)
    return links.logistic(beta * (chosen - rejected))
