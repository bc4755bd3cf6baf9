"""iTool: preference pairs from a tree search over what a policy samples on prompts that it finds hard.

Zeng et al., 2025, arXiv 2501.09766. A prompt is hard if the policy gives its right answer a high perplexity. Whole
answers to such a prompt are sampled and cut into steps; the steps are the edges of a tree whose leaves are judged; at
every branching the children of the largest and of the smallest value make a pair.

Where the authors' `mcts/mcts_vllm.py` differs from this file:
* the released search goes down a level only from a node with *more* than `num_actions` children, so it expands the root
  several times first; here a node with `num_actions` children counts as expanded;
* log(N_parent) there is log(0) on the first visit;
* there an iteration that selects a finished answer is skipped without a visit, so the next one selects it again; here
  it is judged and counted again;
* there a step that two samples share makes two children; here it is one child;
* there a pair ends with the step, as if the answer ended; here each side is completed along its best descendants.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignment import checks
from alignment.losses.masking import keep, masked_sum

Array = jax.Array

GRADE_WEIGHTS = (1.0, 0.1, -1.0, -2.0)  # of A excellent, B acceptable, C fair, D poor


def itool_difficulty(policy_token_logps: Array, mask: Array) -> Array:
    """Perplexity of the right answer under the policy: exp(-mean over its tokens of log pi). 1 is the easiest.

    Shapes: log-probs and mask `[..., T]`; result float32 `[...]`, NaN for a row with no token.

    Raises:
      AssertionError: shapes differ, log-probs not floating or mask not bool.

    Paper: Zeng et al., 2025, arXiv 2501.09766.
    """
    (logps,) = checks.floats(policy_token_logps=policy_token_logps)
    return jnp.exp(-masked_sum(logps, mask) / jnp.sum(mask, axis=-1))


def itool_uct(
    values: Array, visits: Array, priors: Array, parent_visits: Array, children: Array, *, exploration: float = 1.0
) -> Array:
    """Selection score of each child: V / (n + 1) + c p sqrt(log(max(N, 1)) / (n + 1)); -inf where there is no child.

    V is a *sum* of rewards, so the + 1 favours children that have not been visited and began with a positive reward.

    Args:
      values: summed rewards of the children.
      visits: how often each was visited, n.
      priors: probability of the step under the policy, p.
      parent_visits: N of the node itself; the first visit counts as one, where log(0) would be -inf.
      children: bool, False for places that hold no child.
      exploration: c in [0, inf); 0 selects by value alone.

    Shapes: `[..., C]`, parent_visits `[...]`; result float32 `[..., C]`.

    Raises:
      AssertionError: shapes do not agree, values or priors not floating, visits not integers, children not bool.
      ValueError: static exploration out of range.

    Paper: Zeng et al., 2025, arXiv 2501.09766; c = 1 in the released script.
    """
    values, priors = checks.floats(values=values, priors=priors)
    checks.integers(visits=visits, parent_visits=parent_visits)
    checks.same_shape(values=values, visits=visits)
    checks.leading_shape(parent_visits=parent_visits, values=values)
    checks.number("exploration", exploration, 0.0, closed="left")
    tries = keep(visits, children) + 1.0
    bonus = jnp.sqrt(jnp.log(jnp.maximum(parent_visits, 1))[..., None] / tries)
    scores = keep(values, children) / tries + exploration * keep(priors, children) * bonus
    return jnp.where(children, scores, -jnp.inf)


def word_overlap(a: str, b: str) -> float:
    """Words that two texts share, over the number of distinct words of the one that has fewer; 0 if one has none."""
    first, second = set(a.split()), set(b.split())
    return len(first & second) / max(min(len(first), len(second)), 1)


def itool_fast_reward(action: str, truth: str, *, closing: str = ")]") -> float:
    """First judgement of a step: +-0.1 for agreeing on the end of a call, plus word overlap with the truth - 0.5.

    Args:
      closing: what ends a call; both texts have it, or neither, for +0.1.

    Paper: Zeng et al., 2025, arXiv 2501.09766, and the released script (a blank step is worth 0 there and here).
    """
    if not action.strip():
        return 0.0
    return (0.1 if (closing in action) == (closing in truth) else -0.1) + word_overlap(truth, action) - 0.5


def itool_self_evaluation(grade_probabilities: Array) -> Array:
    """Full judgement: the model's own probabilities of the grades A to D, weighted (1, 0.1, -1, -2) and divided by 4.

    Shapes: `[..., 4]`; result float32 `[...]`.

    Raises:
      AssertionError: not floating, or not four grades.

    Paper: Zeng et al., 2025, arXiv 2501.09766.
    """
    (grades,) = checks.floats(grade_probabilities=grade_probabilities)
    checks.same_shape(grades=grades, four_grades=jnp.zeros((*grades.shape[:-1], 4)))
    return grades @ jnp.array(GRADE_WEIGHTS, grades.dtype) / 4


def itool_back_propagate(
    values: np.ndarray, visits: np.ndarray, parents: np.ndarray, node: int, reward: float
) -> tuple[np.ndarray, np.ndarray]:
    """(values, visits) after a reward at `node`: n += 1 and V += reward there and at each ancestor up to the root.

    Shapes: `[M]`, one entry per node of the tree; parents is -1 at the root.

    Paper: Zeng et al., 2025, arXiv 2501.09766.
    """
    values, visits = np.array(values, np.float64), np.array(visits, np.int64)
    while node >= 0:
        values[node] += reward
        visits[node] += 1
        node = int(parents[node])
    return values, visits


def itool_pair(
    values: Sequence[float],
    texts: Sequence[str],
    *,
    value_threshold: float,
    overlap_limit: float,
    accept_value: float,
) -> tuple[int, int] | None:
    """(best, worst) among the children of a node, or None if they make no pair.

    Kept iff there are two children or more, V_best - V_worst >= value_threshold, the two share at most `overlap_limit`
    of their words, and V_best >= accept_value. With value_threshold > 0 the two differ.

    Args:
      value_threshold: in [0, inf).
      overlap_limit: in [0, 1].
      accept_value: any number; -inf accepts all.

    Raises:
      ValueError: a hyperparameter out of range, as many values as texts not given.

    Paper: Zeng et al., 2025, arXiv 2501.09766. The released command line does not show the three limits: no defaults.
    """
    checks.number("value_threshold", value_threshold, 0.0, closed="left")
    checks.number("overlap_limit", overlap_limit, 0.0, 1.0, closed="both")
    if len(values) != len(texts):
        raise ValueError(f"{len(values)} values for {len(texts)} texts")
    if len(values) < 2:
        return None
    best, worst = int(np.argmax(values)), int(np.argmin(values))
    far = values[best] - values[worst] >= value_threshold
    good = values[best] >= accept_value and word_overlap(texts[best], texts[worst]) <= overlap_limit
    return (best, worst) if best != worst and far and good else None


class Step(NamedTuple):
    """One edge of the tree: a piece of an answer."""

    text: str
    prior: float  # geometric mean of its tokens' probabilities under the policy
    ends: bool  # the answer is complete after it
    tokens: tuple[int, ...] = ()


def cut(text: str, pattern: str = r"(?<=\. )|(?<=, )|(?<=[=(])", step_limit: int = 2, depth: int = 3) -> list[str]:
    """A text in at most `depth` steps of `step_limit` pieces each, the last one with all the rest. They join to it.

    `pattern` matches the empty string between two pieces: after a sentence, a comma, `=` or `(` in the released script.
    """
    checks.positive_integer("step_limit", step_limit)
    checks.positive_integer("depth", depth)
    pieces = [piece for piece in re.split(pattern, text) if piece]
    steps = ["".join(pieces[i : i + step_limit]) for i in range(0, len(pieces), step_limit)]
    return steps if len(steps) <= depth else [*steps[: depth - 1], "".join(steps[depth - 1 :])]


@dataclasses.dataclass
class Tree:
    """Node 0 is the prompt with nothing answered; entry i of each list belongs to node i."""

    parents: list[int] = dataclasses.field(default_factory=lambda: [-1])
    steps: list[Step] = dataclasses.field(default_factory=lambda: [Step("", 1.0, False)])
    values: list[float] = dataclasses.field(default_factory=lambda: [0.0])
    visits: list[int] = dataclasses.field(default_factory=lambda: [0])
    children: list[list[int]] = dataclasses.field(default_factory=lambda: [[]])

    def path(self, node: int) -> list[Step]:
        """The steps from the root to a node."""
        return [] if node == 0 else [*self.path(self.parents[node]), self.steps[node]]

    def add(self, parent: int, step: Step, value: float) -> int:
        """The child that holds a step; a new one, unless the step is there already."""
        for child in self.children[parent]:
            if self.steps[child].text == step.text and self.steps[child].ends == step.ends:
                return child
        self.parents.append(parent)
        self.steps.append(step)
        self.values.append(value)
        self.visits.append(0)
        self.children.append([])
        self.children[parent].append(len(self.parents) - 1)
        return len(self.parents) - 1

    def best_leaf(self, node: int) -> int:
        """Down from a node, always to the child of the largest value."""
        while self.children[node]:
            node = max(self.children[node], key=lambda child: self.values[child])
        return node

    def select(self, node: int, exploration: float) -> int:
        """The child of the largest `itool_uct`."""
        children = self.children[node]
        scores = itool_uct(
            np.array([self.values[c] for c in children], np.float32),
            np.array([self.visits[c] for c in children], np.int32),
            np.array([self.steps[c].prior for c in children], np.float32),
            np.array(self.visits[node], np.int32),
            np.ones(len(children), bool),
            exploration=exploration,
        )
        return children[int(np.argmax(scores))]


def search(
    expand: Callable[[list[Step]], list[list[Step]]],
    judge: Callable[[str], float],
    first_judge: Callable[[str], float],
    *,
    num_actions: int = 3,
    depth: int = 3,
    mcts_iters: int = 5,
    exploration: float = 1.0,
) -> Tree:
    """Grows a tree from one prompt; deterministic if its three functions are.

    Args:
      expand: steps so far -> `num_actions` sampled continuations, each to its end, cut into steps.
      judge: reward of a complete answer, which is propagated back.
      first_judge: reward of a single step, a node's value when it is made.
      depth: nodes below this depth are not expanded.
    """
    tree = Tree()
    for _ in range(mcts_iters):
        node = 0
        while len(tree.children[node]) >= num_actions and len(tree.path(node)) < depth:
            node = tree.select(node, exploration)
        path = tree.path(node)
        if not (path and path[-1].ends) and len(path) < depth:
            for sample in expand(path):
                at = node
                for step in sample:
                    at = tree.add(at, step, first_judge(step.text))
        leaf = tree.best_leaf(node)
        reward = judge("".join(step.text for step in tree.path(leaf)))
        values, visits = itool_back_propagate(tree.values, tree.visits, tree.parents, leaf, reward)
        tree.values, tree.visits = values.tolist(), visits.tolist()
    return tree


def pairs(
    prompt: Any, tree: Tree, *, value_threshold: float, overlap_limit: float, accept_value: float
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Pairs (kind `pairs`) of all branchings of a tree, each side completed along its best descendants, and counts."""
    out, counts = [], {"branchings": 0, "pairs": 0, "dropped_by_limits": 0, "dropped_unfinished_or_equal": 0}
    for children in tree.children:
        if len(children) < 2:
            continue
        counts["branchings"] += 1
        pair = itool_pair(
            [tree.values[c] for c in children],
            [tree.steps[c].text for c in children],
            value_threshold=value_threshold,
            overlap_limit=overlap_limit,
            accept_value=accept_value,
        )
        if pair is None:
            counts["dropped_by_limits"] += 1
            continue
        leaves = [tree.best_leaf(children[i]) for i in pair]
        chosen, rejected = ("".join(step.text for step in tree.path(leaf)) for leaf in leaves)
        whole = all(tree.steps[leaf].ends for leaf in leaves) and chosen.strip() and rejected.strip()
        if not whole or chosen == rejected:
            counts["dropped_unfinished_or_equal"] += 1
            continue
        margin = tree.values[children[pair[0]]] - tree.values[children[pair[1]]]
        out.append({"prompt": prompt, "chosen": chosen, "rejected": rejected, "margin": float(margin)})
    counts["pairs"] = len(out)
    return out, counts


def hardest(difficulties: Sequence[float], share: float) -> list[int]:
    """Indices of the given share (at least one) of examples of the highest perplexity, hardest first."""
    checks.number("share", share, 0.0, 1.0, closed="right")
    order = np.argsort(-np.asarray(difficulties, np.float64), kind="stable")
    return order[: max(1, math.ceil(share * len(order)))].tolist()


def easy_to_hard(difficulties: Sequence[float], buckets: int) -> list[list[int]]:
    """Indices in `buckets` groups of nearly equal size, easiest group first: the order of the warm-up."""
    checks.positive_integer("buckets", buckets)
    order = np.argsort(np.asarray(difficulties, np.float64), kind="stable")
    return [bucket.tolist() for bucket in np.array_split(order, buckets)]
