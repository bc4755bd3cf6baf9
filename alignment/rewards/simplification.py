"""The simplification reward on generated sentences: a classifier trained on both kinds of text, and a content term.

Rahman et al., 2024, arXiv 2401.15043. The classifier is a logistic regression on counts that any text has, fitted once
to learned sentences (0) and their plain versions (1) by its cross-entropy; no pairs are needed to apply it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignment.rewards import tasks
from alignment.rewards.assisted_tasks import PLAIN
from alignment.rewards.readability import Simplicity, syllables

_CONCEPTS = {word: learned for kind in PLAIN.values() for learned, plain in kind.items() for word in (learned, plain)}
RIDGE = 1e-3  # keeps the weights finite where a count tells all the texts apart
_STEPS = 30


def features(text: str) -> np.ndarray:
    """[4]: a constant, letters per word / 5, syllables per word, and the share of words of three syllables or more."""
    words = re.findall(r"[A-Za-z]+", text)
    if not words:
        return np.array([1.0, 0.0, 0.0, 0.0])
    counts = np.array([syllables(word) for word in words])
    return np.array([1.0, np.mean([len(word) for word in words]) / 5, counts.mean(), (counts >= 3).mean()])


def fit(texts: Sequence[str], simple: Sequence[bool]) -> np.ndarray:
    """Weights [4] of the logistic regression: the least mean binary cross-entropy (and ridge), by Newton's method."""
    rows, labels = np.stack([features(text) for text in texts]), np.asarray(simple, float)
    weights = np.zeros(rows.shape[1])
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-rows @ weights))
        gradient = rows.T @ (chance - labels) / len(rows) + RIDGE * weights
        curvature = (rows * (chance * (1 - chance))[:, None]).T @ rows / len(rows) + RIDGE * np.eye(len(weights))
        weights -= np.linalg.solve(curvature, gradient)
    return weights


@functools.cache
def classifier() -> np.ndarray:
    """The weights fitted to 400 generated sentences and their plain versions."""
    records = tasks.generate("plain_words", 400, 0, "train", 2)
    texts = [r["source"] for r in records] + [r["answer"] for r in records]
    return fit(texts, [False] * len(records) + [True] * len(records))


def log_odds(text: str) -> float:
    """Of "plain" against "learned"; text without words is as learned as it is plain."""
    return float(features(text) @ classifier()) if re.search(r"[A-Za-z]", text) else 0.0


def kept_content(source: str, text: str) -> float:
    """F1 of what source and text speak of: a learned word and its plain one are the same thing. In [0, 1]."""
    said = [{_CONCEPTS.get(w, w) for w in re.findall(r"[a-z]+", part.lower())} for part in (source, text)]
    shared = len(said[0] & said[1])
    return 2 * shared / (len(said[0]) + len(said[1])) if shared else 0.0


def reward(prompt: str, completion: str, record: Mapping[str, Any]) -> float:
    """`Simplicity` with this classifier (0.3) and content term (0.7, so that no short word outweighs what it leaves
    out), in [0, 1]."""
    return _SIMPLICITY(prompt, completion, record)


_SIMPLICITY = Simplicity(log_odds, kept_content, simplicity_weight=0.3, content_weight=0.7)
