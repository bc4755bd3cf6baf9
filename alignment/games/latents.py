"""Latent strategies of free text: k-means on embeddings, the game between clusters, and pairs that lead back to text.

LSPO (Xu et al., 2025, arXiv 2502.04686) sorts utterances into few latent strategies, solves the game of these
(`alignment.games.regret_matching`), and tunes the language model by DPO on pairs of utterances of different latents.
`experiments.latent_game` does all of it on small word games.
"""

from typing import NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from alignment import checks

Array = jax.Array


class Clusters(NamedTuple):
    """Whose cluster each point is in, the centres, and after each step the mean squared distance to the nearest centre.

    Shapes: assignments int32 `[N]`, centres float32 `[K, D]`, distortions float32 `[steps + 1]`, the first of the given
    centres.
    """

    assignments: Array
    centres: Array
    distortions: Array


def _points(points: Array) -> Array:
    (points,) = checks.floats(points=points)
    if points.ndim != 2 or not points.size:
        raise AssertionError(f"points must have shape (N, D), neither of them 0, got {points.shape}")
    return points


def farthest_points(points: Array, *, count: int) -> Array:
    """The point farthest from the mean of all, then again and again the one farthest from those that are taken.

    Centres for `lloyd` to begin with: the same for the same points, and in different clusters where these lie apart. Of
    equally far points the first.

    Args:
      points: embeddings.
      count: K, at least 1 and at most N.

    Shapes: points `[N, D]`; result float32 `[K, D]`.

    Raises:
      AssertionError: not floating, another rank, or empty.
      ValueError: count out of range.

    Paper: Gonzalez, 1985 (farthest-first traversal); arXiv 2502.04686 (LSPO) does not say how k-means begins.
    """
    points = _points(points)
    checks.positive_integer("count", count)
    if count > len(points):
        raise ValueError(f"count must be at most the {len(points)} points, got {count}")
    chosen = [points[jnp.argmax(jnp.sum(jnp.square(points - points.mean(axis=0)), axis=-1))]]
    nearest = jnp.full(len(points), jnp.inf)
    for _ in range(count - 1):
        nearest = jnp.minimum(nearest, jnp.sum(jnp.square(points - chosen[-1]), axis=-1))
        chosen.append(points[jnp.argmax(nearest)])
    return jnp.stack(chosen)


def lloyd(points: Array, centres: Array, *, steps: int = 20) -> Clusters:
    """k-means by Lloyd's iteration: c_i = argmin_c ||e_i - m_c||^2, then m_c = mean of its members, over and over.

    The distortion never rises. A centre without members stays where it is; of equally near centres the first wins.

    Args:
      points: embeddings e.
      centres: m to begin with, e.g. of `farthest_points`.
      steps: at least 1.

    Shapes: points `[N, D]`, centres `[K, D]`; a `Clusters`, whose assignments are to its centres.

    Raises:
      AssertionError: not floating, another rank, empty, or points and centres of different dimension.
      ValueError: steps out of range.

    Paper: Lloyd, 1982; for LSPO Xu et al., 2025, arXiv 2502.04686.
    """
    checks.positive_integer("steps", steps)
    points = _points(points)
    (centres,) = checks.floats(centres=centres)
    if centres.ndim != 2 or not len(centres) or centres.shape[1] != points.shape[1]:
        raise AssertionError(f"centres must have shape (K, {points.shape[1]}) to go with points, got {centres.shape}")

    def assign(centres):
        distances = jnp.sum(jnp.square(points[:, None] - centres), axis=-1)
        return jnp.argmin(distances, axis=-1), jnp.mean(jnp.min(distances, axis=-1))

    def step(centres, _):
        assignments, distortion = assign(centres)
        member = jax.nn.one_hot(assignments, len(centres), dtype=points.dtype)
        counts = jnp.sum(member, axis=0)[:, None]
        means = member.T @ points / jnp.maximum(counts, 1.0)
        return jnp.where(counts > 0, means, centres), distortion

    centres, distortions = jax.lax.scan(step, centres, None, length=steps)
    assignments, last = assign(centres)
    return Clusters(assignments.astype(jnp.int32), centres, jnp.append(distortions, last))


def latent_payoffs(payoffs: Array, latents: Array, opponent_latents: Array, *, count: int) -> Array:
    """U[c, d]: the mean of u(i, j) over the utterances i of latent c and j of latent d; the game of the latents.

    Args:
      payoffs: u(i, j), what utterance i earns against the opponent's utterance j.
      latents: c_i in [0, count).
      opponent_latents: of the opponent's utterances.
      count: of latents; each must have a member on both sides, or its payoff is not known.

    Shapes: payoffs `[N, M]`, latents (integer) `[N]`, opponent_latents (integer) `[M]`; result float32
    `[count, count]`.

    Raises:
      AssertionError: shapes do not agree, payoffs not floating or latents not integer.
      ValueError: count below 1, a latent outside of [0, count) or without a member, where values are known.

    Paper: Xu et al., 2025, arXiv 2502.04686, whose game is played to find payoffs.
    """
    checks.positive_integer("count", count)
    checks.integers(latents=latents, opponent_latents=opponent_latents)
    (payoffs,) = checks.floats(payoffs=payoffs)
    if payoffs.shape != (*jnp.shape(latents), *jnp.shape(opponent_latents)) or payoffs.ndim != 2:
        raise AssertionError(
            f"payoffs {payoffs.shape} must be of latents {jnp.shape(latents)} and opponent_latents "
            f"{jnp.shape(opponent_latents)}"
        )
    for name, own in (("latents", latents), ("opponent_latents", opponent_latents)):
        if not isinstance(own, jax.core.Tracer) and set(np.asarray(own).tolist()) != set(range(count)):
            raise ValueError(f"{name} must be all of 0 to {count - 1}, got {sorted(set(np.asarray(own).tolist()))}")
    shares = []
    for own in (latents, opponent_latents):
        member = jax.nn.one_hot(own, count, dtype=payoffs.dtype)
        shares.append(member / jnp.maximum(jnp.sum(member, axis=0), 1.0))
    return shares[0].T @ payoffs @ shares[1]


def latent_pairs(latents: Array, values: Array, *, margin: float = 0.0) -> Array:
    """[i, j] is True where utterance i is to be preferred to j: V(c_i) - V(c_j) > margin.

    Utterances of one latent are never paired, since their values are the same. All are of one game state.

    Args:
      latents: c_i in [0, K), of the candidates of one state.
      values: V of each latent.
      margin: in [0, inf).

    Shapes: latents (integer) `[..., N]`, values `[..., K]`; result bool `[..., N, N]`.

    Raises:
      AssertionError: leading shapes do not agree, values not floating or latents not integer.
      ValueError: margin out of range.

    Paper: Xu et al., 2025, arXiv 2502.04686; their rule of choice among the pairs was not found, all are given.
    """
    checks.number("margin", margin, 0.0, closed="left")
    checks.integers(latents=latents)
    (values,) = checks.floats(values=values)
    latents = jnp.asarray(latents)
    if values.ndim < 1 or latents.shape[:-1] != values.shape[:-1] or latents.ndim < 1:
        raise AssertionError(f"latents {latents.shape} and values {values.shape} must agree in all axes but the last")
    of_each = jnp.take_along_axis(values, latents, axis=-1)
    # Not only by the difference: a value of -inf less itself is not a number, and an infinite one no margin.
    return (of_each[..., :, None] - of_each[..., None, :] > margin) & (latents[..., :, None] != latents[..., None, :])
