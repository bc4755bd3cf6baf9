"""The bandits of EVOLvE, the optimal explorers that guide and teach a model on them, and runs of these on those.

A bandit is its means. An explorer of the multi-armed kind is a function (key, pulls, sums) -> arm, one of the
contextual kind (key, context, precisions, targets) -> arm; a draw is a function (key, mean) -> reward.
`functools.partial` sets their hyperparameters. A run is one `lax.scan`; `vmap` runs many bandits and seeds.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks

Array = jax.Array
_TIE = 1e-5


class Setting(NamedTuple):
    """One cell of the grid: `spread` is the gap of a Bernoulli bandit, the deviation of a Gaussian one."""

    kind: str
    difficulty: str
    arms: int
    spread: float
    horizon: int


# Two kinds, two difficulties, two sizes; easy ones are played for a shorter time.
GRID = tuple(
    Setting(kind, difficulty, arms, spread, horizon)
    for kind, spreads in (("bernoulli", (0.5, 0.2)), ("gaussian", (1.0, 3.0)))
    for arms in (5, 20)
    for difficulty, spread, horizon in zip(("easy", "hard"), spreads, (300, 1000), strict=True)
)
CONTEXTUAL_GRID = tuple(Setting("ratings", "", arms, 0.0, 200) for arms in (10, 30))


class BanditRun(NamedTuple):
    """actions: int32 [T]; rewards: float32 [T], as observed."""

    actions: Array
    rewards: Array


class ContextualRun(NamedTuple):
    """users: int32 [T], whose row the context was; actions: int32 [T]; rewards: float32 [T]."""

    users: Array
    actions: Array
    rewards: Array


class RatingBandit(NamedTuple):
    """features: float32 [N, rank], the contexts of N users; rewards: float32 [N, K], of the arms for each of them."""

    features: Array
    rewards: Array


# ------------------------------------------------------------------------------------------------------- bandits


def bernoulli_means(key: Array, *, arms: int = 5, gap: float = 0.5) -> Array:
    """Means of a Bernoulli bandit: 1/2 + gap / 2 for one arm, 1/2 - gap / 2 for the others, in random order.

    Args:
      key: a PRNG key.
      arms: at least 2; 5 and 20 in the suite.
      gap: in (0, 1]; 0.5 is easy, 0.2 is hard.

    Shapes: result float32 `[arms]`.

    Raises:
      ValueError: fewer than two arms, gap out of range.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE).
    """
    _check_arms(arms)
    checks.number("gap", gap, 0.0, 1.0, closed="right")
    best = jax.random.randint(key, (), 0, arms)
    return jnp.where(jnp.arange(arms) == best, 0.5 + gap / 2, 0.5 - gap / 2)


def gaussian_means(key: Array, *, arms: int = 5, deviation: float = 1.0) -> Array:
    """Means of a Gaussian bandit, drawn from N(0, deviation^2); its rewards have the same deviation around them.

    Args:
      key: a PRNG key.
      arms: at least 2; 5 and 20 in the suite.
      deviation: in (0, inf); 1 is easy, 3 is hard.

    Shapes: result float32 `[arms]`.

    Raises:
      ValueError: fewer than two arms, deviation out of range.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE). The official code calls 1 and 3 variances and uses them as
    deviations, which is followed.
    """
    _check_arms(arms)
    checks.number("deviation", deviation, 0.0)
    return deviation * jax.random.normal(key, (arms,))


def _check_arms(arms: int) -> None:
    checks.positive_integer("arms", arms)
    if arms < 2:
        raise ValueError(f"arms must be an integer in [2, inf), got {arms}")


def bernoulli_draw(key: Array, mean: Array) -> Array:
    """A reward of 1 with probability `mean`, else of 0.

    Shapes: mean `[]`; result float32 `[]`.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE).
    """
    return jax.random.bernoulli(key, mean).astype(jnp.float32)


def gaussian_draw(key: Array, mean: Array, *, deviation: float = 1.0) -> Array:
    """A reward from N(mean, deviation^2).

    Shapes: mean `[]`; result float32 `[]`.

    Raises:
      ValueError: deviation out of range.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE).
    """
    checks.number("deviation", deviation, 0.0)
    return mean + deviation * jax.random.normal(key, jnp.shape(mean))


def gaussian_hardness(means: Array, *, deviation: float = 1.0) -> Array:
    """(mu_1 - mu_2)^2 / (2 deviation^2): KL of the rewards of the two best arms; smaller is harder.

    Args:
      means: of the arms.
      deviation: of their rewards, in (0, inf).

    Shapes: means `[..., K]`; result float32 `[...]`.

    Raises:
      AssertionError: means not floating.
      ValueError: deviation out of range.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE).
    """
    checks.number("deviation", deviation, 0.0)
    return jnp.square(minimum_gap(means) / deviation) / 2


def minimum_gap(means: Array) -> Array:
    """Delta_min: the best mean less the second best, 0 where two arms are best.

    Args:
      means: of the arms, at least two.

    Shapes: means `[..., K]`; result float32 `[...]`.

    Raises:
      AssertionError: means not floating.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE).
    """
    (means,) = checks.floats(means=means)
    best = jax.lax.top_k(means, 2)[0]
    return best[..., 0] - best[..., 1]


def rating_bandit(ratings: Array, *, rank: int = 10) -> RatingBandit:
    """A contextual bandit from ratings R ~ U_k S_k V_k^T: contexts are rows of U_k, rewards the entries of the product.

    Rewards are not noisy. Any complete matrix will do; the paper's is of MovieLens, one column for each of the films
    with the most ratings. Users of a test are those whose rows training did not draw: slice both arrays alike.

    Args:
      ratings: of N users for K films, none missing.
      rank: k, at least 1; min(k, N, K) counts.

    Shapes: ratings `[N, K]`; a `RatingBandit`.

    Raises:
      AssertionError: ratings no matrix or not floating.
      ValueError: rank below 1.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE).
    """
    (ratings,) = checks.floats(ratings=ratings)
    if ratings.ndim != 2:
        raise AssertionError(f"ratings must have shape (users, films), got {ratings.shape}")
    checks.positive_integer("rank", rank)
    u, s, v = jnp.linalg.svd(ratings, full_matrices=False)
    return RatingBandit(u[:, :rank], (u[:, :rank] * s[:rank]) @ v[:rank])


# ------------------------------------------------------------------------------------------------------- explorers


def ucb_guide(pulls: Array, sums: Array, *, alpha: float = 0.5) -> tuple[Array, Array]:
    """The two numbers per arm that UCB adds up: mean reward S / n, and sqrt(alpha log(sum of n) / n).

    An arm that was not pulled has the mean 0 and an infinite bonus. After one pull in all the bonus of its arm is 0.

    Args:
      pulls: n, how often each arm was pulled.
      sums: S, of its rewards.
      alpha: in [0, inf).

    Shapes: pulls (integer) and sums `[..., K]`; result two of float32 `[..., K]`.

    Raises:
      AssertionError: shapes differ, pulls not integer or sums not floating.
      ValueError: static alpha out of range.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE).
    """
    checks.number("alpha", alpha, 0.0, closed="left")
    checks.integers(pulls=pulls)
    checks.same_shape(pulls=pulls, sums=sums)
    (sums,) = checks.floats(sums=sums)
    n = jnp.maximum(pulls, 1).astype(sums.dtype)
    total = jnp.maximum(jnp.sum(pulls, axis=-1, keepdims=True), 1).astype(sums.dtype)
    bonus = jnp.where(pulls > 0, jnp.sqrt(alpha * jnp.log(total) / n), jnp.inf)
    return jnp.where(pulls > 0, sums / n, 0.0), bonus


def ucb_arm(key: Array, pulls: Array, sums: Array, *, alpha: float = 0.5) -> Array:
    """The arm with the largest mean plus bonus of `ucb_guide`, the first of equals: first every arm once, in order.

    Args:
      key: not used; all explorers take the same three.
      pulls, sums, alpha: see `ucb_guide`.

    Shapes: pulls (integer) and sums `[..., K]`; result integer `[...]`.

    Raises:
      AssertionError: shapes differ, pulls not integer or sums not floating.
      ValueError: static alpha out of range.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE).
    """
    exploitation, bonus = ucb_guide(pulls, sums, alpha=alpha)
    return jnp.argmax(exploitation + bonus, axis=-1)


def greedy_arm(key: Array, pulls: Array, sums: Array) -> Array:
    """The arm with the largest mean reward after one pull of each, the first of equals.

    Args:
      key: not used.
      pulls, sums: see `ucb_guide`.

    Shapes: pulls (integer) and sums `[..., K]`; result integer `[...]`.

    Raises:
      AssertionError: shapes differ, pulls not integer or sums not floating.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE). The official greedy agent inherits UCB's bonus and is UCB; this
    one has none.
    """
    exploitation, _ = ucb_guide(pulls, sums)
    return jnp.argmax(jnp.where(pulls > 0, exploitation, jnp.inf), axis=-1)


def thompson_arm(key: Array, pulls: Array, sums: Array, *, prior: float = 1.0) -> Array:
    """The arm with the largest theta ~ Beta(prior + successes, prior + failures); for rewards in [0, 1].

    Args:
      key: a PRNG key.
      pulls, sums: see `ucb_guide`.
      prior: both parameters of the Beta prior, in (0, inf).

    Shapes: pulls (integer) and sums `[..., K]`; result integer `[...]`.

    Raises:
      AssertionError: shapes differ, pulls not integer or sums not floating.
      ValueError: static prior out of range.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE).
    """
    checks.number("prior", prior, 0.0)
    checks.integers(pulls=pulls)
    checks.same_shape(pulls=pulls, sums=sums)
    (sums,) = checks.floats(sums=sums)
    return jnp.argmax(jax.random.beta(key, prior + sums, prior + pulls - sums), axis=-1)


def uniform_arm(key: Array, pulls: Array, sums: Array) -> Array:
    """Any arm, all alike.

    Args:
      key: a PRNG key.
      pulls, sums: see `ucb_guide`; only their shape is used.

    Shapes: pulls (integer) and sums `[..., K]`; result integer `[...]`.

    Raises:
      AssertionError: shapes differ, pulls not integer or sums not floating.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE).
    """
    checks.integers(pulls=pulls)
    checks.same_shape(pulls=pulls, sums=sums)
    checks.floats(sums=sums)
    return jax.random.randint(key, jnp.shape(pulls)[:-1], 0, jnp.shape(pulls)[-1])


def linucb_guide(context: Array, precisions: Array, targets: Array, *, alpha: float = 0.5) -> tuple[Array, Array]:
    """The two numbers per arm that LinUCB adds up: x^T A^-1 b and alpha sqrt(x^T A^-1 x).

    Args:
      context: x.
      precisions: A of each arm, the identity plus the sum of x x^T over its pulls.
      targets: b of each arm, the sum of reward times x over its pulls.
      alpha: in [0, inf).

    Shapes: context `[d]`, precisions `[K, d, d]`, targets `[K, d]`; result two of float32 `[K]`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: static alpha out of range.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE).
    """
    checks.number("alpha", alpha, 0.0, closed="left")
    (x,), (a,), (b,) = (
        checks.floats(context=context),
        checks.floats(precisions=precisions),
        checks.floats(targets=targets),
    )
    size = x.shape[-1] if x.ndim else 0
    if x.ndim != 1 or b.ndim != 2 or b.shape[-1] != size or a.shape != (*b.shape, size):
        raise AssertionError(
            f"context, precisions and targets must have shapes (d,), (K, d, d) and (K, d), got {x.shape}, {a.shape} "
            f"and {b.shape}"
        )
    solved = jax.vmap(lambda matrix: jax.scipy.linalg.solve(matrix, x, assume_a="pos"))(a)
    return jnp.sum(solved * b, axis=-1), alpha * jnp.sqrt(solved @ x)


def linucb_arm(key: Array, context: Array, precisions: Array, targets: Array, *, alpha: float = 0.5) -> Array:
    """The arm with the largest sum of the numbers of `linucb_guide`, any of those within 1e-5 of it.

    Args:
      key: a PRNG key.
      context, precisions, targets, alpha: see `linucb_guide`.

    Shapes: context `[d]`, precisions `[K, d, d]`, targets `[K, d]`; result integer `[]`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: static alpha out of range.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE). The official code compares the arms one after another and
    lets an arm stay a candidate that is behind by more; the largest is followed.
    """
    exploitation, bonus = linucb_guide(context, precisions, targets, alpha=alpha)
    score = exploitation + bonus
    return jax.random.categorical(key, jnp.where(score >= jnp.max(score) - _TIE, 0.0, -jnp.inf))


# ----------------------------------------------------------------------------------------------------------- runs


def play_bandit(
    key: Array,
    means: Array,
    *,
    explorer: Callable[[Array, Array, Array], Array] = ucb_arm,
    draw: Callable[[Array, Array], Array] = bernoulli_draw,
    horizon: int = 300,
) -> BanditRun:
    """`horizon` pulls by an explorer that sees how often each arm was pulled and the sums of its rewards.

    Args:
      key: a PRNG key.
      means: of the arms.
      explorer: (key, pulls, sums) to an arm.
      draw: (key, mean) to a reward.
      horizon: at least 1.

    Shapes: means `[K]`; a `BanditRun`.

    Raises:
      AssertionError: means no vector or not floating.
      ValueError: horizon below 1.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE).
    """
    (means,) = checks.floats(means=means)
    if means.ndim != 1:
        raise AssertionError(f"means must have shape (K,), got {means.shape}; vmap over bandits")
    checks.positive_integer("horizon", horizon)

    def step(seen, key):
        pulls, sums = seen
        of_arm, of_reward = jax.random.split(key)
        arm = explorer(of_arm, pulls, sums)
        reward = draw(of_reward, means[arm]).astype(means.dtype)
        return (pulls.at[arm].add(1), sums.at[arm].add(reward)), BanditRun(arm.astype(jnp.int32), reward)

    start = (jnp.zeros(means.shape, jnp.int32), jnp.zeros_like(means))
    return jax.lax.scan(step, start, jax.random.split(key, horizon))[1]


def play_contextual_bandit(
    key: Array,
    features: Array,
    rewards: Array,
    *,
    explorer: Callable[[Array, Array, Array, Array], Array] = linucb_arm,
    horizon: int = 200,
) -> ContextualRun:
    """`horizon` rounds: a random user, an arm by an explorer that sees the user's features, the user's reward for it.

    Args:
      key: a PRNG key.
      features, rewards: of a `RatingBandit`, or some of its rows.
      explorer: (key, context, precisions, targets) to an arm.
      horizon: at least 1.

    Shapes: features `[N, d]`, rewards `[N, K]`; a `ContextualRun`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: horizon below 1.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE).
    """
    (features,), (rewards,) = checks.floats(features=features), checks.floats(rewards=rewards)
    if features.ndim != 2 or rewards.ndim != 2 or len(features) != len(rewards):
        raise AssertionError(
            f"features and rewards must have shapes (N, d) and (N, K), got {features.shape} and {rewards.shape}"
        )
    checks.positive_integer("horizon", horizon)
    size = features.shape[-1]

    def step(seen, key):
        precisions, targets = seen
        of_user, of_arm = jax.random.split(key)
        user = jax.random.randint(of_user, (), 0, len(features))
        x = features[user]
        arm = explorer(of_arm, x, precisions, targets)
        reward = rewards[user, arm]
        seen = precisions.at[arm].add(jnp.outer(x, x)), targets.at[arm].add(reward * x)
        return seen, ContextualRun(user.astype(jnp.int32), arm.astype(jnp.int32), reward)

    arms = rewards.shape[-1]
    start = (jnp.tile(jnp.eye(size), (arms, 1, 1)), jnp.zeros((arms, size)))
    return jax.lax.scan(step, start, jax.random.split(key, horizon))[1]
