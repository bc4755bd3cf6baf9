"""Pretraining with human feedback, as data: text whose segments are scored for badness, conditioned on it or filtered.

Korbak et al., 2023, arXiv 2302.08582. A document is {prompt, segments, scores}: sentences or lines, and of each how bad
it is, a number of at least 0. The losses on such scores are in `alignment.losses.feedback_pretraining`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

GOOD, BAD = "<|aligned|>", "<|misaligned|>"


def _checked(document: Mapping[str, Any]) -> tuple[list[str], np.ndarray]:
    segments, scores = document["segments"], np.asarray(document["scores"], np.float64)
    if not segments or scores.shape != (len(segments),):
        raise ValueError(f"{len(segments)} segments and {scores.size} scores: one of each is needed, and at least one")
    if not (np.isfinite(scores).all() and (scores >= 0).all()):
        raise ValueError(f"scores must be finite and at least 0, got {scores.tolist()}")
    return list(segments), scores


def conditional_records(
    documents: Iterable[Mapping[str, Any]],
    rng: np.random.Generator,
    *,
    threshold: float,
    drop_fraction: float = 0.01,
    good: str = GOOD,
    bad: str = BAD,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Records of kind `completion` with a control token before each segment, and counts.

    The token is `good` where the score is at most `threshold`, else `bad`; with probability `drop_fraction` there is
    none, so that a model can also go on without. Control tokens are learnt like all others. Text is then asked for with
    `good` at the end of the prompt, and both tokens are left out of what is sampled.

    Args:
      rng: one uniform number is taken from it per segment.
      threshold: 5.6e-4 for toxicity in the paper, else 0.
      drop_fraction: in [0, 1]; 1 is plain text. 0.1 for code in the paper.

    Raises:
      ValueError: a hyperparameter out of range, or a document that does not fit together.

    Paper: Korbak et al., 2023, arXiv 2302.08582, as in the authors' `dataset_wrappers.py`.
    """
    if not 0 <= drop_fraction <= 1 or not threshold >= 0:
        raise ValueError(f"{drop_fraction=} must lie in [0, 1] and {threshold=} be at least 0")
    out, counts = [], dict.fromkeys(("documents", "segments", "good", "bad", "without_control_token"), 0)
    for document in documents:
        segments, scores = _checked(document)
        text = ""
        for segment, score, draw in zip(segments, scores, rng.random(len(segments)), strict=True):
            kind = "without_control_token" if draw < drop_fraction else "good" if score <= threshold else "bad"
            counts[kind] += 1
            text += {"good": good, "bad": bad}.get(kind, "") + segment
        counts["documents"] += 1
        counts["segments"] += len(segments)
        out.append({"prompt": document["prompt"], "completion": text})
    return out, counts


def filtered_records(
    documents: Iterable[Mapping[str, Any]], *, threshold: float
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Records of kind `completion` of the documents whose mean score is at most `threshold`, and counts.

    Compare with other objectives at as many tokens seen, not at as many epochs.

    Paper: Korbak et al., 2023, arXiv 2302.08582: 7.8e-4 for toxicity, 2.86e-4 for personal data, 2.361e-3 for code.
    """
    out, counts = [], {"documents": 0, "kept": 0, "dropped": 0}
    for document in documents:
        segments, scores = _checked(document)
        counts["documents"] += 1
        if scores.mean() <= threshold:
            counts["kept"] += 1
            out.append({"prompt": document["prompt"], "completion": "".join(segments)})
        else:
            counts["dropped"] += 1
    return out, counts


def scored_records(documents: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Records of kind `segments` whose rewards are R = -score, for the losses on tokens; nothing is dropped."""
    out = []
    for document in documents:
        segments, scores = _checked(document)
        out.append({"prompt": document["prompt"], "segments": segments, "rewards": [0.0 - s for s in scores.tolist()]})
    return out, {"documents": len(out), "segments": sum(len(r["segments"]) for r in out)}
