"""Reward losses for pairs whose labels may be wrong: what a committee of reward models thinks of each is known."""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses import links

Array = jax.Array


def _flipped(chosen_rewards, rejected_rewards, strength_means, threshold) -> tuple[Array, Array]:
    """(gap of the rewards, mean vote), both of the pair as it is taken to be."""
    chosen_rewards, rejected_rewards, strength_means = checks.floats(
        chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards, strength_means=strength_means
    )
    votes = jax.lax.stop_gradient(strength_means)
    sign = jnp.where(votes < threshold, -1.0, 1.0)
    return sign * (chosen_rewards - rejected_rewards), sign * votes


def denoised_bt_loss(
    chosen_rewards: Array,
    rejected_rewards: Array,
    strength_means: Array,
    *,
    threshold: float = 0.0,
    label_smoothing: float = 0.1,
) -> Array:
    """Bradley-Terry on pairs that are turned round where the committee disagrees with the label, with soft labels.

        d = r_w - r_l, or r_l - r_w where mu < threshold;  loss = -(1 - e) log s(d) - e log s(-d)

    mu is the committee's mean gap (`alignment.rewards.ensembles.preference_strength`). threshold = -inf turns nothing
    round, inf everything.

    Args:
      chosen_rewards, rejected_rewards: r_w and r_l. Trained.
      strength_means: mu, positive where the committee agrees with the label. Held fixed.
      threshold: any number; 0 turns round whatever the committee votes against. The paper takes the quantile of mu
        below which 10 % of the data lie: a run with `config.voters` prints the quantiles.
      label_smoothing: e in [0, 1/2).

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Wang et al., 2024 (Secrets of RLHF Part II), arXiv 2401.06080. Its training code is not published.
    """
    gaps, _ = _flipped(chosen_rewards, rejected_rewards, strength_means, threshold)
    checks.number("threshold", threshold, -float("inf"), closed="both")
    checks.number("label_smoothing", label_smoothing, 0.0, 0.5, closed="left")
    return links.logistic(gaps, label_smoothing)


def denoised_bt_margin_loss(
    chosen_rewards: Array,
    rejected_rewards: Array,
    strength_means: Array,
    *,
    threshold: float = 0.0,
    label_smoothing: float = 0.1,
) -> Array:
    """`denoised_bt_loss` that also asks for as large a gap as the committee sees: d - max(0, mu), mu after the turn.

    A pair that the committee votes against but that was not turned round (threshold < mu < 0) gets no margin: a
    negative one would ask for the wrong order.

    Args:
      chosen_rewards, rejected_rewards: r_w and r_l. Trained.
      strength_means: mu, in the committee's units of reward. Held fixed.
      threshold: pairs with mu below it are turned round; any number.
      label_smoothing: e in [0, 1/2).

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Wang et al., 2024 (Secrets of RLHF Part II), arXiv 2401.06080.
    """
    gaps, votes = _flipped(chosen_rewards, rejected_rewards, strength_means, threshold)
    checks.number("threshold", threshold, -float("inf"), closed="both")
    checks.number("label_smoothing", label_smoothing, 0.0, 0.5, closed="left")
    return links.logistic(gaps - jnp.maximum(votes, 0.0), label_smoothing)


def meta_rm_separation(samples_rewards: Array, samples_mask: Array) -> Array:
    """How far a reward model keeps apart samples that nobody has labelled: what MetaRM's inner step ascends.

        J = (2 / k^2) sum_{i<j} s(|r_i - r_j|)

    Between (k - 1) / (2 k), all rewards equal, and (k - 1) / k. It does not know which sample is better. The slope of
    |.| at a tie is taken as 0, so a head that starts at zero never moves: draw it.

    Args:
      samples_rewards: r of the k completions sampled for a prompt. Trained.
      samples_mask: bool per token; a sample without tokens is not there and does not count in k.

    Shapes: `samples_rewards` `[..., K]`, `samples_mask` `[..., K, T]`; result float32 `[...]`; 0 where k = 0.

    Raises:
      AssertionError: shapes do not go together, rewards not floating or mask not bool.

    Paper: Wang et al., 2024 (Secrets of RLHF Part II), arXiv 2401.06080; Dou et al., 2024 (MetaRM), arXiv 2405.00438.
    """
    (rewards,) = checks.floats(samples_rewards=samples_rewards)
    checks.boolean(samples_mask=samples_mask)
    checks.leading_shape(samples_rewards=rewards, samples_mask=samples_mask)
    there = samples_mask.any(axis=-1)
    rewards = jnp.where(there, rewards, 0.0)
    both = there[..., :, None] & there[..., None, :] & ~jnp.eye(there.shape[-1], dtype=bool)
    apart = jax.nn.sigmoid(jnp.abs(rewards[..., :, None] - rewards[..., None, :]))
    count = jnp.maximum(there.sum(axis=-1), 1).astype(rewards.dtype)
    return jnp.sum(jnp.where(both, apart, 0.0), axis=(-2, -1)) / jnp.square(count)  # every pair stands there twice
