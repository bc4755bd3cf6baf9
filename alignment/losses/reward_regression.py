"""Losses that fit reward heads to what single completions were rated: several ratings, quantiles, classes, targets."""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep

Array = jax.Array


def _rated(head_rewards: Array, ratings: Array, rated: Array, heads_per_rating: int) -> tuple[Array, Array]:
    """(heads [..., K, heads_per_rating], ratings [..., K]), both 0 where there is no rating."""
    (heads,) = checks.floats(head_rewards=head_rewards)
    (ratings,) = checks.floats(ratings=ratings)
    checks.boolean(rated=rated)
    checks.same_shape(ratings=ratings, rated=rated)
    if ratings.ndim < 1 or heads.shape != (*ratings.shape[:-1], ratings.shape[-1] * heads_per_rating):
        raise AssertionError(
            f"head_rewards must have {heads_per_rating} head(s) for each rating of shape {ratings.shape}, got shape "
            f"{heads.shape}"
        )
    heads = heads.reshape(*ratings.shape, heads_per_rating)
    return jnp.where(rated[..., None], heads, 0.0), jax.lax.stop_gradient(keep(ratings, rated))


def multi_label_reward_regression(head_rewards: Array, ratings: Array, rated: Array) -> Array:
    """(r_k - y_k)^2 of every rating that is there: one head per attribute.

    With the reduction `token_mean` the loss is the mean over the ratings present in the batch, as in the paper, and not
    over examples; `rated` is the mask. The weighted sum of the heads is the reward (`alignment.rewards.combining`).

    Args:
      head_rewards: r, one head per attribute. Trained.
      ratings: y. Held fixed. Ratings on different scales should be brought to one range first.
      rated: bool, False where the rating is missing; neither value nor gradient comes from there.

    Shapes: all `[..., K]`; result float32 `[..., K]`.

    Raises:
      AssertionError: shapes differ or a dtype is wrong.

    Paper: Li et al., 2025, arXiv 2503.21819; stage 1 of Wang et al., 2024 (ArmoRM), arXiv 2406.12845, is the same loss
    on frozen features, solved in closed form (`alignment.rewards.armo.ridge`).
    """
    heads, ratings = _rated(head_rewards, ratings, rated, 1)
    return jnp.square(heads[..., 0] - ratings)


def quantile_rm(head_rewards: Array, ratings: Array, rated: Array, *, num_quantiles: int = 19) -> Array:
    """Pinball loss: Q heads per attribute learn the quantiles of its rating.

        tau_i = i / (Q + 1),  u_i = y - q_i,  loss = (1/Q) sum_i (tau_i - 1[u_i < 0]) u_i

    The slope is piecewise constant whatever the scale of y: bring ratings to a range of about one. Quantiles may cross;
    `alignment.rewards.combining.quantile_mean` and `lower_quantile_mean` sort them.

    Args:
      head_rewards: q; the Q quantiles of the first attribute, then those of the second, ... Trained.
      ratings: y. Held fixed.
      rated: bool, False where the rating is missing. It is the mask of the reduction.
      num_quantiles: Q, at least 1.

    Shapes: `head_rewards` `[..., K * Q]`, the others `[..., K]`; result float32 `[..., K]`.

    Raises:
      AssertionError: shapes do not go together or a dtype is wrong.
      ValueError: num_quantiles is no whole number of at least 1.

    Paper: Dorka, 2024 (QRM), arXiv 2409.10164; the levels are those of RewardBench's `qrm.py`.
    """
    checks.positive_integer("num_quantiles", num_quantiles)
    quantiles, ratings = _rated(head_rewards, ratings, rated, num_quantiles)
    levels = jnp.arange(1, num_quantiles + 1, dtype=quantiles.dtype) / (num_quantiles + 1)
    behind = ratings[..., None] - quantiles
    return jnp.mean((levels - (behind < 0)) * behind, axis=-1)


def _gaussians(head_rewards: Array, rewards: Array) -> tuple[Array, Array, Array]:
    """(means [..., K], what the deviations are the softplus of [..., K], target [..., 1])."""
    (heads,) = checks.floats(head_rewards=head_rewards)
    (rewards,) = checks.floats(rewards=rewards)
    checks.leading_shape(rewards=rewards, head_rewards=heads)
    if heads.shape[-1] % 2:
        raise AssertionError(f"head_rewards must have an even number of heads, got shape {heads.shape}")
    means, raw = jnp.split(heads, 2, axis=-1)
    return means, raw, jax.lax.stop_gradient(rewards)[..., None]


def brme_loss(head_rewards: Array, rewards: Array, random_bits: Array) -> Array:
    """Stage 2 of a Bayesian reward ensemble: draws of K Gaussian heads are regressed on a stage-1 reward.

        loss = (1/K) sum_k (mu_k + sigma_k * e_k - r0)^2,  sigma_k = softplus(s_k),  e_k ~ N(0, 1)

    Its mean over the noise is mean_k [(mu_k - r0)^2 + sigma_k^2], so in the end sigma goes to 0: stop early, or take
    `brme_nll`, whose sigma is the residual's.

    Args:
      head_rewards: mu_1 .. mu_K, then s_1 .. s_K. Trained.
      rewards: r0, the reward of the stage-1 model. Held fixed.
      random_bits: i32, new for every example and step; the noise follows from it.

    Shapes: `head_rewards` `[B, 2K]`, `rewards` and `random_bits` `[B]`; result float32 `[B]`.

    Raises:
      AssertionError: shapes do not go together or a dtype is wrong.

    Paper: Yan et al., 2024 (Reward-Robust RLHF), arXiv 2409.15360. No code is published.
    """
    means, raw, target = _gaussians(head_rewards, rewards)
    checks.integers(random_bits=random_bits)
    checks.same_shape(rewards=rewards, random_bits=random_bits)
    draw = jax.vmap(lambda bits: jax.random.normal(jax.random.key(bits), means.shape[-1:], means.dtype))
    noise = draw(random_bits.reshape(-1)).reshape(means.shape)
    return jnp.mean(jnp.square(means + jax.nn.softplus(raw) * noise - target), axis=-1)


def brme_nll(head_rewards: Array, rewards: Array, *, min_std: float = 1e-3) -> Array:
    """The well-posed form of `brme_loss`: log sigma_k + (r0 - mu_k)^2 / (2 sigma_k^2), averaged over the K heads.

    It is the Gaussian negative log-likelihood without its constant, in nats; sigma_k = min_std + softplus(s_k).

    Args:
      head_rewards: mu_1 .. mu_K, then s_1 .. s_K. Trained.
      rewards: r0, the reward of the stage-1 model. Held fixed.
      min_std: floor of sigma, in (0, inf).

    Shapes: `head_rewards` `[..., 2K]`, `rewards` `[...]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes do not go together or a dtype is wrong.
      ValueError: static min_std out of range.

    Paper: an alternative to the loss of Yan et al., 2024, arXiv 2409.15360; the likelihood is standard practice.
    """
    means, raw, target = _gaussians(head_rewards, rewards)
    checks.number("min_std", min_std, 0.0)
    deviations = min_std + jax.nn.softplus(raw)
    return jnp.mean(jnp.log(deviations) + jnp.square((target - means) / deviations) / 2, axis=-1)


def classifier_reward_loss(head_rewards: Array, desirable: Array) -> Array:
    """Cross-entropy of a two-class head: is the completion a wanted one? -log softmax(z)[1 if desirable else 0].

    p(desirable) of the trained head, its logarithm or its log-odds is the reward (`alignment.rewards.combining`). Also
    the prefix classifier of process rewards where no outcome can be verified (Shen et al., 2025, arXiv 2510.01167): a
    prefix of a conversation is then the completion.

    Args:
      head_rewards: (z_0, z_1), logits of unwanted and wanted. Trained.
      desirable: bool.

    Shapes: `head_rewards` `[..., 2]`, `desirable` `[...]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not go together or a dtype is wrong.

    Paper: Rahman et al., 2024 (Health Text Simplification), arXiv 2401.15043.
    """
    (logits,) = checks.floats(head_rewards=head_rewards)
    checks.boolean(desirable=desirable)
    checks.leading_shape(desirable=desirable, head_rewards=logits)
    if logits.shape[-1] != 2:
        raise AssertionError(f"head_rewards must have two heads, got shape {logits.shape}")
    odds = logits[..., 1] - logits[..., 0]
    return jax.nn.softplus(jnp.where(desirable, -odds, odds))
