"""How good a set of trade-offs is: dominance, hypervolume and the other indicators, on points [P, M], all maximised.

A point is what one policy (or one candidate) earns under each of M objectives. `valid` [P] is False for places of the
array that hold no point: archives have a fixed size. Nothing here passes a gradient. Every indicator is fooled by
something (sparsity rewards few points, expected utility sees the convex hull only): report several, objectives
normalised to a common scale, and fix the reference point before the experiment. Differences of hypervolumes lose digits
in float32: `hypervolume_gain` computes one directly, and under `jax.enable_x64` all is float64.
"""

from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.policy_gradients import objectives

Array = jax.Array
_stop = jax.lax.stop_gradient
_ENDS = 1e9  # crowding distance of the ends of a front, in place of infinity


def _points(points: Array, valid: Array, axis_name: Any) -> tuple[Array, Array]:
    """The points of all devices and which of them are there."""
    points = objectives.checked(valid, points=points)
    if points.ndim != 2:
        raise AssertionError(f"points must have shape ('P', 'M'), got {points.shape}")
    return objectives.everywhere(points, axis_name), objectives.everywhere(valid, axis_name)


def _others(count: int, **arrays: Array) -> Array:
    """A second set [Q, M] (reference front, preferences), held fixed."""
    ((name, array),) = arrays.items()
    (array,) = checks.floats(**{name: array})
    if array.ndim != 2 or array.shape[1] != count:
        raise AssertionError(f"{name} must have shape ('Q', {count}), one column per objective, got {array.shape}")
    return _stop(array)


def _dominates(a: Array, b: Array) -> Array:
    """Whether a [..., M] is at least b everywhere and better somewhere, broadcast over the leading axes."""
    return jnp.all(a >= b, axis=-1) & jnp.any(a > b, axis=-1)


# ------------------------------------------------------------------------------------------------------------ dominance


def non_dominated(points: Array, valid: Array, *, axis_name: Any = None) -> Array:
    """1 for each point that no other point dominates, else 0; of equal points all stay.

    a dominates b if it is at least as good under every objective and better under one.

    Args:
      points: what each policy earns under each objective. Held fixed.
      valid: bool, False where there is no point.
      axis_name: mapped axis (or axes) over which the points are split.

    Shapes: points `[P, M]`, valid `[P]`; result float32 `[P]`, 0 where there is no point.

    Raises:
      AssertionError: shapes do not agree, points not floating, valid not bool.

    Paper: standard practice; Deb et al., 2002, NSGA-II.
    """
    own = objectives.checked(valid, points=points)
    everyone, there = _points(points, valid, axis_name)
    beaten = jnp.any(_dominates(everyone[None], own[:, None]) & there[None], axis=-1)
    return (valid & ~beaten).astype(own.dtype)


def non_dominated_ranks(points: Array, valid: Array, *, axis_name: Any = None) -> Array:
    """Fast non-dominated sort: 1 for the front, 2 for the front of what is left without it, and so on.

    Args:
      points: what each policy earns under each objective. Held fixed.
      valid: bool, False where there is no point.
      axis_name: mapped axis (or axes) over which the points are split.

    Shapes: points `[P, M]`, valid `[P]`; result float32 `[P]`, 0 where there is no point.

    Raises:
      AssertionError: shapes do not agree, points not floating, valid not bool.

    Paper: Deb et al., 2002, NSGA-II, as used by Liu et al., 2024, arXiv 2410.02236 (C-MORL).
    """
    objectives.checked(valid, points=points)
    everyone, there = _points(points, valid, axis_name)
    beats = _dominates(everyone[:, None], everyone[None]) & there[:, None]

    def peel(rank, ranks):
        # Points without a rank that none of the others without one dominates.
        left = there & (ranks == 0)
        front = left & ~jnp.any(beats & left[:, None], axis=0)
        return jnp.where(front, rank + 1, ranks)

    ranks = jax.lax.fori_loop(0, everyone.shape[0], peel, jnp.zeros(everyone.shape[0], jnp.int32))
    if axis_name is not None:
        ranks = jax.lax.dynamic_slice_in_dim(ranks, jax.lax.axis_index(axis_name) * valid.shape[0], valid.shape[0])
    return ranks.astype(everyone.dtype)


def crowding_distances(points: Array, valid: Array, *, axis_name: Any = None) -> Array:
    """How much room a point has on its front: sum over objectives of (next - previous) / (max - min), points sorted.

    The ends of each objective get 1e9, which stands for the paper's infinity and keeps the numbers finite. An objective
    that is the same for all points says nothing and makes no ends.

    Args:
      points: what each policy earns under each objective, normally of one front. Held fixed.
      valid: bool, False where there is no point.
      axis_name: mapped axis (or axes) over which the points are split.

    Shapes: points `[P, M]`, valid `[P]`; result float32 `[P]`, 0 where there is no point.

    Raises:
      AssertionError: shapes do not agree, points not floating, valid not bool.

    Paper: Deb et al., 2002, NSGA-II, as used by Liu et al., 2024, arXiv 2410.02236 (C-MORL).
    """
    objectives.checked(valid, points=points)
    everyone, there = _points(points, valid, axis_name)
    count, last = everyone.shape[0], jnp.sum(there) - 1

    def of_objective(values):
        order = jnp.argsort(jnp.where(there, values, jnp.inf), stable=True)
        ordered = values[order]
        span = ordered[jnp.maximum(last, 0)] - ordered[0]
        places = jnp.arange(count)
        above, below = ordered[jnp.minimum(places + 1, count - 1)], ordered[jnp.maximum(places - 1, 0)]
        gaps = jnp.where(span > 0, (above - below) / jnp.where(span > 0, span, 1.0), 0.0)
        gaps = jnp.where((span > 0) & ((places == 0) | (places == last)), _ENDS, gaps)
        return jnp.zeros_like(values).at[order].set(gaps)

    total = jnp.minimum(jnp.sum(jax.vmap(of_objective, in_axes=1)(everyone), axis=0), _ENDS)
    if axis_name is not None:
        total = jax.lax.dynamic_slice_in_dim(total, jax.lax.axis_index(axis_name) * valid.shape[0], valid.shape[0])
    return jnp.where(valid, total, 0.0)


# ---------------------------------------------------------------------------------------------------------- hypervolume


def _volume(heights: Array) -> Array:
    """Volume of the union of the boxes from 0 to each row of `heights` [P, M] >= 0, by slicing the last axis."""
    size = heights.shape[-1]
    if size == 1:
        return jnp.max(heights, initial=0.0)
    order = jnp.argsort(heights[:, -1])
    ordered = heights[order]
    levels = ordered[:, -1]
    thickness = jnp.diff(levels, prepend=0.0)
    if size == 2:  # the widest of the boxes that reach this level
        reach = jax.lax.cummax(ordered[:, 0], axis=0, reverse=True)
        return jnp.sum(thickness * reach)
    places = jnp.arange(heights.shape[0])

    def area(at):
        return _volume(jnp.where((places >= at)[:, None], ordered[:, :-1], 0.0))

    # One slice after the other in the outer dimensions: all at once would take P^(M - 1) numbers of memory.
    areas = jax.vmap(area)(places) if size == 3 else jax.lax.map(area, places)
    return jnp.sum(thickness * areas)


def hypervolume(points: Array, valid: Array, reference: Array, *, axis_name: Any = None) -> Array:
    """Volume of what the points dominate above a reference point: of { z : some p has reference <= z <= p }.

    Exact, by slicing one objective after the other: P^(M - 1) log P operations, comfortable to M = 4 and P = 200. A
    point that is not above the reference under every objective adds nothing. Adding a point never lowers it.

    Args:
      points: what each policy earns under each objective. Held fixed.
      valid: bool, False where there is no point.
      reference: a lower bound, fixed before the experiment (the initial model's rewards). Held fixed.
      axis_name: mapped axis (or axes) over which the points are split.

    Shapes: points `[P, M]`, valid `[P]`, reference `[M]`; result float32 scalar, in the product of the objectives'
    units; 0 without a point.

    Raises:
      AssertionError: shapes do not agree, points or reference not floating, valid not bool.

    Paper: Fonseca et al., 2006 (slicing); used by Liu et al., 2024, arXiv 2410.02236 (C-MORL).
    """
    everyone, there = _points(points, valid, axis_name)
    reference = objectives.vector(everyone.shape[1], reference=reference)
    return _volume(jnp.where(there[:, None], jnp.maximum(everyone - reference, 0.0), 0.0))


def hypervolume_gain(
    points: Array, valid: Array, new_point: Array, reference: Array, *, axis_name: Any = None
) -> Array:
    """By how much one more point would raise the hypervolume: its own box less what the others cover of it.

    Computed inside the new point's box, so that small gains keep their digits; never below 0, and 0 for a point that is
    dominated or not above the reference.

    Args:
      points: of the archive. Held fixed.
      valid: bool, False where the archive has no point.
      new_point: the one that would be added. Held fixed.
      reference: a lower bound, fixed before the experiment. Held fixed.
      axis_name: mapped axis (or axes) over which the points are split.

    Shapes: points `[P, M]`, valid `[P]`, new_point and reference `[M]`; result float32 scalar.

    Raises:
      AssertionError: shapes do not agree, points, new_point or reference not floating, valid not bool.

    Paper: Lu et al., 2025, arXiv 2509.11452 (hypervolume-guided weights; negative first contributions are clipped).
    """
    everyone, there = _points(points, valid, axis_name)
    size = everyone.shape[1]
    new_point = objectives.vector(size, new_point=new_point)
    reference = objectives.vector(size, reference=reference)
    box = jnp.maximum(new_point - reference, 0.0)
    covered = jnp.where(there[:, None], jnp.clip(everyone - reference, 0.0, box), 0.0)
    return jnp.maximum(jnp.prod(box) - _volume(covered), 0.0)


# -------------------------------------------------------------------------------------------------------------- utility


def _utilities(points: Array, there: Array, preferences: Array) -> Array:
    """max over the points of w . p for each preference w, [W]; -inf without a point."""
    return jnp.max(jnp.where(there, preferences @ points.T, -jnp.inf), axis=-1)


def expected_utility(points: Array, valid: Array, preferences: Array, *, axis_name: Any = None) -> Array:
    """Mean over preferences w of max over points of w . p: what a user with linear taste gets from choosing.

    Args:
      points: what each policy earns under each objective. Held fixed.
      valid: bool, False where there is no point.
      preferences: of the users, each on the simplex. Held fixed.
      axis_name: mapped axis (or axes) over which the points are split.

    Shapes: points `[P, M]`, valid `[P]`, preferences `[W, M]`; result float32 scalar; -inf without a point.

    Raises:
      AssertionError: shapes do not agree, points or preferences not floating, valid not bool.

    Paper: Zintgraf et al., 2015; used by Liu et al., 2024, arXiv 2410.02236 (C-MORL).
    """
    everyone, there = _points(points, valid, axis_name)
    return jnp.mean(_utilities(everyone, there, _others(everyone.shape[1], preferences=preferences)))


def maximum_utility_loss(
    points: Array, valid: Array, reference_points: Array, preferences: Array, *, axis_name: Any = None
) -> Array:
    """max over preferences w of (best w . p of the reference front) - (best w . p of the points): the worst regret.

    Args:
      points: what each policy earns under each objective. Held fixed.
      valid: bool, False where there is no point.
      reference_points: a front to be compared with. Held fixed.
      preferences: of the users, each on the simplex. Held fixed.
      axis_name: mapped axis (or axes) over which the points are split.

    Shapes: points `[P, M]`, valid `[P]`, reference_points `[Q, M]`, preferences `[W, M]`; result float32 scalar; inf
    without a point.

    Raises:
      AssertionError: shapes do not agree, an array of numbers not floating, valid not bool.

    Paper: Zintgraf et al., 2015; used by Liu et al., 2024, arXiv 2410.02236 (C-MORL).
    """
    everyone, there = _points(points, valid, axis_name)
    preferences = _others(everyone.shape[1], preferences=preferences)
    best = _others(everyone.shape[1], reference_points=reference_points)
    wanted = jnp.max(preferences @ best.T, axis=-1)
    return jnp.max(wanted - _utilities(everyone, there, preferences))


def r2_indicator(points: Array, valid: Array, preferences: Array, ideal: Array, *, axis_name: Any = None) -> Array:
    """Mean over w of min over points of max_m w_m |ideal_m - p_m|: the distance to the ideal point; lower is better.

    Args:
      points: what each policy earns under each objective. Held fixed.
      valid: bool, False where there is no point.
      preferences: each on the simplex. Held fixed.
      ideal: the best that can be had under each objective. Held fixed.
      axis_name: mapped axis (or axes) over which the points are split.

    Shapes: points `[P, M]`, valid `[P]`, preferences `[W, M]`, ideal `[M]`; result float32 scalar; inf without a point.

    Raises:
      AssertionError: shapes do not agree, an array of numbers not floating, valid not bool.

    Paper: Hansen and Jaszkiewicz, 1994; used by Jain et al., 2022, arXiv 2210.12765, whose code divides the sum by the
    Frobenius norm of the preferences in place of their number; the mean is followed here.
    """
    everyone, there = _points(points, valid, axis_name)
    preferences = _others(everyone.shape[1], preferences=preferences)
    away = jnp.abs(objectives.vector(everyone.shape[1], ideal=ideal) - everyone)
    worst = jnp.max(preferences[:, None] * away[None], axis=-1)
    return jnp.mean(jnp.min(jnp.where(there, worst, jnp.inf), axis=-1))


# ---------------------------------------------------------------------------------------------------- spread, closeness


def sparsity(points: Array, valid: Array, *, axis_name: Any = None) -> Array:
    """1 / (P - 1) sum over objectives of the squared gaps between neighbours; lower is denser, 0 for fewer than two.

    Few points in a heap are dense: report it beside the hypervolume only.

    Args:
      points: of a front. Held fixed.
      valid: bool, False where there is no point.
      axis_name: mapped axis (or axes) over which the points are split.

    Shapes: points `[P, M]`, valid `[P]`; result float32 scalar, in squared units of the objectives.

    Raises:
      AssertionError: shapes do not agree, points not floating, valid not bool.

    Paper: Xu et al., 2020; used by Liu et al., 2024, arXiv 2410.02236 (C-MORL).
    """
    everyone, there = _points(points, valid, axis_name)
    count = jnp.sum(there)
    ordered = jnp.sort(jnp.where(there[:, None], everyone, jnp.inf), axis=0)
    pairs = jnp.arange(everyone.shape[0] - 1) < count - 1
    # The difference of two places without a point would be NaN.
    ordered = jnp.where(jnp.arange(everyone.shape[0])[:, None] < count, ordered, 0.0)
    squares = jnp.where(pairs[:, None], jnp.square(jnp.diff(ordered, axis=0)), 0.0)
    return jnp.sum(squares) / jnp.maximum(count - 1, 1)


def coverage(points: Array, valid: Array, reference_points: Array, *, axis_name: Any = None) -> Array:
    """Share of the reference front that some point equals or dominates.

    Args:
      points: what each policy earns under each objective. Held fixed.
      valid: bool, False where there is no point.
      reference_points: a front to be compared with. Held fixed.
      axis_name: mapped axis (or axes) over which the points are split.

    Shapes: points `[P, M]`, valid `[P]`, reference_points `[Q, M]`; result float32 scalar in [0, 1].

    Raises:
      AssertionError: shapes do not agree, points or reference points not floating, valid not bool.

    Paper: Zitzler and Thiele, 1999; standard practice.
    """
    everyone, there = _points(points, valid, axis_name)
    reference_points = _others(everyone.shape[1], reference_points=reference_points)
    reached = jnp.all(everyone[None] >= reference_points[:, None], axis=-1) & there[None]
    return jnp.mean(jnp.any(reached, axis=-1).astype(everyone.dtype))


def _distances(a: Array, b: Array) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(a[:, None] - b[None]), axis=-1))


def inverted_generational_distance(
    points: Array, valid: Array, reference_points: Array, *, axis_name: Any = None
) -> Array:
    """Mean over the reference front of the Euclidean distance to the nearest point; lower is better.

    Args:
      points: what each policy earns under each objective. Held fixed.
      valid: bool, False where there is no point.
      reference_points: a front to be compared with. Held fixed.
      axis_name: mapped axis (or axes) over which the points are split.

    Shapes: points `[P, M]`, valid `[P]`, reference_points `[Q, M]`; result float32 scalar; inf without a point.

    Raises:
      AssertionError: shapes do not agree, points or reference points not floating, valid not bool.

    Paper: Coello Coello and Reyes Sierra, 2004; standard practice.
    """
    everyone, there = _points(points, valid, axis_name)
    away = _distances(_others(everyone.shape[1], reference_points=reference_points), everyone)
    return jnp.mean(jnp.min(jnp.where(there, away, jnp.inf), axis=-1))


def cluster_entropy(points: Array, valid: Array, reference_points: Array, *, axis_name: Any = None) -> Array:
    """Entropy in nats of how the points spread over the reference points that are nearest to them.

    Args:
      points: of candidates. Held fixed.
      valid: bool, False where there is no point.
      reference_points: the centres of the clusters. Held fixed.
      axis_name: mapped axis (or axes) over which the points are split.

    Shapes: points `[P, M]`, valid `[P]`, reference_points `[Q, M]`; result float32 scalar in [0, log Q]; 0 without a
    point.

    Raises:
      AssertionError: shapes do not agree, points or reference points not floating, valid not bool.

    Paper: Jain et al., 2022, arXiv 2210.12765 (MOGFN; its "PC entropy").
    """
    everyone, there = _points(points, valid, axis_name)
    centres = _others(everyone.shape[1], reference_points=reference_points)
    nearest = jnp.argmin(_distances(everyone, centres), axis=-1)
    counts = jnp.sum(jax.nn.one_hot(nearest, centres.shape[0]) * there[:, None], axis=0)
    shares = counts / jnp.maximum(jnp.sum(counts), 1)
    return -jnp.sum(jnp.where(shares > 0, shares * jnp.log(jnp.where(shares > 0, shares, 1.0)), 0.0))


def _best(points: Array, valid: Array, preference: Array, k: int, axis_name: Any) -> tuple[Array, Array, Array]:
    """(utilities of the k best, their numbers, which of them are there)."""
    checks.positive_integer("k", k)
    everyone, there = _points(points, valid, axis_name)
    utilities = everyone @ objectives.vector(everyone.shape[1], preference=preference)
    utilities = jnp.where(there, utilities, -jnp.inf)
    values, at = jax.lax.top_k(utilities, min(k, everyone.shape[0]))
    return values, at, there[at]


def top_k_reward(points: Array, valid: Array, preference: Array, *, k: int = 10, axis_name: Any = None) -> Array:
    """Mean of w . p over the k candidates that are best for the preference w (fewer if there are fewer).

    Args:
      points: of candidates. Held fixed.
      valid: bool, False where there is no point.
      preference: w. Held fixed.
      k: how many, in [1, inf).
      axis_name: mapped axis (or axes) over which the points are split.

    Shapes: points `[P, M]`, valid `[P]`, preference `[M]`; result float32 scalar; 0 without a point.

    Raises:
      AssertionError: shapes do not agree, points or preference not floating, valid not bool.
      ValueError: k is not a whole number of at least 1.

    Paper: Jain et al., 2022, arXiv 2210.12765 (MOGFN).
    """
    values, _, there = _best(points, valid, preference, k, axis_name)
    return jnp.sum(jnp.where(there, values, 0.0)) / jnp.maximum(jnp.sum(there), 1)


def top_k_diversity(
    points: Array, valid: Array, features: Array, preference: Array, *, k: int = 10, axis_name: Any = None
) -> Array:
    """Mean pairwise Euclidean distance, in a space of features, of the k candidates that are best for a preference.

    Args:
      points: of candidates. Held fixed.
      valid: bool, False where there is no point.
      features: where each candidate lies. Held fixed.
      preference: w; candidates are ranked by w . p. Held fixed.
      k: how many, in [1, inf).
      axis_name: mapped axis (or axes) over which points and features are split.

    Shapes: points `[P, M]`, valid `[P]`, features `[P, D]`, preference `[M]`; result float32 scalar; 0 for fewer than
    two candidates.

    Raises:
      AssertionError: shapes do not agree, an array of numbers not floating, valid not bool.
      ValueError: k is not a whole number of at least 1.

    Paper: Jain et al., 2022, arXiv 2210.12765 (MOGFN; edit distance there).
    """
    _, at, there = _best(points, valid, preference, k, axis_name)
    chosen = objectives.everywhere(objectives.checked(valid, features=features), axis_name)[at]
    pairs = there[:, None] & there[None] & (jnp.arange(len(at))[:, None] < jnp.arange(len(at))[None])
    return jnp.sum(jnp.where(pairs, _distances(chosen, chosen), 0.0)) / jnp.maximum(jnp.sum(pairs), 1)


def assigned_policies(points: Array, valid: Array, preferences: Array, *, axis_name: Any = None) -> Array:
    """For each preference w, the number of the point with the largest w . p: the policy that serves this user.

    Args:
      points: what each policy earns under each objective. Held fixed.
      valid: bool, False where there is no point; without any the numbers mean nothing.
      preferences: each on the simplex. Held fixed.
      axis_name: mapped axis (or axes) over which the points are split.

    Shapes: points `[P, M]`, valid `[P]`, preferences `[W, M]`; result float32 `[W]`, whole numbers.

    Raises:
      AssertionError: shapes do not agree, points or preferences not floating, valid not bool.

    Paper: Liu et al., 2024, arXiv 2410.02236 (C-MORL).
    """
    everyone, there = _points(points, valid, axis_name)
    preferences = _others(everyone.shape[1], preferences=preferences)
    return jnp.argmax(jnp.where(there, preferences @ everyone.T, -jnp.inf), axis=-1).astype(everyone.dtype)
