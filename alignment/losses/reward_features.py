"""Auxiliary losses on the hidden states of a reward model: contrast between two views, and towards goal states."""

from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks

Array = jax.Array


def _unit(rows: Array) -> Array:
    """Rows over their lengths; a row of zeros stays one."""
    squares = jnp.sum(rows * rows, axis=-1, keepdims=True)
    return rows * jax.lax.rsqrt(jnp.where(squares > 0, squares, 1.0))


def _views(chosen_features, rejected_features, chosen_second_features, rejected_second_features, valid) -> list[Array]:
    """The four arrays [B, D] as float32, 0 in rows that only pad."""
    views = checks.floats(
        chosen_features=chosen_features,
        rejected_features=rejected_features,
        chosen_second_features=chosen_second_features,
        rejected_second_features=rejected_second_features,
    )
    checks.boolean(valid=valid)
    if valid.ndim != 1:
        raise AssertionError(f"valid must have shape ('B',), the whole batch on one axis, got {valid.shape}")
    checks.leading_shape(valid=valid, chosen_features=views[0])
    return [jnp.where(valid[:, None], view, 0.0) for view in views]


def _gather(x: Array, axis_name: Any) -> Array:
    return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def _contrast(anchors: tuple[Array, Array], others: tuple[Array, Array], valid, tau, axis_name) -> Array:
    """InfoNCE of both rows of every example [B]: its own row among `others` is the positive, all rows the choice."""
    candidates = jnp.concatenate([_gather(rows, axis_name) for rows in others])
    there = jnp.tile(_gather(valid, axis_name), 2)

    def of(rows, positives):
        logits = jnp.where(there, _unit(rows) @ _unit(candidates).T / tau, -1e30)
        # A row that only pads is not among the choices; its value means nothing and must be finite.
        return jax.nn.logsumexp(logits, axis=-1) - jnp.sum(_unit(rows) * _unit(positives), axis=-1) / tau

    return (of(anchors[0], others[0]) + of(anchors[1], others[1])) / 2


def rm_simcse_loss(
    chosen_features: Array,
    rejected_features: Array,
    chosen_second_features: Array,
    rejected_second_features: Array,
    valid: Array,
    *,
    tau: float = 0.05,
    axis_name: Any = None,
) -> Array:
    """SimCSE on the features of a reward model: two passes over one response must know each other in the batch.

        l_i = -log( exp(cos(h_i, h'_i) / tau) / sum_j exp(cos(h_i, h'_j) / tau) ),  i and j over all 2B responses

    To be added to a Bradley-Terry loss, in the paper with weight 1. The value of an example is the mean over its two
    responses. h is the ordinary pass and h' one in which part of the weights is dropped
    (`config.training.view_dropout`); the paper has dropout in both.

    Args:
      chosen_features, rejected_features: hidden state of each side's last token. Trained.
      chosen_second_features, rejected_second_features: the same from the second pass. Trained.
      valid: bool, False for rows that only pad the batch.
      tau: temperature, in (0, inf).
      axis_name: mapped axis (or axes) over which the batch is split, if any.

    Shapes: features `[B, D]`, valid `[B]`; result float32 `[B]`, in nats.

    Raises:
      AssertionError: shapes do not go together or a dtype is wrong.
      ValueError: static tau out of range.

    Paper: Wang et al., 2024 (Secrets of RLHF Part II), arXiv 2401.06080; Gao et al., 2021 (SimCSE), arXiv 2104.08821.
    """
    chosen, rejected, chosen_second, rejected_second = _views(
        chosen_features, rejected_features, chosen_second_features, rejected_second_features, valid
    )
    checks.number("tau", tau, 0.0)
    return _contrast((chosen, rejected), (chosen_second, rejected_second), valid, tau, axis_name)


def rm_simcse_difference_loss(
    chosen_features: Array,
    rejected_features: Array,
    chosen_second_features: Array,
    rejected_second_features: Array,
    valid: Array,
    *,
    tau: float = 0.05,
    axis_name: Any = None,
) -> Array:
    """`rm_simcse_loss` on the 2B differences f(y_w) - f(y_l) and f(y_l) - f(y_w) in place of the 2B responses.

    Each row's own negation is among its negatives, at cosine -1, an easy one.

    Args:
      chosen_features, rejected_features: hidden state of each side's last token. Trained.
      chosen_second_features, rejected_second_features: the same from the second pass. Trained.
      valid: bool, False for rows that only pad the batch.
      tau: temperature, in (0, inf).
      axis_name: mapped axis (or axes) over which the batch is split, if any.

    Shapes: features `[B, D]`, valid `[B]`; result float32 `[B]`, in nats.

    Raises:
      AssertionError: shapes do not go together or a dtype is wrong.
      ValueError: static tau out of range.

    Paper: Wang et al., 2024 (Secrets of RLHF Part II), arXiv 2401.06080.
    """
    chosen, rejected, chosen_second, rejected_second = _views(
        chosen_features, rejected_features, chosen_second_features, rejected_second_features, valid
    )
    checks.number("tau", tau, 0.0)
    first, second = chosen - rejected, chosen_second - rejected_second
    return _contrast((first, -first), (second, -second), valid, tau, axis_name)


def _codes(scores: Array, valid: Array, iterations: int) -> Array:
    """Balanced soft assignments (Sinkhorn) of the valid rows to the prototypes, each row summing to 1. `[N, K]`."""
    count = jnp.maximum(valid.sum(), 1).astype(scores.dtype)
    logs = jnp.where(valid[:, None], scores, -1e30)
    for _ in range(iterations):
        # As logarithms nothing overflows, whatever epsilon. Prototypes first, then samples, as in SwAV's code.
        logs = logs - jax.nn.logsumexp(logs, axis=0) - jnp.log(scores.shape[1])
        logs = logs - jax.nn.logsumexp(logs, axis=1, keepdims=True) - jnp.log(count)
        logs = jnp.where(valid[:, None], logs, -1e30)
    return jax.lax.stop_gradient(jax.nn.softmax(logs, axis=1))


def rm_swav_loss(
    chosen_features: Array,
    rejected_features: Array,
    chosen_second_features: Array,
    rejected_second_features: Array,
    head_weights: Array,
    valid: Array,
    *,
    epsilon: float = 0.05,
    tau: float = 0.1,
    iterations: int = 3,
    axis_name: Any = None,
) -> Array:
    """SwAV on the features of a reward model: each view predicts the balanced cluster code of the other.

        S = z C^T,  z and the rows of C of unit length;  Q = Sinkhorn(exp(S / epsilon)), without gradient
        l = -sum_k q'_k log p_k - sum_k q_k log p'_k,  p = softmax(S / tau)

    To be added to a Bradley-Terry loss, in the paper with weight 1. Head 0 is the reward and the weight rows of the
    other heads are the prototypes C, so `config.model.reward_heads` is 1 plus their number; they are brought to unit
    length here, so nothing needs renormalising between steps. A batch with fewer responses than prototypes makes the
    codes meaningless. The value of an example is the mean over its two responses.

    Args:
      chosen_features, rejected_features: hidden state of each side's last token. Trained.
      chosen_second_features, rejected_second_features: the same from the second pass. Trained.
      head_weights: of all heads; row 0 is not looked at. Trained.
      valid: bool, False for rows that only pad the batch.
      epsilon: sharpness of the codes, in (0, inf).
      tau: temperature of the prediction, in (0, inf).
      iterations: rounds of Sinkhorn, at least 1.
      axis_name: mapped axis (or axes) over which the batch is split, if any.

    Shapes: features `[B, D]`, head_weights `[1 + K, D]`, valid `[B]`; result float32 `[B]`, in nats.

    Raises:
      AssertionError: shapes do not go together or a dtype is wrong.
      ValueError: a static hyperparameter out of range.

    Paper: Wang et al., 2024 (Secrets of RLHF Part II), arXiv 2401.06080; Caron et al., 2020 (SwAV), arXiv 2006.09882,
    whose code fixes the order of the Sinkhorn rounds.
    """
    views = _views(chosen_features, rejected_features, chosen_second_features, rejected_second_features, valid)
    (weights,) = checks.floats(head_weights=head_weights)
    if weights.ndim != 2 or weights.shape[0] < 2 or weights.shape[1] != views[0].shape[1]:
        raise AssertionError(
            f"head_weights must have shape (1 + K, {views[0].shape[1]}) with K >= 1 prototypes, got {weights.shape}"
        )
    checks.number("epsilon", epsilon, 0.0)
    checks.number("tau", tau, 0.0)
    checks.positive_integer("iterations", iterations)
    prototypes = _unit(weights[1:])
    chosen, rejected, chosen_second, rejected_second = (_unit(view) @ prototypes.T for view in views)
    start = 0 if axis_name is None else jax.lax.axis_index(axis_name) * valid.shape[0]
    whole = _gather(valid, axis_name)

    def codes(chosen_scores, rejected_scores):
        scores = jnp.concatenate([_gather(s, axis_name) for s in (chosen_scores, rejected_scores)])
        both = jnp.split(_codes(scores / epsilon, jnp.tile(whole, 2), iterations), 2)
        return [jax.lax.dynamic_slice_in_dim(q, start, valid.shape[0]) for q in both]

    def predicted(scores, targets):
        return -jnp.sum(targets * jax.nn.log_softmax(scores / tau, axis=-1), axis=-1)

    first, second = codes(chosen, rejected), codes(chosen_second, rejected_second)
    of_chosen = predicted(chosen, second[0]) + predicted(chosen_second, first[0])
    of_rejected = predicted(rejected, second[1]) + predicted(rejected_second, first[1])
    return (of_chosen + of_rejected) / 2


# --- goal states -----------------------------------------------------------------------------------------------------


def _goal_cosines(chosen_token_features, rejected_token_features, chosen_mask, rejected_mask, random_bits, settings):
    """Cosines of sources with goals, those that agree [B, S, S] and those that do not [B, U, U]."""
    (chosen,) = checks.floats(chosen_token_features=chosen_token_features)
    (rejected,) = checks.floats(rejected_token_features=rejected_token_features)
    checks.boolean(chosen_mask=chosen_mask, rejected_mask=rejected_mask)
    checks.integers(random_bits=random_bits)
    checks.same_shape(chosen_token_features=chosen, rejected_token_features=rejected)
    checks.same_shape(chosen_mask=chosen_mask, rejected_mask=rejected_mask)
    checks.leading_shape(chosen_mask=chosen_mask, chosen_token_features=chosen)
    checks.leading_shape(random_bits=random_bits, chosen_mask=chosen_mask)
    for name in ("positives", "negatives"):
        checks.positive_integer(name, settings[name])
    for name in ("source_percentile", "goal_percentile"):
        checks.number(name, settings[name], 0.0, 1.0, closed="left")
    positives, negatives = settings["positives"], settings["negatives"]

    def draw(bits):
        keys = jax.random.split(jax.random.key(bits), 3)
        pairs = jnp.sort(jax.random.uniform(keys[0], (positives, 2)), axis=-1)
        return pairs, jax.random.uniform(keys[1], (negatives,)), jax.random.uniform(keys[2], (negatives,))

    pairs, sources, goals = jax.vmap(draw)(random_bits.reshape(-1))

    def states(features, mask, uniforms, percentile):
        time, width = features.shape[-2:]
        features, mask = features.reshape(-1, time, width), mask.reshape(-1, time)
        offsets = _offsets(uniforms, mask.sum(axis=-1)[:, None], percentile)
        real = jnp.argsort(~mask, axis=-1, stable=True)  # columns of the completion's tokens first, in their order
        columns = jnp.take_along_axis(real, jnp.maximum(mask.sum(axis=-1)[:, None] - offsets, 0), axis=-1)
        hidden = jnp.where(mask[..., None], features, 0.0)
        return _unit(jnp.take_along_axis(hidden, columns[..., None], axis=1))

    source, goal = settings["source_percentile"], settings["goal_percentile"]
    agreeing = jnp.einsum(
        "bsd,bgd->bsg",
        states(chosen, chosen_mask, pairs[..., 0], source),
        states(chosen, chosen_mask, pairs[..., 1], goal),
    )
    opposed = jnp.einsum(
        "bsd,bgd->bsg",
        states(chosen, chosen_mask, sources, source),
        states(rejected, rejected_mask, goals, goal),
    )
    shape = random_bits.shape
    return agreeing.reshape(*shape, positives, positives), opposed.reshape(*shape, negatives, negatives)


def _offsets(uniforms: Array, lengths: Array, percentile) -> Array:
    """Position counted from the end, 1 the last token: floor(((q - 1) u + 1) n + 1), within the completion.

    At u = 0 the formula gives n + 1, the prompt's last token, which this layout does not keep: the first token stands
    in for it.
    """
    places = jnp.floor(((percentile - 1.0) * uniforms + 1.0) * lengths + 1.0).astype(jnp.int32)
    return jnp.clip(places, 1, jnp.maximum(lengths, 1))


def goal_contrastive_loss(
    chosen_token_features: Array,
    rejected_token_features: Array,
    chosen_mask: Array,
    rejected_mask: Array,
    random_bits: Array,
    valid: Array,
    *,
    beta: float = 0.5,
    positives: int = 16,
    negatives: int = 16,
    source_percentile: float = 0.0,
    goal_percentile: float = 0.0,
    axis_name: Any = None,
) -> Array:
    """Hidden states of the preferred response are pulled towards its later states, away from the other response's.

        p_bij = s(cos(h_w[source_i], h_w[goal_j])),  n_bij = s(cos(h_w[source'_i], h_l[goal'_j]))
        loss  = beta * (-log mean_bij p_bij - log(1 - mean_bij n_bij))

    To be added to a Bradley-Terry loss. The logarithm of the mean over the whole batch is the public code's; every
    example's value is that of the batch. `goal_contrastive_mean_log_loss` is the paper's mean of logarithms. Of two
    drawn places the earlier is the source; all S x S combinations are compared, so some goals lie before a source.
    s(cos) lies in [0.27, 0.73]: the loss has a floor of -2 beta log s(1) = 0.627 beta.

    Args:
      chosen_token_features, rejected_token_features: hidden state of every completion token. Trained.
      chosen_mask, rejected_mask: bool, the completions' tokens.
      random_bits: i32, new for every example and step; the places follow from it.
      valid: bool, False for rows that only pad the batch.
      beta: weight in (0, inf).
      positives: S, pairs of source and goal per example.
      negatives: U, the same for pairs that disagree.
      source_percentile, goal_percentile: q in [0, 1): only the part of the response before the last q of it is drawn
        from.
      axis_name: mapped axis (or axes) over which the batch is split, if any.

    Shapes: features `[B, T, D]`, masks `[B, T]`, the others `[B]`; result float32 `[B]`, in nats.

    Raises:
      AssertionError: shapes do not go together or a dtype is wrong.
      ValueError: a static hyperparameter out of range.

    Paper: Nath et al., 2024, arXiv 2407.13887; `ContrastiveGoalLoss` of its code is followed, but for sequences padded
    on the right and for one place: see `_offsets`.
    """
    checks.number("beta", beta, 0.0)
    checks.boolean(valid=valid, chosen_mask=chosen_mask, rejected_mask=rejected_mask)
    checks.same_shape(valid=valid, random_bits=random_bits)
    checks.leading_shape(valid=valid, chosen_mask=chosen_mask)
    checks.same_shape(chosen_mask=chosen_mask, rejected_mask=rejected_mask)
    agreeing, opposed = _goal_cosines(
        chosen_token_features, rejected_token_features, chosen_mask & valid[:, None], rejected_mask & valid[:, None],
        random_bits,
        {"positives": positives, "negatives": negatives, "source_percentile": source_percentile,
         "goal_percentile": goal_percentile},
    )  # fmt: skip

    def mean(probabilities):
        of_examples = jnp.where(valid, probabilities.mean(axis=(-2, -1)), 0.0).sum()
        count = valid.sum().astype(of_examples.dtype)
        if axis_name is not None:
            of_examples, count = jax.lax.psum((of_examples, count), axis_name)
        # In a batch of nothing but padding 1/2 keeps both logarithms finite.
        return jnp.where(count > 0, of_examples / jnp.maximum(count, 1.0), 0.5)

    value = -jnp.log(mean(jax.nn.sigmoid(agreeing))) - jnp.log1p(-mean(jax.nn.sigmoid(opposed)))
    return jnp.broadcast_to(beta * value, valid.shape)


def goal_contrastive_mean_log_loss(
    chosen_token_features: Array,
    rejected_token_features: Array,
    chosen_mask: Array,
    rejected_mask: Array,
    random_bits: Array,
    *,
    beta: float = 0.5,
    positives: int = 16,
    negatives: int = 16,
    source_percentile: float = 0.0,
    goal_percentile: float = 0.0,
) -> Array:
    """The paper's form of `goal_contrastive_loss`: beta * (mean of -log s(cos+) + mean of -log(1 - s(cos-))).

    Means of logarithms, so every example has a value of its own; never below the other form on the same draws.

    Args:
      chosen_token_features, rejected_token_features: hidden state of every completion token. Trained.
      chosen_mask, rejected_mask: bool, the completions' tokens.
      random_bits: i32, new for every example and step; the places follow from it.
      beta: weight in (0, inf).
      positives, negatives: pairs of source and goal per example.
      source_percentile, goal_percentile: in [0, 1).

    Shapes: features `[B, T, D]`, masks `[B, T]`, random_bits `[B]`; result float32 `[B]`, in nats.

    Raises:
      AssertionError: shapes do not go together or a dtype is wrong.
      ValueError: a static hyperparameter out of range.

    Paper: Nath et al., 2024, arXiv 2407.13887.
    """
    checks.number("beta", beta, 0.0)
    agreeing, opposed = _goal_cosines(
        chosen_token_features, rejected_token_features, chosen_mask, rejected_mask, random_bits,
        {"positives": positives, "negatives": negatives, "source_percentile": source_percentile,
         "goal_percentile": goal_percentile},
    )  # fmt: skip
    pulled = jax.nn.softplus(-agreeing).mean(axis=(-2, -1))
    return beta * (pulled + jax.nn.softplus(opposed).mean(axis=(-2, -1)))
