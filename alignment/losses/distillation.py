"""Losses that bring a model's next-token distributions to those of a teacher, per token.

p_S is the student, the policy that is trained, and p_T the teacher, which is held fixed. The divergences are statistics
over the whole vocabulary (`teacher_token_*` of `alignment.statistics`), computed chunk by chunk for both models; a
kernel never sees a distribution. At temperature tau both are softmax(z / tau): it is the run's
(`config.training.temperature`, online `config.rollout.temperature`). Hinton's factor tau^2 is the term's `weight`.

Nothing is differentiated through the sampling of the tokens, but for `minillm`, which has a term for that.
"""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep

Array = jax.Array
_stop = jax.lax.stop_gradient

_CAP = 20.0  # of log-ratios before an exponential; e^20 is a mismatch, and must not overflow
_FLOOR = 1e-3  # `statistics.CONTRAST_FLOOR`, which the teacher was extrapolated with


def forward_kl_distill(teacher_token_forward_kls: Array, mask: Array) -> Array:
    """Token-level distillation: KL(p_T || p_S) at every token, the cross-entropy to the teacher less its entropy.

    The gradient with respect to the student's logits is p_S - p_T (over tau). Mass-covering: the student must put
    probability wherever the teacher has some.

    Args:
      teacher_token_forward_kls: KL(teacher || student) over the whole vocabulary. Trained (through the student).
      mask: bool, True on the tokens that count.

    Shapes: both `[..., T]`; result float32 `[..., T]`, in nats, 0 behind the mask. Reduction: `token_mean`.

    Raises:
      AssertionError: shapes differ, divergences not floating, mask not bool.

    Paper: Hinton et al., 2015, arXiv 1503.02531. Mixed with the data's own tokens it is a config of this and `sft`.
    """
    (kls,) = checks.floats(teacher_token_forward_kls=teacher_token_forward_kls)
    return keep(kls, mask)


def reverse_kl_distill(teacher_token_kls: Array, mask: Array) -> Array:
    """KL(p_S || p_T) at every token: mode-seeking, and the single-step part of `minillm`.

    The gradient with respect to a logit is p_S(v) (log p_S(v) - log p_T(v) - KL) (over tau).

    Args:
      teacher_token_kls: KL(student || teacher) over the whole vocabulary. Trained (through the student).
      mask: bool, True on the tokens that count.

    Shapes: both `[..., T]`; result float32 `[..., T]`, in nats, 0 behind the mask. Reduction: `token_mean`.

    Raises:
      AssertionError: shapes differ, divergences not floating, mask not bool.

    Paper: Gu et al., 2023, arXiv 2306.08543 (its single-step part); `gkd` with beta = 1.
    """
    (kls,) = checks.floats(teacher_token_kls=teacher_token_kls)
    return keep(kls, mask)


def gkd(
    teacher_token_forward_mixture_kls: Array, teacher_token_mixture_kls: Array, mask: Array, *, beta: float = 0.5
) -> Array:
    """Generalised Jensen-Shannon divergence: beta KL(p_T || m) + (1 - beta) KL(p_S || m).

        m = beta p_T + (1 - beta) p_S

    At beta = 0 it is KL(p_T || p_S) and at beta = 1 KL(p_S || p_T), by definition: the formula itself tends to 0 there,
    and divided by beta (or 1 - beta) to these. At most log 2 at beta = 1/2, so a token where the student has no mass
    cannot rule the batch. On which tokens is the run's choice: data, the student's own samples, or both (offline
    `experiments.finetune`; online `experiments.reinforce`, where `rollout.demonstrations` of each group are data).

    Args:
      teacher_token_forward_mixture_kls: KL(teacher || m), for this very beta. Trained (through the student).
      teacher_token_mixture_kls: KL(student || m). Trained.
      mask: bool, True on the tokens that count.
      beta: share of the teacher in m, in [0, 1]. (Some libraries mean the student's share.)

    Shapes: all `[..., T]`; result float32 `[..., T]`, in nats, 0 behind the mask. Reduction: `token_mean`.

    Raises:
      AssertionError: shapes differ, divergences not floating, mask not bool.
      ValueError: static beta out of range.

    Paper: Agarwal et al., 2023, arXiv 2306.13649. TRL's `generalized_jsd_loss` agrees; its trainer scores at
    temperature 1 what it samples at 0.9, and decides per batch, by a coin, whether the student writes it.
    """
    checks.number("beta", beta, 0.0, 1.0, closed="both")
    forward, reverse = checks.floats(
        teacher_token_forward_mixture_kls=teacher_token_forward_mixture_kls,
        teacher_token_mixture_kls=teacher_token_mixture_kls,
    )
    # At an end m is one of the two, whose own divergence is 0; the other's counts whole.
    of_teacher, of_student = jnp.where(beta == 0, 1.0, beta), jnp.where(beta == 1, 1.0, 1 - beta)
    return of_teacher * keep(forward, mask) + of_student * keep(reverse, mask)


# --- MiniLLM ----------------------------------------------------------------------------------------------------------


def minillm_returns(token_rewards: Array, mask: Array, *, gamma: float = 1.0) -> Array:
    """R_{t+1}: the discounted sum of the rewards *after* each token, sum over s > t of gamma^(s - t - 1) r_s.

    The token's own reward is not in it: its expectation is known exactly (`reverse_kl_distill`). Tokens that do not
    count are passed over, and do not discount.

    Args:
      token_rewards: log p_T - log p_S of each token. Held fixed.
      mask: bool, True on completion tokens.
      gamma: in [0, 1].

    Shapes: both `[..., T]`; result float32 `[..., T]`, 0 behind the mask and at the last token. No gradient passes.

    Raises:
      AssertionError: shapes differ, rewards not floating, mask not bool.
      ValueError: static gamma out of range.

    Paper: Gu et al., 2023, arXiv 2306.08543. The authors' code and TRL's include the token's own reward, and then add
    the single-step part as well, which counts it twice; without length normalisation TRL discounts by gamma^s.
    """
    checks.number("gamma", gamma, 0.0, 1.0, closed="both")
    (rewards,) = checks.floats(token_rewards=token_rewards)
    return _later(_stop(keep(rewards, mask)), mask, gamma)


def _later(rewards: Array, mask: Array, gamma) -> Array:
    """Discounted sum of what comes after each position that counts; `rewards` are 0 elsewhere."""

    def back(total, column):
        reward, counts = column
        return jnp.where(counts, reward + gamma * total, total), jnp.where(counts, total, 0.0)

    columns = (jnp.moveaxis(rewards, -1, 0), jnp.moveaxis(mask, -1, 0))
    # Begun from the rewards, so that under shard_map the carry varies over the axes that they vary over.
    later = jax.lax.scan(back, 0 * columns[0][0], columns, reverse=True)[1]
    return jnp.moveaxis(later, 0, -1)


def minillm_normalized_returns(token_rewards: Array, mask: Array, *, gamma: float = 1.0) -> Array:
    """`minillm_returns` over the number of tokens still to come: short completions are then no better than long ones.

    With gamma below 1 the number is discounted too, as the sum of gamma^(s - t - 1) over the tokens s > t.

    Args:
      token_rewards: log p_T - log p_S of each token. Held fixed.
      mask: bool, True on completion tokens.
      gamma: in [0, 1].

    Shapes: both `[..., T]`; result float32 `[..., T]`, 0 behind the mask and at the last token. No gradient passes.

    Raises:
      AssertionError: shapes differ, rewards not floating, mask not bool.
      ValueError: static gamma out of range.

    Paper: Gu et al., 2023, arXiv 2306.08543 (gamma = 1).
    """
    returns = minillm_returns(token_rewards, mask, gamma=gamma)
    still = _later(mask.astype(returns.dtype), mask, gamma)
    return returns / jnp.maximum(still, 1.0)


def _minillm(policy, behaviour, teacher, kls, mask, gamma, eps, returns_of) -> Array:
    checks.number("eps", eps, 0.0, closed="left")
    policy, behaviour, teacher, kls = checks.floats(
        policy_token_logps=policy, behaviour_token_logps=behaviour, teacher_token_logps=teacher, teacher_token_kls=kls
    )
    policy, behaviour, kls = keep(policy, mask), _stop(keep(behaviour, mask)), keep(kls, mask)
    gains = returns_of(_stop(keep(teacher, mask) - policy), mask, gamma=gamma)
    ratios = jnp.exp(jnp.clip(policy - behaviour, -_CAP, _CAP))
    # With `where`, for min and max share the gradient between equal branches.
    far = ((gains > 0) & (ratios > 1 + eps)) | ((gains < 0) & (ratios < 1 - eps))
    bound = jnp.where(gains > 0, 1 + eps, 1 - eps)
    return keep(-gains * jnp.where(far, bound, ratios) + _stop(ratios) * kls, mask)


def minillm(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    teacher_token_logps: Array,
    teacher_token_kls: Array,
    mask: Array,
    *,
    gamma: float = 1.0,
    eps: float = 0.2,
) -> Array:
    """Sequence-level KL(p_S || p_T) by policy gradient: -R_{t+1} clip(w_t) + w_t KL(p_S(.|s_t) || p_T(.|s_t)).

    R are `minillm_normalized_returns` of r_t = log p_T(y_t) - log p_S(y_t), held fixed: what the token leads to. What
    it is itself is the second part, exact instead of sampled. w_t = p_S / behaviour is the importance weight of the
    token, 1 for the student's own samples; for samples of the mixture of teacher and student
    (`experiments.engines:teacher_mixed`) it stands for that of the whole beginning, as in the paper. In the first part
    it carries the gradient, and is clipped as PPO's.

    Args:
      policy_token_logps: log p_S of each sampled token. Trained.
      behaviour_token_logps: the same under what sampled, the mixture. Held fixed.
      teacher_token_logps: log p_T of the same tokens. Held fixed.
      teacher_token_kls: KL(p_S || p_T) over the whole vocabulary. Trained.
      mask: bool, True on completion tokens.
      gamma: of the returns, in [0, 1]; the paper's is 1.
      eps: how far w_t may move in the direction that its return asks for, in [0, inf).

    Shapes: all `[..., T]`; result float32 `[..., T]`, 0 behind the mask. Reduction: `token_mean`.

    Raises:
      AssertionError: shapes differ, an array not floating, mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Gu et al., 2023, arXiv 2306.08543. The paper is followed; the authors' code leaves w_t out of the second part
    and whitens R; it and TRL's count the token's own reward twice (`minillm_returns`). The language-modelling term is a
    config's `sft`.
    """
    return _minillm(
        policy_token_logps, behaviour_token_logps, teacher_token_logps, teacher_token_kls, mask, gamma, eps,
        minillm_normalized_returns,
    )  # fmt: skip


def minillm_unnormalized(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    teacher_token_logps: Array,
    teacher_token_kls: Array,
    mask: Array,
    *,
    gamma: float = 1.0,
    eps: float = 0.2,
) -> Array:
    """`minillm` without length normalisation: the expected gradient is that of the sequence KL itself.

    Exactly so for the student's own samples, gamma = 1 and the reduction `sequence_sum`.

    Args:
      policy_token_logps: log p_S of each sampled token. Trained.
      behaviour_token_logps: the same under what sampled. Held fixed.
      teacher_token_logps: log p_T of the same tokens. Held fixed.
      teacher_token_kls: KL(p_S || p_T) over the whole vocabulary. Trained.
      mask: bool, True on completion tokens.
      gamma: of the returns, in [0, 1].
      eps: as of `minillm`.

    Shapes: all `[..., T]`; result float32 `[..., T]`, 0 behind the mask.

    Raises:
      AssertionError: shapes differ, an array not floating, mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Gu et al., 2023, arXiv 2306.08543, before its length normalisation.
    """
    return _minillm(
        policy_token_logps, behaviour_token_logps, teacher_token_logps, teacher_token_kls, mask, gamma, eps,
        minillm_returns,
    )  # fmt: skip


# --- teachers made of two models, and features ------------------------------------------------------------------------


def aligndistil(
    teacher_token_extrapolated_kls: Array,
    teacher_token_disagreements: Array,
    mask: Array,
    *,
    strength: float = 15.0,
    beta: float = 0.1,
) -> Array:
    """Alignment as distillation from an extrapolated teacher: (beta / alpha_t) KL(p_S || p*_t) at every token.

        alpha_t = strength * ||p_dpo - p_rev||_1 + 1e-3,   p*_t = softmax(z_dpo + alpha_t (z_dpo - z_rev))

    The teacher is a DPO model, `contrast` one trained on the swapped pairs. Per token this is RLHF with the reward
    beta (log p_dpo - log p_rev) and a KL to the DPO model weighted beta / alpha_t, up to a constant: loose where the
    two disagree, which is where the reward has something to say, and very tight (beta / 1e-3) where they agree.

    Args:
      teacher_token_extrapolated_kls: KL(p_S || p*_t), for this very strength. Trained (through the student).
      teacher_token_disagreements: the L1 distance of the two models' distributions. Held fixed.
      mask: bool, True on completion tokens.
      strength: in [0, inf); 15 on the student's own samples, 10 on given ones.
      beta: in (0, inf).

    Shapes: all `[..., T]`; result float32 `[..., T]`, in nats, 0 behind the mask. Reduction: `sequence_mean`, the
    authors' (without division by the length: `sequence_sum`).

    Raises:
      AssertionError: shapes differ, an array not floating, mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Zhang et al., 2025, arXiv 2503.02832; the authors' code has the 1e-3 and the L1 norm (the paper: the total
    variation, half of it), and is followed.
    """
    checks.number("strength", strength, 0.0, closed="left")
    checks.number("beta", beta, 0.0)
    kls, distances = checks.floats(
        teacher_token_extrapolated_kls=teacher_token_extrapolated_kls,
        teacher_token_disagreements=teacher_token_disagreements,
    )
    alpha = strength * _stop(keep(distances, mask)) + _FLOOR
    return beta / alpha * keep(kls, mask)


def specvlm_online_distill(
    teacher_token_forward_kls: Array,
    teacher_token_entropies: Array,
    token_features: Array,
    teacher_token_features: Array,
    mask: Array,
    *,
    ce_weight: float = 0.1,
    feature_weight: float = 1.0,
) -> Array:
    """A draft model learns the target's next-token distribution and its last hidden state, in the same step.

        ce_weight * CE(p_T, p_S) + feature_weight * mean over d of SmoothL1(f_S - f_T)

    SmoothL1(u) = u^2 / 2 for |u| < 1, else |u| - 1/2. The soft cross-entropy is KL(p_T || p_S) plus the teacher's
    entropy, a constant. The features are those of the token itself, from which the next one is predicted, so drafts and
    targets have one width.

    Args:
      teacher_token_forward_kls: KL(target || draft) over the whole vocabulary. Trained (through the draft).
      teacher_token_entropies: of the target. Held fixed.
      token_features: the draft's last hidden states. Trained.
      teacher_token_features: the target's. Held fixed.
      mask: bool, True on the tokens that count.
      ce_weight: in [0, inf).
      feature_weight: in [0, inf).

    Shapes: features `[..., T, D]`, all else `[..., T]`; result float32 `[..., T]`, 0 behind the mask. Reduction:
    `token_mean`.

    Raises:
      AssertionError: shapes do not agree, an array not floating, mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Huang et al., 2025, arXiv 2509.11815; its weights are not published, those of EAGLE stand here (Li et al.,
    2024, arXiv 2401.15077). The visual part is left out, and the draft reads tokens where EAGLE's also reads the
    target's feature of the token before.
    """
    checks.number("ce_weight", ce_weight, 0.0, closed="left")
    checks.number("feature_weight", feature_weight, 0.0, closed="left")
    kls, entropies = checks.floats(
        teacher_token_forward_kls=teacher_token_forward_kls, teacher_token_entropies=teacher_token_entropies
    )
    drafted, target = checks.floats(token_features=token_features, teacher_token_features=teacher_token_features)
    checks.leading_shape(teacher_token_forward_kls=kls, token_features=drafted)
    checks.boolean(mask=mask)
    checks.same_shape(teacher_token_forward_kls=kls, mask=mask)
    inside = jnp.broadcast_to(mask[..., None], drafted.shape)
    gap = keep(drafted, inside) - _stop(keep(target, inside))
    size = jnp.abs(gap)
    smooth = jnp.mean(jnp.where(size < 1, 0.5 * jnp.square(jnp.where(size < 1, gap, 0.0)), size - 0.5), axis=-1)
    cross_entropy = keep(kls, mask) + _stop(keep(entropies, mask))
    return ce_weight * cross_entropy + feature_weight * smooth
