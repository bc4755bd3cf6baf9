"""Preference data from trees of responses with shared prefixes, and how well a data set's shape carries rewards.

Qiu et al., 2024 (Reward Generalization in RLHF: A Topological Perspective), arXiv 2402.10184. No code is published.
Construction and theory follow descriptions of the paper; the inference distance is this library's exact Gaussian
analogue of its posterior variance.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from alignment.data import corpus


class Tree(NamedTuple):
    """Nodes of a tree of responses: the text up to each, the path of child numbers to it; which of them are leaves."""

    prompt: str
    texts: list[str]
    paths: list[tuple[int, ...]]
    leaves: list[int]


def grow(prompt: str, segment: Callable[[str, str], str], *, depth: int, branching: int) -> Tree:
    """A tree of `depth` levels, `branching` children a node: branching^depth leaves, the root without text.

    Args:
      segment: (prompt, text so far) -> the next piece of text, sampled at a temperature above 0.

    Raises:
      ValueError: depth or branching below 1.
    """
    if depth < 1 or branching < 1:
        raise ValueError(f"depth and branching must be at least 1, got {depth} and {branching}")
    tree = Tree(prompt, [""], [()], [])
    level = [0]
    for _ in range(depth):
        after = []
        for parent in level:
            for child in range(branching):
                text = tree.texts[parent]
                tree.texts.append(text + segment(prompt, text))
                tree.paths.append((*tree.paths[parent], child))
                after.append(len(tree.texts) - 1)
        level = after
    tree.leaves.extend(level)
    return tree


def shared_depth(first: Sequence[int], second: Sequence[int]) -> int:
    """Depth of the last node that two paths share: how much of their text two responses have in common."""
    same = 0
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        same += 1
    return same


def tree_records(
    trees: Sequence[Tree], reward: Callable[[str, str], float], rng: np.random.Generator, *, pairs: int
) -> tuple[list[dict[str, Any]], Mapping[str, int]]:
    """`pairs` records of kind `pairs` a tree, between two nodes drawn uniformly, and counts of what was drawn.

    Truncated texts take part, as partial answers; the root, which has no text, does not. Pairs of equal text or equal
    reward say nothing and are counted and left out.
    """
    records, equal = [], 0
    for tree in trees:
        if len(tree.texts) < 3:
            raise ValueError(f"the tree of {tree.prompt!r} has fewer than two nodes to compare")
        for _ in range(pairs):
            i, j = 1 + rng.choice(len(tree.texts) - 1, size=2, replace=False)
            values = reward(tree.prompt, tree.texts[i]), reward(tree.prompt, tree.texts[j])
            if tree.texts[i] == tree.texts[j] or values[0] == values[1]:
                equal += 1
                continue
            chosen, rejected = (i, j) if values[0] > values[1] else (j, i)
            records.append({"prompt": tree.prompt, "chosen": tree.texts[chosen], "rejected": tree.texts[rejected]})
    return records, {"drawn": len(trees) * pairs, "kept": len(records), "equal": equal}


def inference_distances(edges: Sequence[tuple[int, int]], variances: Sequence[float], nodes: int) -> np.ndarray:
    """Var(r_i - r_j | comparisons) of every two responses, [nodes, nodes]: effective resistances of a graph.

    An edge is an observation r_a - r_b + noise of the given variance; the prior is flat. Series edges add variances,
    parallel ones precisions, and another edge never makes a distance larger. Infinite between parts that no edge joins.

    Raises:
      ValueError: an edge to a node that does not exist or to itself, or a variance that is not above 0.
    """
    laplacian = np.zeros((nodes, nodes))
    part = np.arange(nodes)
    for (a, b), variance in zip(edges, variances, strict=True):
        if not (0 <= a < nodes and 0 <= b < nodes) or a == b or not variance > 0:
            raise ValueError(f"edge {(a, b)} with variance {variance}: needs two nodes below {nodes}, a variance > 0")
        for i, j in ((a, b), (b, a)):
            laplacian[i, i] += 1 / variance
            laplacian[i, j] -= 1 / variance
        part[part == part[b]] = part[a]
    inverse = np.linalg.pinv(laplacian)
    diagonal = np.diag(inverse)
    found = diagonal[:, None] + diagonal[None, :] - 2 * inverse
    return np.where(part[:, None] == part[None, :], np.maximum(found, 0.0), np.inf)


def mean_inference_distance(edges, variances, nodes: int) -> float:
    """Mean over all pairs of different responses: smaller is better, the data let rewards generalise further."""
    found = inference_distances(edges, variances, nodes)
    return float(found[~np.eye(nodes, dtype=bool)].mean())


# --- on the embedded corpus ------------------------------------------------------------------------------------------


def corpus_segment(prompt: str, text: str, rng: np.random.Generator) -> str:
    """The next piece of a sentence about the prompt's animal: the naming, then one adjective after another."""
    said = len(text.split())
    if said == 0:
        return corpus.demonstration(prompt, rng).split(" is ", 1)[0]
    word = str(rng.choice(corpus.POSITIVE + corpus.NEGATIVE))
    return f" is {word}" if said == 2 else f" and {word}."


def corpus_partial_reward(prompt: str, text: str) -> float:
    """The corpus' gold reward without its length term, of a sentence that may stop early: 1 for each good part said."""
    words = text.rstrip(".").split()
    noun = 1.0 if words[1] == next(n for n in corpus.NOUNS if f" {n}" in prompt) else -1.0
    return noun + sum((w in corpus.POSITIVE) - float(w in corpus.NEGATIVE) for w in words[2:])
