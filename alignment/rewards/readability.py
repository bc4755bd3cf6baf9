"""Rewards for simplification: a classifier of simple text, content that must stay, and readability formulas.

The classifier and the similarity are arguments, so that anything from a logistic regression to a reward model fits:
`log_odds(text) -> float` of "simplified" against "original", and `similarity(source, text) -> float` in [0, 1].

Paper: Rahman et al., 2024 (Health Text Simplification), arXiv 2401.15043. How the paper combines its terms is not
confirmed; the weighted sum here has its weights as arguments. A classifier alone can be won by repeating simple
phrases, and a readability formula by short fragments: keep a content term.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from alignment.rewards.instructions import sentences

Record = Mapping[str, Any]

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+(?:[.,]\d+)*")
_VOWELS = re.compile(r"[aeiouyàáâäæèéêëìíîïòóôöøœùúûü]+")


@dataclasses.dataclass(frozen=True)
class Simplicity:
    """simplicity_weight * sigmoid(log_odds(completion)) + content_weight * similarity(source, completion).

    With `as_logit` the classifier term is the log-odds itself, unbounded. The source is the record's `source`, or the
    prompt where the record has none.

    Raises:
      ValueError: a weight is negative, or both are 0.
    """

    log_odds: Callable[[str], float]
    similarity: Callable[[str, str], float] | None = None
    simplicity_weight: float = 1.0
    content_weight: float = 1.0
    as_logit: bool = False

    def __post_init__(self):
        if min(self.simplicity_weight, self.content_weight) < 0 or self.simplicity_weight + self.content_weight == 0:
            raise ValueError(
                f"simplicity_weight and content_weight must not be negative, nor both 0, got {self.simplicity_weight} "
                f"and {self.content_weight}"
            )

    def __call__(self, prompt: str, completion: str, record: Record) -> float:
        logit = self.log_odds(completion)
        reward = self.simplicity_weight * (logit if self.as_logit else sigmoid(logit))
        if self.content_weight:
            similarity = self.similarity or word_overlap
            reward += self.content_weight * similarity(record.get("source", prompt), completion)
        return reward


def negative_grade(prompt: str, completion: str, record: Record) -> float:
    """Minus the Flesch-Kincaid grade of the completion."""
    return -flesch_kincaid_grade(completion)


def grade_reduction(prompt: str, completion: str, record: Record) -> float:
    """max(0, grade of the source - grade of the completion); the source is the record's `source`, or the prompt."""
    return max(0.0, flesch_kincaid_grade(record.get("source", prompt)) - flesch_kincaid_grade(completion))


def flesch_kincaid_grade(text: str) -> float:
    """Grade of `flesch_kincaid` from the text's own counts; text without a word has the grade of one short word.

    (Were it 0 or less, an empty completion would be the simplest of all.)
    """
    found = _WORD.findall(text)
    if not found:
        return flesch_kincaid(1, 1, 1)
    return flesch_kincaid(len(found), max(1, len(sentences(text))), sum(map(syllables, found)))


def flesch_kincaid(words: int, sentences: int, syllables: int) -> float:
    """0.39 words/sentences + 11.8 syllables/words - 15.59."""
    if min(words, sentences, syllables) < 1:
        raise ValueError(f"counts must be at least 1, got {words=}, {sentences=}, {syllables=}")
    return 0.39 * words / sentences + 11.8 * syllables / words - 15.59


def syllables(word: str) -> int:
    """Vowel groups, less a silent final e; at least 1. The usual approximation for English."""
    word = word.lower()
    groups = len(_VOWELS.findall(word))
    silent = re.search(r"[^aeiouy]e\Z", word) and not re.search(r"[^aeiouy]le\Z", word)
    return max(1, groups - bool(silent))


def word_overlap(source: str, text: str) -> float:
    """F1 of the words shared by source and text, with multiplicity, in [0, 1]: a content term without any model.

    Empty text shares nothing, and a repeated word counts as often as the source has it.
    """
    counts = [collections.Counter(word.lower() for word in _WORD.findall(one)) for one in (source, text)]
    shared = (counts[0] & counts[1]).total()
    return 2 * shared / (counts[0].total() + counts[1].total()) if shared else 0.0


def sigmoid(logit: float) -> float:
    # Each branch exponentiates a number that is not positive.
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))
