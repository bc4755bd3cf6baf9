"""Losses that make a model forget some sequences (side `forget`) while it keeps others (side `retain`).

A method of the literature is a forget term and a retain term, each with a weight: two entries of an objective, since
the two have denominators of their own. Every forget term goes with every retain term (`sft` on the side `retain`,
`kl_retain`, or none). d = log pi(y|x) - log ref(y|x), a *sum* over the tokens of the completion, in nats; the
reference is the model before it forgets.
"""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep

Array = jax.Array


def grad_ascent(policy_forget_token_logps: Array, forget_mask: Array) -> Array:
    """Gradient ascent on the negative log-likelihood: log pi(y_t | x, y_<t) of every token to forget.

    Minus `sft`, so it has no lower bound: what it destroys beside the forgotten is seen on the retain set only, and it
    must be stopped. Its gradient vanishes on tokens whose probability is 1 and is largest where they are forgotten.

    Args:
      policy_forget_token_logps: log-probs of the tokens to forget. Trained.
      forget_mask: True where a token counts.

    Shapes: both `[..., T]`; result float32 `[..., T]`, in nats, for `token_mean`.

    Raises:
      AssertionError: shapes differ, log-probs not floating, or mask not bool.

    Paper: Maini et al., 2024 (TOFU), arXiv 2401.06121.
    """
    (logps,) = checks.floats(policy_forget_token_logps=policy_forget_token_logps)
    return keep(logps, forget_mask)


def kl_retain(policy_retain_token_forward_kls: Array, retain_mask: Array) -> Array:
    """KL(ref || pi) of the next token at every place of what is to be kept: a retain term that compares distributions.

    The gradient with respect to the policy's logits is p - p_ref, none passes through the reference.

    Args:
      policy_retain_token_forward_kls: sum_v ref(v) log(ref(v) / pi(v)), at least 0 but for rounding. Trained.
      retain_mask: True where a token counts.

    Shapes: both `[..., T]`; result float32 `[..., T]`, in nats, for `token_mean`.

    Raises:
      AssertionError: shapes differ, divergences not floating, or mask not bool.

    Paper: Maini et al., 2024 (TOFU), arXiv 2401.06121. Published code (TOFU, ULD) averages over prompt and padding as
      well; here over the completion's tokens.
    """
    (kls,) = checks.floats(policy_retain_token_forward_kls=policy_retain_token_forward_kls)
    return keep(kls, retain_mask)


def npo(policy_forget_logps: Array, reference_forget_logps: Array, *, beta: float = 0.1) -> Array:
    """Negative preference optimisation: -(2 / beta) log s(-beta d), DPO with nothing but a losing completion.

    At least 0. The gradient with respect to log pi is 2 s(beta d): that of gradient ascent on whole sequences where
    policy and reference agree, and fading as the completion becomes unlikely, so that the policy comes away from the
    reference with the logarithm of the steps rather than in proportion to them. beta -> 0 is gradient ascent.

    Args:
      policy_forget_logps: summed log-probs of the completions to forget. Trained.
      reference_forget_logps: the same under the reference. No gradient.
      beta: inverse temperature, in (0, inf). The factor 2 / beta keeps learning rates comparable.

    Shapes: `[...]`, usually `[B]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or log-probs not floating.
      ValueError: a static beta out of range.

    Paper: Zhang et al., 2024, arXiv 2404.05868, and its code. Later repositories take means over the tokens, or
      differences of raw logits; this is the paper's sum.
    """
    checks.number("beta", beta, 0.0)
    policy, reference = checks.floats(
        policy_forget_logps=policy_forget_logps, reference_forget_logps=reference_forget_logps
    )
    return 2 / beta * jax.nn.softplus(beta * (policy - jax.lax.stop_gradient(reference)))


def simnpo(policy_forget_logps: Array, forget_lengths: Array, *, beta: float = 2.5, gamma: float = 0.0) -> Array:
    """NPO without a reference: -(2 / beta) log s(beta n - gamma), n = -log pi(y|x) / |y| the mean loss of a token.

    A short completion is forgotten as fast as a long one, which `npo`'s sum does not do.

    Args:
      policy_forget_logps: summed log-probs of the completions to forget. Trained.
      forget_lengths: |y|, how many tokens each sums over; below 1 counts as 1.
      beta: in (0, inf); 2.5 for TOFU, 0.1 to 4.5 elsewhere.
      gamma: margin in nats, in [0, inf); 0 in all published runs.

    Shapes: `[...]`, lengths integer; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ, log-probs not floating, or lengths not integers.
      ValueError: a static hyperparameter out of range.

    Paper: Fan et al., 2024, arXiv 2410.07163. The code subtracts its offset inside: gamma here is beta times that one.
    """
    checks.number("beta", beta, 0.0)
    checks.number("gamma", gamma, 0.0, closed="left")
    (logps,) = checks.floats(policy_forget_logps=policy_forget_logps)
    checks.same_shape(policy_forget_logps=logps, forget_lengths=forget_lengths)
    checks.integers(forget_lengths=forget_lengths)
    return 2 / beta * jax.nn.softplus(gamma + beta * logps / jnp.maximum(forget_lengths, 1))


def dpo_unlearn(
    policy_chosen_logps: Array,
    policy_forget_logps: Array,
    reference_chosen_logps: Array,
    reference_forget_logps: Array,
    *,
    beta: float = 0.1,
) -> Array:
    """-(2 / beta) log s(beta (d_chosen - d_forget)): DPO of another answer ("I do not know") over the memorised one.

    2 / beta times the loss of `dpo`; `npo` where the other answer stays as likely as it was. A model so trained tends
    to refuse everywhere: look at what it says to the prompts it should still answer.

    Args:
      policy_chosen_logps, policy_forget_logps: summed log-probs of the other answer and of the memorised one. Trained.
      reference_chosen_logps, reference_forget_logps: the same under the reference. No gradient.
      beta: in (0, inf).

    Shapes: `[...]`, usually `[B]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or log-probs not floating.
      ValueError: a static beta out of range.

    Paper: Maini et al., 2024 (TOFU), arXiv 2401.06121; the factor as in its code and in Zhang et al., 2024.
    """
    checks.number("beta", beta, 0.0)
    chosen, forget, *reference = checks.floats(
        policy_chosen_logps=policy_chosen_logps,
        policy_forget_logps=policy_forget_logps,
        reference_chosen_logps=reference_chosen_logps,
        reference_forget_logps=reference_forget_logps,
    )
    # Differences before the sum: far from the reference the four numbers are large and close to each other.
    ratio = (chosen - jax.lax.stop_gradient(reference[0])) - (forget - jax.lax.stop_gradient(reference[1]))
    return 2 / beta * jax.nn.softplus(-beta * ratio)


def uniform_retain(policy_retain_token_uniform_kls: Array, retain_mask: Array) -> Array:
    """KL(uniform || pi) of the next token: what an assistant is to say of all that it should not remember.

    The other half of ULD, which turns unlearning round: an assistant learns the documents to forget (`sft` on the side
    `forget`) and to be uniform on the rest, and its logits are then taken from those of the model
    (`alignment.decoding`, uld). The gradient with respect to the logits is p - 1/V. The cross-entropy to the uniform
    distribution, as the paper writes it, is log V more.

    Args:
      policy_retain_token_uniform_kls: -log V - (1/V) sum_v log pi(v), at least 0 but for rounding. Trained.
      retain_mask: True where a token counts.

    Shapes: both `[..., T]`; result float32 `[..., T]`, in nats, for `token_mean`.

    Raises:
      AssertionError: shapes differ, divergences not floating, or mask not bool.

    Paper: Ji et al., 2024, arXiv 2406.08607. The published code averages over prompt and padding too; here over the
    completion's tokens.
    """
    (kls,) = checks.floats(policy_retain_token_uniform_kls=policy_retain_token_uniform_kls)
    return keep(kls, retain_mask)


def _squared_distance(features: Array, target: Array, mask: Array) -> Array:
    """Mean over the width of the squared difference; 0 behind the mask, where neither array is looked at."""
    counts = jnp.broadcast_to(mask[..., None], features.shape)
    return jnp.mean((keep(features, counts) - keep(target, counts)) ** 2, axis=-1)


def rmu_forget(forget_token_features: Array, forget_mask: Array, *, coefficient: float = 6.5, seed: int = 0) -> Array:
    """|h - c u|^2 / d: the hidden states of what is to be forgotten are steered towards one random direction.

    u = r / |r| with r uniform in [0, 1)^d, drawn once from the seed: no entry of it is negative. What comes after the
    layer no longer knows what to make of such states; the model writes gibberish there, rather than a refusal.

    Args:
      forget_token_features: h, hidden states of an inner layer at the tokens to forget (`config.training.
        features_layer`). Trained; the paper moves the MLPs' output matrices of three layers alone.
      forget_mask: True where a token counts.
      coefficient: c, the length of the target, in (0, inf); 6.5 for a model of 7B, 2 to 20 elsewhere.
      seed: of the direction, a whole number.

    Shapes: features `[..., T, D]`, mask `[..., T]`; result float32 `[..., T]`, for `token_mean`.

    Raises:
      AssertionError: shapes do not go together, features not floating, or mask not bool.
      ValueError: a static coefficient out of range.

    Paper: Li et al., 2024 (WMDP, RMU), arXiv 2403.03218. A later re-implementation divides a sum per row by every
    row's count; this is the masked mean.
    """
    checks.number("coefficient", coefficient, 0.0)
    (features,) = checks.floats(forget_token_features=forget_token_features)
    checks.boolean(forget_mask=forget_mask)
    checks.leading_shape(forget_mask=forget_mask, forget_token_features=features)
    # Drawn in float32 whatever the features are: another type would be another direction.
    direction = jax.random.uniform(jax.random.key(seed), features.shape[-1:], jnp.float32)
    target = coefficient * direction / jnp.linalg.norm(direction)
    return _squared_distance(features, jnp.broadcast_to(target, features.shape), forget_mask)


def rmu_retain(retain_token_features: Array, reference_retain_token_features: Array, retain_mask: Array) -> Array:
    """|h - h_ref|^2 / d: the hidden states of what is to be kept stay where they were.

    RMU's other half, with a large weight (1200 for a model of 7B).

    Args:
      retain_token_features: hidden states of the layer of `rmu_forget` at the tokens to keep. Trained.
      reference_retain_token_features: the same of the reference. No gradient.
      retain_mask: True where a token counts.

    Shapes: features `[..., T, D]`, mask `[..., T]`; result float32 `[..., T]`, for `token_mean`.

    Raises:
      AssertionError: shapes do not go together, features not floating, or mask not bool.

    Paper: Li et al., 2024 (WMDP, RMU), arXiv 2403.03218.
    """
    features, reference = checks.floats(
        retain_token_features=retain_token_features, reference_retain_token_features=reference_retain_token_features
    )
    checks.boolean(retain_mask=retain_mask)
    checks.leading_shape(retain_mask=retain_mask, retain_token_features=features)
    return _squared_distance(features, jax.lax.stop_gradient(reference), retain_mask)
