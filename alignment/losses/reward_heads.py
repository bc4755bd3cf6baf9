"""Losses that train several heads on one trunk from preferences: ensembles, length apart from quality, embeddings."""

from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses import links

Array = jax.Array


def _pair(chosen_head_rewards: Array, rejected_head_rewards: Array) -> list[Array]:
    heads = checks.floats(chosen_head_rewards=chosen_head_rewards, rejected_head_rewards=rejected_head_rewards)
    if heads[0].ndim < 1:
        raise AssertionError("chosen_head_rewards must have an axis of heads, got a scalar")
    return heads


def bt_reward_heads_loss(
    chosen_head_rewards: Array,
    rejected_head_rewards: Array,
    ids: Array,
    *,
    share: float = 1.0,
    seed: int = 0,
) -> Array:
    """Bradley-Terry for every head of an ensemble, each on its own part of the data.

        loss = (1/K) sum_k 1[pair is in head k's part] / share * -log s(r_k(y_w) - r_k(y_l))

    Which pairs a head sees follows from the pair's number, the head and `seed`, so it is the same in every epoch. At
    share = 1 the heads differ by their first weights alone, and on a shared trunk they come to agree: the paper's
    members are whole models of different seeds, which a run gets by naming several checkpoints.

    Args:
      chosen_head_rewards, rejected_head_rewards: K rewards of each side. Trained.
      ids: i32, number of the pair in the data set.
      share: of the pairs that a head sees, in (0, 1].
      seed: of the parts.

    Shapes: heads `[B, K]`, ids `[B]`; result float32 `[B]`.

    Raises:
      AssertionError: shapes do not go together or a dtype is wrong.
      ValueError: static share out of range.

    Paper: Coste et al., 2023, arXiv 2310.02743, for the ensemble; heads on one trunk are common practice.
    """
    chosen, rejected = _pair(chosen_head_rewards, rejected_head_rewards)
    checks.integers(ids=ids)
    checks.leading_shape(ids=ids, chosen_head_rewards=chosen)
    checks.number("share", share, 0.0, 1.0, closed="right")
    key = jax.random.key(seed)
    # float32 whatever the precision of the run: which heads see a pair must not depend on it.
    draw = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), chosen.shape[-1:], jnp.float32))
    seen = draw(ids.reshape(-1)).reshape(chosen.shape) < share
    return jnp.mean(jnp.where(seen, links.logistic(chosen - rejected), 0.0) / share, axis=-1)


def _pearson(x: Array, y: Array, valid: Array, axis_name: Any) -> Array:
    """Correlation over the last axis of all valid entries (and over the shards); 0 where one of the two is constant."""

    def total(values):
        summed = jnp.sum(jnp.where(valid, values, 0.0), axis=-1)
        return summed if axis_name is None else jax.lax.psum(summed, axis_name)

    count = jnp.maximum(total(jnp.ones_like(x)), 1.0)
    x, y = x - total(x)[..., None] / count[..., None], y - total(y)[..., None] / count[..., None]
    spread = total(x * x) * total(y * y)
    alive = spread > 0
    return jnp.where(alive, total(x * y) / jnp.sqrt(jnp.where(alive, spread, 1.0)), 0.0)


def length_disentangled_rm(
    chosen_head_rewards: Array,
    rejected_head_rewards: Array,
    chosen_lengths: Array,
    rejected_lengths: Array,
    head_weights: Array,
    valid: Array,
    *,
    length_weight: float = 1.0,
    orthogonality_weight: float = 1.0,
    axis_name: Any = None,
) -> Array:
    """ODIN: of two heads the first is made to follow length, the second to ignore it; their sum ranks the pairs.

        rank_b = -log s((l_w + q_w) - (l_l + q_l))
        corr   = (1 - rho(l, length)) + |rho(q, length)|       rho: Pearson over all 2B responses of the batch
        loss_b = rank_b + length_weight * corr + orthogonality_weight * |cos(w_l, w_q)|

    Head 1, the quality, is the reward for reinforcement learning. The last two terms belong to the batch and stand in
    every example's value, so that the mean has them once. A correlation with something constant is taken as 0.

    Args:
      chosen_head_rewards, rejected_head_rewards: (length head, quality head) of each side. Trained.
      chosen_lengths, rejected_lengths: i32 tokens of the completions.
      head_weights: the heads' weight rows. Trained.
      valid: bool, False for rows that only pad the batch.
      length_weight, orthogonality_weight: in [0, inf).
      axis_name: mapped axis (or axes) over which the batch is split, if any.

    Shapes: heads `[B, 2]`, lengths and valid `[B]`, head_weights `[2, D]`; result float32 `[B]`.

    Raises:
      AssertionError: shapes do not go together or a dtype is wrong.
      ValueError: a static hyperparameter out of range.

    Paper: Chen et al., 2024 (ODIN), arXiv 2402.07319. The public `gemma_two_head.py` sums the rewards over the batch
    before the sigmoid and leaves the orthogonality out; here heads are summed per pair, as in the paper.
    """
    chosen, rejected = _pair(chosen_head_rewards, rejected_head_rewards)
    checks.integers(chosen_lengths=chosen_lengths, rejected_lengths=rejected_lengths)
    checks.boolean(valid=valid)
    checks.same_shape(valid=valid, chosen_lengths=chosen_lengths, rejected_lengths=rejected_lengths)
    (weights,) = checks.floats(head_weights=head_weights)
    if chosen.shape != (*valid.shape, 2) or valid.ndim != 1 or weights.ndim != 2 or weights.shape[0] != 2:
        raise AssertionError(
            f"two heads are needed: chosen_head_rewards [B, 2] and head_weights [2, D] with valid [B], got "
            f"{chosen.shape}, {weights.shape} and {valid.shape}"
        )
    checks.number("length_weight", length_weight, 0.0, closed="left")
    checks.number("orthogonality_weight", orthogonality_weight, 0.0, closed="left")
    chosen, rejected = (jnp.where(valid[:, None], x, 0.0) for x in (chosen, rejected))
    rank = links.logistic(chosen.sum(axis=-1) - rejected.sum(axis=-1))
    heads = jnp.concatenate([chosen, rejected]).T
    lengths = jnp.concatenate([chosen_lengths, rejected_lengths]).astype(heads.dtype)
    rho = _pearson(heads, jnp.broadcast_to(lengths, heads.shape), jnp.tile(valid, 2), axis_name)
    correlation = (1 - rho[0]) + jnp.abs(rho[1])
    norms = jnp.sum(weights * weights, axis=-1)
    alive = norms.prod() > 0
    cosine = jnp.where(alive, jnp.sum(weights[0] * weights[1]) / jnp.sqrt(jnp.where(alive, norms.prod(), 1.0)), 0.0)
    return rank + length_weight * correlation + orthogonality_weight * jnp.abs(cosine)


def _preference_score(first: Array, second: Array) -> Array:
    """a d - b c of every block: first = (a_1, b_1, ...), second = (c_1, d_1, ...). `[..., 2k]` to `[..., k]`."""
    a, b, c, d = first[..., 0::2], first[..., 1::2], second[..., 0::2], second[..., 1::2]
    return a * d - b * c


def general_preference_model(
    chosen_head_rewards: Array, rejected_head_rewards: Array, *, temperature: float = 0.1, target_gap: float = 0.0
) -> Array:
    """Preferences by a skew-symmetric form of embeddings, which can be cyclic, as no difference of rewards can.

        s(y1 > y2) = sum_l (a_l d_l - b_l c_l),  v(y1) = (a_1, b_1, ...), v(y2) = (c_1, d_1, ...)
        loss = -log s((s(y_w > y_l) - target_gap) / temperature)

    The heads' outputs are the embedding, an even number of them. Embeddings (r, 1) give Bradley-Terry. The score grows
    with the product of the norms: keep the learning rate low.

    Args:
      chosen_head_rewards, rejected_head_rewards: embeddings of both sides. Trained.
      temperature: in (0, inf).
      target_gap: in [0, inf), in units of the score.

    Shapes: both `[..., 2k]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ, an odd number of heads, or not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Zhang et al., 2024, arXiv 2410.02197; the public `loss.py` agrees.
    """
    chosen, rejected = _even(*_pair(chosen_head_rewards, rejected_head_rewards))
    checks.number("temperature", temperature, 0.0)
    checks.number("target_gap", target_gap, 0.0, closed="left")
    return links.logistic((_preference_score(chosen, rejected).sum(axis=-1) - target_gap) / temperature)


def general_preference_model_scaled(
    chosen_head_rewards: Array,
    rejected_head_rewards: Array,
    prompt_head_rewards: Array,
    *,
    temperature: float = 0.1,
    target_gap: float = 0.0,
    gate_temperature: float = 1.0,
) -> Array:
    """`general_preference_model` whose blocks are weighed by the prompt: s = sum_l lambda_l(x) (a_l d_l - b_l c_l).

        lambda(x) = k * softmax(g(x) / gate_temperature)

    Of 3k heads the first 2k are the embedding, read at the end of each completion, and the last k the gate g, read at
    the prompt's last token. Equal gates give `general_preference_model`.

    Args:
      chosen_head_rewards, rejected_head_rewards: all heads at the end of both sides. Trained.
      prompt_head_rewards: all heads at the end of the prompt. Trained.
      temperature: in (0, inf).
      target_gap: in [0, inf).
      gate_temperature: in (0, inf); the paper divides by the square root of the hidden size.

    Shapes: all `[..., 3k]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ, a number of heads that three does not divide, or not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Zhang et al., 2024, arXiv 2410.02197.
    """
    chosen, rejected, prompt = checks.floats(
        chosen_head_rewards=chosen_head_rewards,
        rejected_head_rewards=rejected_head_rewards,
        prompt_head_rewards=prompt_head_rewards,
    )
    if chosen.ndim < 1 or chosen.shape[-1] % 3:
        raise AssertionError(f"chosen_head_rewards must have 3k heads, got shape {chosen.shape}")
    checks.number("temperature", temperature, 0.0)
    checks.number("target_gap", target_gap, 0.0, closed="left")
    checks.number("gate_temperature", gate_temperature, 0.0)
    blocks = chosen.shape[-1] // 3
    scales = blocks * jax.nn.softmax(prompt[..., 2 * blocks :] / gate_temperature, axis=-1)
    scores = _preference_score(chosen[..., : 2 * blocks], rejected[..., : 2 * blocks])
    return links.logistic((jnp.sum(scales * scores, axis=-1) - target_gap) / temperature)


def _even(chosen: Array, rejected: Array) -> tuple[Array, Array]:
    if chosen.shape[-1] % 2:
        raise AssertionError(f"chosen_head_rewards must have an even number of heads, got shape {chosen.shape}")
    return chosen, rejected


def armo_gate_loss(
    chosen_head_rewards: Array,
    rejected_head_rewards: Array,
    prompt_head_rewards: Array,
    *,
    temperature: float = 10.0,
    scale: float = 1.0,
) -> Array:
    """ArmoRM's second stage: a gate that reads the prompt learns how to mix K attributes into one reward.

        R = scale * sum_k softmax(g(x) / temperature)_k r_k(x, y),  loss = -log s(R(y_w) - R(y_l))

    Of 2K heads the first K are the attributes, read at the end of each completion, and held fixed; the last K are the
    gate's logits, read at the prompt's last token. The gate here is linear in the prompt's state, where the paper has
    three hidden layers (`alignment.rewards.armo` has those, for features that are given).

    Args:
      chosen_head_rewards, rejected_head_rewards: all heads at the end of both sides. Held fixed.
      prompt_head_rewards: all heads at the end of the prompt. Trained.
      temperature: of the gate, in (0, inf); 10 keeps it nearly uniform at first.
      scale: of the reward, in (0, inf); the paper learns it.

    Shapes: all `[..., 2K]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ, an odd number of heads, or not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Wang et al., 2024 (ArmoRM), arXiv 2406.12845.
    """
    chosen, rejected, prompt = checks.floats(
        chosen_head_rewards=chosen_head_rewards,
        rejected_head_rewards=rejected_head_rewards,
        prompt_head_rewards=prompt_head_rewards,
    )
    if chosen.ndim < 1:
        raise AssertionError("chosen_head_rewards must have an axis of heads, got a scalar")
    _even(chosen, rejected)
    checks.number("temperature", temperature, 0.0)
    checks.number("scale", scale, 0.0)
    attributes = chosen.shape[-1] // 2
    gate = jax.nn.softmax(prompt[..., attributes:] / temperature, axis=-1)
    gaps = jax.lax.stop_gradient(chosen - rejected)[..., :attributes]
    return links.logistic(scale * jnp.sum(gate * gaps, axis=-1))
