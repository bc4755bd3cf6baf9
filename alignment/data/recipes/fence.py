"""FenCE: answers revised claim by claim after a critic, and ranked by how much of what they claim is supported.

2024, Improving Model Factuality with Fine-grained Critique-based Evaluator. The critic, what the generator knows and
how it rewrites are the caller's.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

LABELS = ("supported", "contradictory", "unverified")


class Judged(NamedTuple):
    """A claim of an answer with the critic's label (of `LABELS`) and words."""

    claim: str
    label: str
    critique: str


Answer = Sequence[str]  # its claims, in order
Critic = Callable[[str, str], Judged]  # (prompt, claim) -> verdict


def fence_score(labels: Sequence[str]) -> float:
    """Share of the claims that are supported, in [0, 1]; 0 for an answer that claims nothing.

    Raises:
      ValueError: a label that is not one of `LABELS`.
    """
    if unknown := sorted(set(labels) - set(LABELS)):
        raise ValueError(f"label {unknown[0]!r} is not one of {', '.join(LABELS)}")
    return labels.count("supported") / len(labels) if labels else 0.0


def revise(
    prompt: str,
    answer: Answer,
    critic: Critic,
    knows: Callable[[str, str], bool],
    rewrite: Callable[[str, Judged], str],
    *,
    rounds: int = 3,
) -> tuple[list[str], dict[str, int]]:
    """The answer with every claim that is not supported rewritten if the generator knows better, else deleted.

    To teach a model facts that it does not know teaches it to guess, which is why those are left out. Claims are looked
    at again until all are supported or `rounds` are over.

    Args:
      knows: (prompt, claim) -> whether the generator has an opinion on the claim when it is asked.
      rewrite: (prompt, verdict) -> the claim made right.
    """
    claims, counts = list(answer), {"rewritten": 0, "deleted": 0}
    for _ in range(rounds):
        verdicts = [critic(prompt, claim) for claim in claims]
        if all(v.label == "supported" for v in verdicts):
            break
        claims = []
        for verdict in verdicts:
            if verdict.label == "supported":
                claims.append(verdict.claim)
            elif knows(prompt, verdict.claim):
                claims.append(rewrite(prompt, verdict))
                counts["rewritten"] += 1
            else:
                counts["deleted"] += 1
    return claims, counts


def preference_pairs(scores: Sequence[float], *, k: int) -> tuple[list[tuple[int, int]], int]:
    """(winner, loser) for every one of the k best candidates and every candidate ranked after it; and how many pairs
    were left out because their scores are equal.

    Ties in the ranking are broken by the order of the candidates. Without equal scores there are C(n, 2) - C(n - k, 2).
    """
    if not 1 <= k <= len(scores):
        raise ValueError(f"{k=} must lie in [1, {len(scores)}]")
    ranked = sorted(range(len(scores)), key=lambda i: -scores[i])
    pairs = [(ranked[a], ranked[b]) for a, b in itertools.combinations(range(len(ranked)), 2) if a < k]
    decided = [(w, l) for w, l in pairs if scores[w] > scores[l]]
    return decided, len(pairs) - len(decided)


def records(
    prompts: Iterable[Mapping[str, Any]],
    critic: Critic,
    knows: Callable[[str, str], bool],
    rewrite: Callable[[str, Judged], str],
    join: Callable[[str, Answer], str],
    *,
    k: int = 3,
    rounds: int = 3,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, int]]:
    """(records of kind `completion`, records of kind `pairs`, counts) from {prompt, answers: lists of claims}.

    The candidates of a prompt are its answers and their revisions; demonstrations are the k best of them. An answer
    without a claim is no candidate: deleting everything must not pay. Numbers of supported claims before and after are
    counted for the same reason.

    Args:
      join: (prompt, claims) -> text.
    """
    demonstrations, pairs = [], []
    names = ("prompts", "candidates", "rewritten", "deleted", "dropped_empty", "dropped_equal_text", "supported_before")
    counts = dict.fromkeys((*names, "supported_after", "dropped_equal_scores", "prompts_with_fewer_than_k"), 0)
    for record in prompts:
        prompt, texts, scores = record["prompt"], [], []
        counts["prompts"] += 1
        answers = [list(answer) for answer in record["answers"]]
        revisions = []
        for answer in answers:
            revised, told = revise(prompt, answer, critic, knows, rewrite, rounds=rounds)
            revisions.append(revised)
            counts["rewritten"] += told["rewritten"]
            counts["deleted"] += told["deleted"]
        for number, claims in enumerate([*answers, *revisions]):
            if not claims:
                counts["dropped_empty"] += 1
                continue
            labels = [critic(prompt, claim).label for claim in claims]
            when = "supported_before" if number < len(answers) else "supported_after"
            counts[when] += labels.count("supported")
            text = join(prompt, claims)
            if text in texts:
                counts["dropped_equal_text"] += 1
                continue
            texts.append(text)
            scores.append(fence_score(labels))
        counts["candidates"] += len(texts)
        if len(texts) < k:
            counts["prompts_with_fewer_than_k"] += 1
        if not texts:
            continue
        best = sorted(range(len(texts)), key=lambda i: -scores[i])[:k]
        demonstrations += [{"prompt": prompt, "completion": texts[i]} for i in best]
        found, equal = preference_pairs(scores, k=min(k, len(texts)))
        counts["dropped_equal_scores"] += equal
        pairs += [{"prompt": prompt, "chosen": texts[w], "rejected": texts[l]} for w, l in found]
    return demonstrations, pairs, counts | {"demonstrations": len(demonstrations), "pairs": len(pairs)}
