"""Preference matrices that several tests of games share."""

import numpy as np


def random_preferences(rng, shape=(), size=5):
    upper = np.triu(rng.random((*shape, size, size)), 1)
    lower = np.tril(1 - np.swapaxes(upper, -1, -2), -1)
    return (upper + lower + 0.5 * np.eye(size)).astype(np.float32)
