"""Span rewards as token rewards: which tokens a praised or blamed stretch of text covers. Plain numpy, on the host.

Offsets are (start, end) character positions of each token in the completion, as fast tokenizers give them;
`byte_offsets` makes them for the byte tokenizer. Tokens without text (an end token, padding) have start == end.
"""

import re
from collections.abc import Sequence

import numpy as np


def find_spans(text: str, labelled: Sequence[tuple[str, int]]) -> tuple[list[tuple[int, int, int]], list[str]]:
    """Places of quoted stretches, as ((start, end, label) in the order of `labelled`, the stretches not found).

    A critique quotes text without saying where it stands. A stretch that occurs several times is taken at its first
    occurrence that no earlier entry of the list has taken, so that quoting a repeated phrase twice labels both places.
    Letters within a word do not count as an occurrence of it: "he" is not found in "the".
    """
    taken = np.zeros(len(text), bool)
    found: list[tuple[int, int, int]] = []
    missing: list[str] = []
    for phrase, label in labelled:
        for start in _occurrences(text, phrase):
            end = start + len(phrase)
            if not taken[start:end].any():
                taken[start:end] = True
                found.append((start, end, _sign(label)))
                break
        else:
            missing.append(phrase)
    return found, missing


def token_labels(text: str, offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """`character_labels` of the spans widened to whole words: every token of a word inherits the word's label."""
    return character_labels(text, offsets, whole_words(text, spans))


def whole_words(text: str, spans: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """The same spans, each from the beginning of the first word that it touches to the end of the last."""
    words = [match.span() for match in re.finditer(r"\w+", text)]
    starts, ends = np.array([w[0] for w in words], int), np.array([w[1] for w in words], int)
    widened = []
    for start, end, label in spans:
        _check_inside(text, start, end)
        touched = (starts < end) & (ends > start)
        if touched.any():
            start, end = int(min(start, starts[touched].min())), int(max(end, ends[touched].max()))
        widened.append((start, end, label))
    return widened


def _check_inside(text: str, start: int, end: int) -> None:
    if not 0 <= start < end <= len(text):
        raise ValueError(f"span ({start}, {end}) must lie in the text of {len(text)} characters and not be empty")


def character_labels(
    text: str, offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int, int]]
) -> np.ndarray:
    """int8 [T]: +1 for tokens of good spans, -1 of bad ones, 0 elsewhere.

    A token takes the label of any of its characters; characters that good and bad spans share count for neither (0),
    and a token with characters of both signs takes the majority.
    """
    marks = np.zeros((2, len(text)), bool)
    for start, end, label in spans:
        _check_inside(text, start, end)
        marks[0 if _sign(label) > 0 else 1, start:end] = True
    characters = marks[0].astype(np.int64) - marks[1]
    sums = np.concatenate([[0], np.cumsum(characters)])
    labels = np.zeros(len(offsets), np.int8)
    for i, (start, end) in enumerate(offsets):
        if not 0 <= start <= end <= len(text):
            raise ValueError(f"offsets[{i}]=({start}, {end}) must lie in the text of {len(text)} characters")
        labels[i] = np.sign(sums[end] - sums[start])
    return labels


def token_rewards(labels: np.ndarray, token_kls: np.ndarray, mask: np.ndarray, *, beta: float) -> np.ndarray:
    """labels - beta * KL per token, 0 where the mask is False: the token rewards of Text2Grad, [..., T] float32.

    `token_kls` is any per-token estimate against the reference: k1 (policy minus reference log-probs), or the exact
    divergence over the vocabulary as in the released configuration. With k1 this is
    `policy_gradients.kl_shaped_rewards` of score 0, and the labels. GAE and PPO follow.

    Paper: Wang et al., 2025, arXiv 2505.22338.
    """
    labels, token_kls, mask = np.asarray(labels), np.asarray(token_kls, np.float32), np.asarray(mask)
    if mask.dtype != np.bool_ or not labels.shape == token_kls.shape == mask.shape:
        raise ValueError(
            f"labels, token_kls and a bool mask must have one shape, got {labels.shape}, {token_kls.shape}, "
            f"{mask.dtype} {mask.shape}"
        )
    if not beta >= 0:
        raise ValueError(f"beta must lie in [0, inf), got {beta}")
    return np.where(mask, labels - np.float32(beta) * token_kls, np.float32(0))


def byte_offsets(text: str) -> list[tuple[int, int]]:
    """Offsets of the byte tokenizer's tokens: each byte of a character covers the whole character."""
    return [(i, i + 1) for i, c in enumerate(text) for _ in c.encode("utf-8")]


def _occurrences(text: str, phrase: str) -> list[int]:
    if not phrase.strip():
        return []
    before = r"(?<!\w)" if re.match(r"\w", phrase) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", phrase) else ""
    return [match.start() for match in re.finditer(f"{before}(?={re.escape(phrase)}{after})", text)]


def _sign(label: int) -> int:
    if label not in (-1, 1):
        raise ValueError(f"the label of a span must be 1 or -1, got {label!r}")
    return label
