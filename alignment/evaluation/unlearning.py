"""What a model still knows: probability, overlap of its answers with the truth, and the truth ratio of TOFU.

All on questions about what was to be forgotten, or kept, or was never seen. Log-probs are sums over an answer's tokens.
"""

from collections.abc import Sequence

import numpy as np


def answer_probability(logps: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """p(a|q)^(1/|a|), the geometric mean of the token probabilities of each answer, in [0, 1].

    Args:
      logps: summed log-probs of the answers, at most 0.
      lengths: their numbers of tokens, at least 1.

    Shapes: `[...]` both and of the result.

    Paper: Maini et al., 2024 (TOFU), arXiv 2401.06121.
    """
    logps, lengths = np.asarray(logps, np.float64), np.asarray(lengths)
    if logps.shape != lengths.shape or (lengths < 1).any():
        raise ValueError(f"logps {logps.shape} and lengths {lengths.shape} must agree, and lengths be at least 1")
    return np.exp(logps / lengths)


def truth_ratio(
    paraphrase_logps: np.ndarray, paraphrase_lengths: np.ndarray, wrong_logps: np.ndarray, wrong_lengths: np.ndarray
) -> np.ndarray:
    """Mean probability of the wrong answers over that of the paraphrased right one, per question; at least 0.

        R = (1/K) sum_k p(wrong_k|q)^(1/|wrong_k|) / p(paraphrase|q)^(1/|paraphrase|)

    A model that knows the fact has R below 1; one that never saw it tells right from wrong by wording alone.

    Args:
      paraphrase_logps, paraphrase_lengths: of the right answer in other words, `[N]`.
      wrong_logps, wrong_lengths: of K wrong answers, `[N, K]`.

    Paper: Maini et al., 2024 (TOFU), arXiv 2401.06121.
    """
    right = answer_probability(paraphrase_logps, paraphrase_lengths)
    return answer_probability(wrong_logps, wrong_lengths).mean(axis=-1) / np.maximum(right, 1e-30)


def rouge_l_recall(answers: Sequence[str], truths: Sequence[str]) -> np.ndarray:
    """Share of the words of each truth that its answer has in the same order: longest common subsequence over length.

    Words are cut at white space, in lower case, without the punctuation around them.

    Paper: Lin, 2004, ROUGE: A Package for Automatic Evaluation of Summaries (ACL workshop); as TOFU uses it, arXiv
      2401.06121 (there with stemming).
    """
    if len(answers) != len(truths):
        raise ValueError(f"{len(answers)} answers for {len(truths)} truths")
    return np.array([_common(_words(a), t) / len(t) if (t := _words(truth)) else 1.0
                     for a, truth in zip(answers, truths, strict=True)])  # fmt: skip


def _words(text: str) -> list[str]:
    return [word for piece in text.lower().split() if (word := piece.strip(".,;:!?\"'()"))]


def _common(one: list[str], other: list[str]) -> int:
    """Length of the longest common subsequence."""
    best = [0] * (len(other) + 1)
    for word in one:
        before = best[:]
        for j, there in enumerate(other):
            best[j + 1] = before[j] + 1 if word == there else max(before[j + 1], best[j])
    return best[-1]


def forget_quality(ratios: np.ndarray, retrained_ratios: np.ndarray) -> tuple[float, float]:
    """(Kolmogorov-Smirnov distance, p-value) between the truth ratios of a model and of one that never saw the data.

    A p-value above 0.05 means that the two cannot be told apart by their truth ratios. It is the asymptotic one,
    2 sum_j (-1)^(j-1) exp(-2 j^2 n D^2) with n = N M / (N + M), which is rough for a few dozen questions.

    Args:
      ratios, retrained_ratios: `[N]` and `[M]`, from `truth_ratio`.

    Paper: Maini et al., 2024 (TOFU), arXiv 2401.06121.
    """
    one, other = (np.sort(np.asarray(x, np.float64).ravel()) for x in (ratios, retrained_ratios))
    if not one.size or not other.size:
        raise ValueError("forget_quality compares two samples, and one is empty")
    places = np.concatenate([one, other])
    steps = [np.searchsorted(x, places, side="right") / x.size for x in (one, other)]
    distance = float(np.abs(steps[0] - steps[1]).max())
    scale = 2 * distance**2 * one.size * other.size / (one.size + other.size)
    if scale < 0.08:  # the series no longer converges, and the value is 1 to six digits
        return distance, 1.0
    terms = np.arange(1, 101)
    p = 2 * np.sum((-1.0) ** (terms - 1) * np.exp(-scale * terms**2))
    return distance, float(np.clip(p, 0.0, 1.0))
