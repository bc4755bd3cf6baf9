"""ArmoRM on given features: ridge regression of attributes, verbosity taken out of them, a gate that reads the prompt.

Wang et al., 2024, arXiv 2406.12845. The public stage-2 script trains the gate on rewards whose verbosity was not taken
out; here, as in the paper and in the released model, they are adjusted.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alignment import checks

Array = jax.Array


def ridge(features: np.ndarray, ratings: np.ndarray, rated: np.ndarray, *, alphas: Sequence[float]) -> np.ndarray:
    """Weights [D, K]: for each attribute the w that minimises sum (w . f - y)^2 + alpha_k |w|^2 over its rated rows.

    Args:
      features: [N, D] hidden states of the responses' last tokens.
      ratings: [N, K], of one range.
      rated: bool [N, K].
      alphas: one for each attribute, above 0; the paper takes the best of 1e-4 .. 1e4 on a fifth of the data
        (`best_alphas`).

    Raises:
      ValueError: shapes do not go together, an attribute that nobody rated, or an alpha that is not above 0.
    """
    features, ratings, rated = np.asarray(features, np.float64), np.asarray(ratings, np.float64), np.asarray(rated)
    if ratings.shape != rated.shape or len(features) != len(ratings) or len(alphas) != ratings.shape[1]:
        raise ValueError(
            f"features {features.shape}, ratings {ratings.shape}, rated {rated.shape} and {len(alphas)} alphas do not "
            "go together"
        )
    columns = []
    for k, alpha in enumerate(alphas):
        rows = rated[:, k]
        if not rows.any() or not alpha > 0:
            raise ValueError(f"attribute {k}: needs at least one rating and an alpha above 0, got alpha {alpha}")
        f = features[rows]
        columns.append(np.linalg.solve(f.T @ f + alpha * np.eye(f.shape[1]), f.T @ ratings[rows, k]))
    return np.stack(columns, axis=1)


def best_alphas(features, ratings, rated, *, grid: Sequence[float], seed: int = 0) -> list[float]:
    """The alpha of each attribute with the least squared error on a fifth of the rows, the weights from the rest."""
    rng = np.random.default_rng(seed)
    held = np.zeros(len(features), bool)
    held[rng.permutation(len(features))[: max(1, len(features) // 5)]] = True
    errors = []
    for alpha in grid:
        weights = ridge(features[~held], ratings[~held], rated[~held], alphas=[alpha] * ratings.shape[1])
        missed = np.where(rated[held], features[held] @ weights - ratings[held], 0.0)
        errors.append((missed**2).sum(axis=0))
    return [grid[i] for i in np.argmin(errors, axis=0)]


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Rank correlation, ties by their mean rank; 0 where one of the two is constant."""

    def ranks(values):
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[place]

    x, y = ranks(np.asarray(x)), ranks(np.asarray(y))
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / scale) if scale else 0.0


def verbosity_transform(
    rewards: np.ndarray, verbosity: int, *, grid: Sequence[float], threshold: float = 0.03
) -> np.ndarray:
    """T [K, K] so that `rewards @ T` has verbosity taken out: r'_k = r_k - lambda_k r_verb.

    lambda_k is the smallest value of the grid at which the rank correlation of r'_k with verbosity is at most the
    threshold; lambda of verbosity itself is 1, so that it becomes 0.

    Args:
      rewards: [N, K] of reference responses.
      verbosity: its column.
      grid: values to try, ascending.
      threshold: in [-1, 1].

    Raises:
      ValueError: no value of the grid brings an attribute down to the threshold.
    """
    checks.number("threshold", threshold, -1.0, 1.0, closed="both")
    count = rewards.shape[1]
    transform = np.eye(count)
    for k in range(count):
        if k == verbosity:
            transform[k, k] = 0.0
            continue
        for value in grid:
            if spearman(rewards[:, k] - value * rewards[:, verbosity], rewards[:, verbosity]) <= threshold:
                transform[verbosity, k] = -value
                break
        else:
            raise ValueError(f"attribute {k}: no value of the grid up to {grid[-1]} takes verbosity out of it")
    return transform


def init_gate(rng: Array, width: int, attributes: int, *, hidden: Sequence[int] = (1024, 1024, 1024)) -> dict[str, Any]:
    """Parameters of the gate: ReLU layers, a last linear one that starts near 0, and the scale s = 1."""
    sizes = (width, *hidden, attributes)
    keys = jax.random.split(rng, len(sizes) - 1)
    layers = [
        {"w": jax.random.normal(key, (n, m)) * np.sqrt(2 / n), "b": jnp.zeros(m)}
        for key, n, m in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]
    layers[-1]["w"] = layers[-1]["w"] * 0.01
    return {"layers": layers, "scale": jnp.ones(())}


def gate(params: Mapping[str, Any], prompt_features: Array, *, temperature: float = 10.0) -> Array:
    """g(x) = s * softmax(MLP(f_prompt) / T): `[..., D]` to `[..., K]`, float32."""
    checks.number("temperature", temperature, 0.0)
    (h,) = checks.floats(prompt_features=prompt_features)
    *hidden, last = params["layers"]
    for layer in hidden:
        h = jax.nn.relu(h @ layer["w"] + layer["b"])
    return params["scale"] * jax.nn.softmax((h @ last["w"] + last["b"]) / temperature, axis=-1)


def armo_score(gates: Array, rewards: Array, transform: Array) -> Array:
    """R = sum_k g_k(x) r'_k(x, y): `[..., K]`, `[..., K]` and `[K, K]` to `[...]`, float32."""
    gates, rewards = checks.floats(gates=gates, rewards=rewards)
    return jnp.sum(gates * (rewards @ jnp.asarray(transform, rewards.dtype)), axis=-1)
