"""What every evaluation does at its door, and ordering with ties: numpy in float64, errors that name the argument."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def vector(name: str, values: Any) -> np.ndarray:
    """`[N]` float64, N > 0, finite; ValueError that names the argument and the first bad entry."""
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{name} must have shape [N] with N > 0, got {array.shape}")
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(f"{name} must be finite, got {array[bad]} at {bad}")
    return array


def shares(name: str, values: Any) -> np.ndarray:
    """`vector` with entries in [0, 1]."""
    array = vector(name, values)
    outside = np.flatnonzero((array < 0) | (array > 1))
    if outside.size:
        raise ValueError(f"{name} must lie in [0, 1], got {array[outside[0]]:g} at {outside[0]}")
    return array


def same_length(**arrays: Sequence) -> None:
    """ValueError that names the arguments and their lengths if these differ."""
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"lengths differ: {', '.join(f'{name} {n}' for name, n in lengths.items())}")


def groups(labels: Sequence) -> tuple[list, np.ndarray]:
    """(the distinct labels in order of appearance, the number of each entry's label `[N]`)."""
    numbers: dict[Any, int] = {}
    of_entries = np.array([numbers.setdefault(label, len(numbers)) for label in labels], np.int64)
    return list(numbers), of_entries


def group_means(values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Mean of the values of each group `[G]`."""
    return np.bincount(numbers, weights=values) / np.bincount(numbers)


def mean_over_ties(keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`[N]`: each value replaced by the mean over the entries of equal key.

    What depends on the order of the keys and is linear in the values then has its mean over all ways to break ties.
    """
    numbers = np.unique(keys, return_inverse=True)[1]
    return group_means(values, numbers)[numbers]


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 `[N]`; equal values share the mean of theirs."""
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(1, len(values) + 1)
    return mean_over_ties(values, ranks)
