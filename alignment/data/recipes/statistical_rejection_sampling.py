"""Statistical rejection sampling (RSO): thins samples of one policy to samples of a better one, and pairs them.

Liu et al., 2023, arXiv 2309.06657. The target is the optimum of reward minus beta KL to the sampling policy,
pi*(y) proportional to pi(y) exp(r(y) / beta); a candidate y of pi is kept with probability exp((r(y) - r_max) / beta).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alignment import checks
from alignment.losses.masking import keep

Array = jax.Array


def rso_acceptance(rewards: Array, left: Array, *, beta: float = 0.5) -> Array:
    """Probability of keeping each candidate in one pass: exp((r_i - r_max) / beta), r_max the largest reward left.

    It is exactly 1 for the best candidate left, 0 for those that are no longer there, and the same for rewards that
    differ by a constant.

    Args:
      rewards: one reward per candidate of a prompt.
      left: bool, True for candidates still in the draw; rewards of the others are not looked at.
      beta: temperature of the target, in (0, inf]; inf keeps everything.

    Shapes: both `[..., N]`; result float32 `[..., N]`. A row with nothing left gives zeros.

    Raises:
      AssertionError: shapes differ, rewards not floating or left not bool.
      ValueError: static beta out of range.

    Paper: Liu et al., 2023, arXiv 2309.06657.
    """
    (rewards,) = checks.floats(rewards=rewards)
    checks.number("beta", beta, 0.0, closed="right")
    top = jnp.max(keep(rewards, left, -jnp.inf), axis=-1, keepdims=True)
    # What is gone gets the reward of the best, so that no inf - inf arises behind the mask.
    gaps = jnp.where(left, rewards, top) - jnp.where(jnp.isfinite(top), top, 0.0)
    return jnp.where(left, jnp.exp(jnp.where(left, gaps, 0.0) / beta), 0.0)


def statistical_rejection_sampling(
    rewards: np.ndarray, rng: np.random.Generator, *, k: int = 8, beta: float = 0.5
) -> np.ndarray:
    """Indices of up to k candidates, in the order in which they were accepted, drawn without replacement.

    Pass after pass over what is left, each candidate is accepted with the probability of `rso_acceptance`, whose r_max
    is taken anew at the start of a pass; it ends as soon as k are accepted, or none is left. Every pass accepts at
    least the best one. With N close to k nearly everything is kept, and the outcome follows the sampling policy rather
    than the target: the paper draws N = 64 for k = 8.

    Args:
      rewards: of the candidates in the order in which they were drawn.
      rng: N uniform numbers are taken from it per pass.
      k: how many to accept, at least 1.
      beta: in (0, inf]; towards 0 the k best are kept, at inf the first k.

    Shapes: rewards `[N]`; result int64 `[min(k, N)]`.

    Raises:
      ValueError: a hyperparameter out of range, rewards not finite or not a vector.

    Paper: Liu et al., 2023, arXiv 2309.06657 (the listing in its appendix).
    """
    rewards = np.asarray(rewards, np.float64)
    checks.number("beta", beta, 0.0, closed="right")
    checks.positive_integer("k", k)
    if rewards.ndim != 1 or not np.isfinite(rewards).all():
        raise ValueError("rewards must be a vector of finite numbers")
    kept: list[int] = []
    left = list(range(len(rewards)))
    while left and len(kept) < k:
        draws, top = rng.random(len(rewards)), rewards[left].max()
        accepted = [i for i in left if draws[i] < np.exp((rewards[i] - top) / beta)][: k - len(kept)]
        kept += accepted
        left = [i for i in left if i not in accepted]
    return np.array(kept, np.int64)


def statistical_rejection_sampling_fixed(rewards: Array, uniforms: Array, *, k: int = 8, beta: float = 0.5) -> Array:
    """`statistical_rejection_sampling` as a fixed number of masked passes, for `jit` and many prompts at once.

    Given the uniform numbers that the other function drew, and up to rounding to float32, it accepts the same
    candidates in the same order. k passes always suffice; with fewer, the last places may stay empty.

    Args:
      rewards: of the candidates.
      uniforms: numbers in [0, 1), one per pass and candidate.
      k: how many to accept, at least 1.
      beta: in (0, inf].

    Shapes: rewards `[..., N]`, uniforms `[..., P, N]`; result int32 `[..., k]`, -1 where nothing (more) was accepted.

    Raises:
      AssertionError: shapes do not agree or arrays are not floating.
      ValueError: a hyperparameter out of range.

    Paper: Liu et al., 2023, arXiv 2309.06657.
    """
    (rewards,), (uniforms,) = checks.floats(rewards=rewards), checks.floats(uniforms=uniforms)
    checks.positive_integer("k", k)
    checks.same_shape(rewards=rewards, uniforms_of_a_pass=uniforms[..., 0, :])
    count = rewards.shape[-1]

    def one_pass(carry, draws):
        left, place, accepted_so_far = carry
        # A uniform number may round up to 1 in float32, and the best one is accepted whatever was drawn.
        probability = rso_acceptance(rewards, left, beta=beta)
        hit = left & ((draws < probability) | (probability >= 1.0))
        order = accepted_so_far + jnp.cumsum(hit, axis=-1) - 1
        hit &= order < k
        place = jnp.where(hit, order, place)
        return (left & ~hit, place, accepted_so_far + jnp.sum(hit, axis=-1, keepdims=True)), None

    start = (
        jnp.ones(rewards.shape, bool),
        jnp.full(rewards.shape, k, jnp.int32),
        jnp.zeros((*rewards.shape[:-1], 1), jnp.int32),
    )
    (_, place, _), _ = jax.lax.scan(one_pass, start, jnp.moveaxis(uniforms, -2, 0))
    # One column past the end takes what was not accepted.
    slots = jnp.full((*rewards.shape[:-1], k + 1), -1, jnp.int32)
    numbers = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32), rewards.shape)
    return jnp.put_along_axis(slots, place, numbers, axis=-1, inplace=False)[..., :k]


def rso_first_round_pairs(kept: np.ndarray, rewards: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pairs (better, worse) of the accepted candidates: shuffled, then each with its neighbour; ties give no pair.

    Args:
      kept: indices into rewards, as `statistical_rejection_sampling` returns them; of an odd number one stays alone.
      rewards: of all candidates.

    Shapes: kept `[k]`, rewards `[N]`; result int64 `[M, 2]`, M at most k // 2.

    Paper: Liu et al., 2023, arXiv 2309.06657 ("first-round-rank", which it finds close to the tournament).
    """
    return _matches(rng.permutation(np.asarray(kept, np.int64)), np.asarray(rewards))[0]


def rso_tournament_pairs(kept: np.ndarray, rewards: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pairs (better, worse) of a knock-out tournament among the accepted: k - 1 of them if no two rewards are equal.

    A tie gives no pair, and one of the two goes on; who has no opponent in a round goes on as well.

    Shapes: as for `rso_first_round_pairs`, M at most k - 1.

    Paper: Liu et al., 2023, arXiv 2309.06657 ("tournament-rank").
    """
    rewards, pairs = np.asarray(rewards), [np.empty((0, 2), np.int64)]
    players = rng.permutation(np.asarray(kept, np.int64))
    while len(players) > 1:
        found, players = _matches(players, rewards)
        pairs.append(found)
    return np.concatenate(pairs)


PAIRINGS = {"first_round": rso_first_round_pairs, "tournament": rso_tournament_pairs}


def _matches(players: np.ndarray, rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(pairs of neighbours that are no ties, better one first; who goes on)."""
    even = len(players) // 2 * 2
    a, b = players[0:even:2], players[1:even:2]
    winners, losers = np.where(rewards[a] >= rewards[b], a, b), np.where(rewards[a] >= rewards[b], b, a)
    decided = rewards[a] != rewards[b]
    return np.stack([winners[decided], losers[decided]], axis=1), np.concatenate([winners, players[even:]])


def records(
    candidates: Iterable[Mapping[str, Any]],
    rng: np.random.Generator,
    *,
    k: int = 8,
    beta: float = 0.5,
    pairing: str = "first_round",
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Pairs (kind `pairs`, the margin the difference of rewards) from {prompt, responses, rewards}, and counts."""
    if pairing not in PAIRINGS:
        raise ValueError(f"{pairing=} is not one of {', '.join(PAIRINGS)}")
    out = []
    counts = dict.fromkeys(("prompts", "candidates", "accepted", "pairs", "accepted_without_pair"), 0)
    counts["dropped_pairs_of_equal_text"] = 0
    for candidate in candidates:
        rewards = np.asarray(candidate["rewards"], np.float64)
        kept = statistical_rejection_sampling(rewards, rng, k=k, beta=beta)
        pairs = PAIRINGS[pairing](kept, rewards, rng)
        counts["prompts"] += 1
        counts["candidates"] += len(rewards)
        counts["accepted"] += len(kept)
        counts["accepted_without_pair"] += len(kept) - len(np.unique(pairs))
        for better, worse in pairs.tolist():
            chosen, rejected = candidate["responses"][better], candidate["responses"][worse]
            if chosen == rejected:  # rounding may score one text twice differently
                counts["dropped_pairs_of_equal_text"] += 1
                continue
            margin = float(rewards[better] - rewards[worse])
            out.append({"prompt": candidate["prompt"], "chosen": chosen, "rejected": rejected, "margin": margin})
    counts["pairs"] = len(out)
    return out, counts
