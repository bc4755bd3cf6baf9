"""Search over partial solutions: step by step, as a tree, with a look ahead, or by criticising what is there.

Everything here is plain Python around functions that the caller passes: what a step is, where steps come from and what
is good are theirs to say. All problems of a batch go side by side, so that every call of such a function has work for
all of them. Nothing is random but what the functions draw; of equal scores the first wins.

States are whatever the functions understand (a text, a tuple of tokens); they are never looked into.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from alignment import checks

State = Any
Propose = Callable[[Sequence[State], int], Sequence[Sequence[State]]]  # (states, n) -> n next states of each
Score = Callable[[Sequence[State]], np.ndarray]  # states -> [N]
Ended = Callable[[State], bool]


def _scores(score: Score, states: Sequence[State]) -> np.ndarray:
    values = np.asarray(score(states), np.float64)
    if values.shape != (len(states),):
        raise ValueError(f"the score of {len(states)} states must have shape ({len(states)},), got {values.shape}")
    return np.where(np.isnan(values), -np.inf, values)  # NaN would win or lose by the order of comparison


# --- step by step ----------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    state: State
    score: float  # -inf of a start that no step has followed
    steps: int  # rounds that this problem took
    proposed: int  # states that were proposed for it


def step_beam(
    propose: Propose, score: Score, ended: Ended, starts: Sequence[State], *, n: int, beams: int, depth: int
) -> list[Found]:
    """Beam search over reasoning steps: draw n next steps for each of `beams` partial solutions, keep the best.

    An ended solution that is kept is not continued and goes on competing; a problem is over when all that it keeps has
    ended, or after `depth` steps. Its result is the best ended solution that it ever kept, or, if there is none, the
    best unfinished one. A score compares partial with whole solutions: it should mean the same for both.

    Args:
      propose: (states, n) to n next states of each, as lists; fewer where there are no more (none: a dead end, which
        counts as ended).
      score: of states, higher is better.
      ended: whether a state is a whole solution.
      starts: one state for each problem.
      n: steps drawn for each partial solution. beams: partial solutions kept. depth: most steps.

    Raises:
      ValueError: a budget below 1, or scores of a wrong shape.

    Paper: Liu et al., 2025, arXiv 2502.07191.
    """
    for name, budget in (("n", n), ("beams", beams), ("depth", depth)):
        checks.positive_integer(name, budget)
    # A beam is a list of (state, score, whether it goes on), best first.
    kept = [[(s, -np.inf, not ended(s))] for s in starts]
    best = [[b for b in beam if not b[2]] for beam in kept]
    steps, proposed = [0] * len(starts), [0] * len(starts)

    for _ in range(depth):
        sources = [(i, place) for i, beam in enumerate(kept) for place, b in enumerate(beam) if b[2]]
        if not sources:
            break
        drawn = propose([kept[i][place][0] for i, place in sources], n)
        new = [(i, t) for (i, _), children in zip(sources, drawn, strict=True) for t in children]
        values = _scores(score, [t for _, t in new]) if new else np.zeros(0)
        continued = {place for place, children in zip(sources, drawn, strict=True) if children}
        for i in sorted({i for i, _ in sources}):
            mine = [(t, float(v), not ended(t)) for (j, t), v in zip(new, values, strict=True) if j == i]
            waiting = [(s, v, False) for place, (s, v, _) in enumerate(kept[i]) if (i, place) not in continued]
            kept[i] = sorted(waiting + mine, key=lambda b: -b[1])[:beams]
            best[i] += [b for b in kept[i] if not b[2]]
            steps[i] += 1
            proposed[i] += len(mine)
    results = [max(whole or beam, key=lambda b: b[1]) for whole, beam in zip(best, kept, strict=True)]
    return [Found(s, v, *work) for (s, v, _), *work in zip(results, steps, proposed, strict=True)]


def step_best_of_n(
    propose: Propose, score: Score, ended: Ended, starts: Sequence[State], *, n: int, depth: int
) -> list[Found]:
    """At each step draw n next steps and keep the best: `step_beam` with one beam. n = 1 is plain sampling.

    With blocks of tokens as steps and a prefix value as score it is blockwise controlled decoding (Mudgal et al., 2023,
    arXiv 2310.17022); with whole responses as steps, best-of-n.
    """
    return step_beam(propose, score, ended, starts, n=n, beams=1, depth=depth)


# --- Monte Carlo tree search -----------------------------------------------------------------------------------------


def puct_scores(
    value_sums: np.ndarray, visits: np.ndarray, parent_visits: float, *, c_init: float = 1.25, c_base: float = 19652.0
) -> np.ndarray:
    """Q + [c_init + log((N + c_base + 1) / c_base)] sqrt(N) / (1 + n),  Q = value_sum / (n + 1e-6).

    The selection rule of AlphaZero without a prior: N visits of the parent, n of the child. `[..., children]` of sums
    and visits to float64 `[..., children]`. Values should lie in [0, 1] for c_init to mean anything.

    Raises:
      ValueError: c_init below 0 or c_base not above 0.

    Paper: Liu et al., 2025, arXiv 2502.07191, and its code (`select_best_child`).
    """
    checks.number("c_init", c_init, 0.0, closed="left")
    checks.number("c_base", c_base, 0.0)
    visits = np.asarray(visits, np.float64)
    exploration = c_init + np.log((parent_visits + c_base + 1) / c_base)
    return np.asarray(value_sums) / (visits + 1e-6) + exploration * np.sqrt(parent_visits) / (1 + visits)


def uct_scores(value_sums: np.ndarray, visits: np.ndarray, parent_visits: float, *, c: float = 1.4) -> np.ndarray:
    """Q + c sqrt(2 log N / n), an unvisited child first: the other rule of the same code. Shapes as of `puct_scores`.

    Raises:
      ValueError: c below 0.
    """
    checks.number("c", c, 0.0, closed="left")
    visits = np.asarray(visits, np.float64)
    seen = np.maximum(visits, 1e-12)
    scores = np.asarray(value_sums) / (visits + 1e-6) + c * np.sqrt(2 * np.log(max(parent_visits, 1)) / seen)
    return np.where(visits > 0, scores, np.inf)


class Tree(NamedTuple):
    """A search tree; node 0 is the root. `children[i]` is None as long as node i is not expanded."""

    states: list[State]
    parents: list[int]
    children: list[list[int] | None]
    visits: list[int]
    value_sums: list[float]

    def best_child(self, node: int = 0) -> int:
        """The child visited most; of equally visited ones that of the higher mean value, then the first."""
        options = self.children[node] or []
        if not options:
            raise ValueError(f"node {node} has no children")
        return max(options, key=lambda c: (self.visits[c], self.value_sums[c] / max(self.visits[c], 1)))


def mcts(
    expand: Propose,
    evaluate: Score,
    roots: Sequence[State],
    *,
    n: int,
    simulations: int,
    score: Callable[[np.ndarray, np.ndarray, float], np.ndarray] = puct_scores,
) -> list[Tree]:
    """Monte Carlo tree search with `simulations` values for each root; one tree per root, all of them side by side.

    A simulation goes from the root to a leaf, always to the child of the highest `score`. The leaf is expanded (n next
    states), its first child is valued, and the value is added to the child and to all nodes above it. Where there is
    nothing to expand the leaf itself is valued.

    Args:
      expand: (states, n) to the next states of each; an empty list for a state that has ended.
      evaluate: values of states, in [0, 1] for the default constants: a verifier's of a roll-out, say.
      roots: one state for each problem.
      n: children of a node. simulations: values for each problem.
      score: (value sums, visits, visits of the parent) of a node's children to what is maximised.

    Raises:
      ValueError: a budget below 1, or values of a wrong shape or not finite.

    Paper: Liu et al., 2025, arXiv 2502.07191.
    """
    checks.positive_integer("n", n)
    checks.positive_integer("simulations", simulations)
    trees = [Tree([root], [-1], [None], [0], [0.0]) for root in roots]
    for _ in range(simulations):
        leaves = [_descend(tree, 0, score) for tree in trees]
        fresh = [i for i, (tree, leaf) in enumerate(zip(trees, leaves, strict=True)) if tree.children[leaf] is None]
        grown = expand([trees[i].states[leaves[i]] for i in fresh], n) if fresh else []
        for i, states in zip(fresh, grown, strict=True):
            leaves[i] = _grow(trees[i], leaves[i], states)
        values = np.asarray(evaluate([t.states[leaf] for t, leaf in zip(trees, leaves, strict=True)]), np.float64)
        if values.shape != (len(trees),) or not np.isfinite(values).all():
            raise ValueError(f"the values of {len(trees)} states must be as many finite numbers, got {values}")
        for tree, leaf, value in zip(trees, leaves, values, strict=True):
            while leaf >= 0:
                tree.visits[leaf] += 1
                tree.value_sums[leaf] += float(value)
                leaf = tree.parents[leaf]
    return trees


def _descend(tree: Tree, node: int, score: Callable) -> int:
    while options := tree.children[node]:
        sums, visits = (np.array([values[c] for c in options]) for values in (tree.value_sums, tree.visits))
        node = options[int(np.argmax(score(sums, visits, tree.visits[node])))]
    return node


def _grow(tree: Tree, leaf: int, states: Sequence[State]) -> int:
    """Hangs the states below the leaf; gives the first of them, or the leaf if there are none."""
    first = len(tree.states)
    tree.children[leaf] = list(range(first, first + len(states)))
    for state in states:
        for column, value in zip(tree, (state, leaf, None, 0, 0.0), strict=True):
            column.append(value)
    return first if states else leaf


def mcts_decode(
    expand: Propose,
    evaluate: Score,
    ended: Ended,
    starts: Sequence[State],
    *,
    n: int,
    simulations: int,
    depth: int,
    score: Callable[[np.ndarray, np.ndarray, float], np.ndarray] = puct_scores,
) -> list[Found]:
    """A solution step by step, each step the child that a tree search of its own visits most.

    Arguments and errors as of `mcts`; `depth` is the most steps, `ended` says of a state that no step follows.
    """
    checks.positive_integer("depth", depth)
    states, steps, proposed = list(starts), [0] * len(starts), [0] * len(starts)
    values = [float("nan")] * len(starts)
    for _ in range(depth):
        going = [i for i, s in enumerate(states) if not ended(s)]
        trees = mcts(expand, evaluate, [states[i] for i in going], n=n, simulations=simulations, score=score)
        for i, tree in zip(going, trees, strict=True):
            proposed[i] += len(tree.states) - 1
            if tree.children[0]:
                child = tree.best_child()
                states[i], steps[i] = tree.states[child], steps[i] + 1
                values[i] = tree.value_sums[child] / max(tree.visits[child], 1)
        if not going:
            break
    return [Found(*found) for found in zip(states, values, steps, proposed, strict=True)]


# --- DeAL ------------------------------------------------------------------------------------------------------------

Tokens = tuple[int, ...]


class Hypothesis(NamedTuple):
    tokens: Tokens
    logp: float  # of the tokens
    score: float  # logp + weight * heuristic of what the tokens lead to


def deal(
    next_logps: Callable[[Sequence[int], Sequence[Tokens]], np.ndarray],
    look_ahead: Callable[[Sequence[int], Sequence[Tokens], int], Sequence[Tokens]],
    heuristic: Callable[[Sequence[int], Sequence[Tokens]], np.ndarray],
    problems: int,
    *,
    width: int,
    beams: int,
    lookahead: int,
    weight: float,
    length: int,
    end: int,
) -> list[list[Hypothesis]]:
    """Decoding as heuristic search: beams of tokens, judged by their log-prob and by where a look ahead takes them.

        c(y_1:t) = log P(y_1:t | x) + weight * h(y_1:t+l | x),   the best `beams` of all extensions are kept

    Every kept prefix is extended by its `width` likeliest tokens, each extension is completed greedily by at most
    `lookahead` tokens, and the heuristic sees the completed text. A hypothesis that has drawn the end token is not
    extended and goes on competing with its score. weight = 0 is beam search, with one beam greedy decoding, for any
    look-ahead (which is then not run).

    Args:
      next_logps: (problem numbers, prefixes) to log-probs `[N, V]` of the next token.
      look_ahead: (problem numbers, prefixes, tokens) to the prefixes with up to so many tokens more.
      heuristic: (problem numbers, completed token tuples) to `[N]`, higher is better; may be a weighted sum of several.
      problems: how many, numbered from 0.
      width: k, extensions of a prefix. beams: kept. lookahead: l, at least 0; cut where `length` ends.
      weight: lambda, at least 0. length: most tokens. end: the end token.

    Returns:
      For each problem the hypotheses kept, best first.

    Raises:
      ValueError: a budget below 1, a width beyond the vocabulary, or a weight or look-ahead below 0.

    Paper: Huang et al., 2024, arXiv 2402.06147. There is no official code; the reimplementation in IBM's aisteer360
      ranks by h alone, without log P.
    """
    for name, budget in (("width", width), ("beams", beams), ("length", length)):
        checks.positive_integer(name, budget)
    checks.number("weight", weight, 0.0, closed="left")
    if lookahead < 0:
        raise ValueError(f"lookahead must be at least 0, got {lookahead}")
    kept = [[Hypothesis((), 0.0, 0.0)] for _ in range(problems)]
    for at in range(1, length + 1):
        open_ones = [(i, h) for i, beam in enumerate(kept) for h in beam if h.tokens[-1:] != (end,)]
        if not open_ones:
            break
        logps = np.asarray(next_logps([i for i, _ in open_ones], [h.tokens for _, h in open_ones]), np.float64)
        if width > logps.shape[-1]:
            raise ValueError(f"width must be at most the vocabulary's {logps.shape[-1]}, got {width}")
        new = []
        for (i, h), row in zip(open_ones, logps, strict=True):
            likeliest = np.argsort(-row, kind="stable")[:width]
            new += [(i, (*h.tokens, int(v)), h.logp + float(row[v])) for v in likeliest if row[v] > -np.inf]
        bonus = np.zeros(len(new))
        if weight:
            numbers, prefixes = [i for i, *_ in new], [t for _, t, _ in new]
            ahead = min(lookahead, length - at)
            unfinished = [j for j, t in enumerate(prefixes) if t[-1] != end] if ahead else []
            if unfinished:
                completed = look_ahead([numbers[j] for j in unfinished], [prefixes[j] for j in unfinished], ahead)
                for j, tokens in zip(unfinished, completed, strict=True):
                    prefixes[j] = tokens
            bonus = weight * np.asarray(heuristic(numbers, prefixes), np.float64)
        for i in range(problems):
            mine = [Hypothesis(t, p, p + float(b)) for (j, t, p), b in zip(new, bonus, strict=True) if j == i]
            done = [h for h in kept[i] if h.tokens[-1:] == (end,)]
            kept[i] = sorted(done + mine, key=lambda h: -h.score)[:beams]
    return kept


# --- self-refinement -------------------------------------------------------------------------------------------------


class Refined(NamedTuple):
    answer: Any
    history: list[tuple[Any, Any]]  # (answer, feedback on it) of every round


def self_refine(
    answer: Callable[[Sequence[Any]], Sequence[Any]],
    feedback: Callable[[Sequence[Any], Sequence[Any]], Sequence[Any]],
    refine: Callable[[Sequence[Any], Sequence[Any], Sequence[Any]], Sequence[Any]],
    satisfied: Callable[[Any], bool],
    problems: Sequence[Any],
    *,
    rounds: int,
) -> list[Refined]:
    """Generate, criticise, generate again with the critique in sight; at most `rounds` times.

    A problem stops early when the feedback on its answer is `satisfied`: the answer stays. If that is the first, the
    result is plain sampling; so would be no round at all, which is refused.

    Args:
      answer: problems to first answers.
      feedback: (problems, answers) to feedback.
      refine: (problems, answers, feedback) to new answers.
      satisfied: of a feedback, whether it asks for nothing more.
      problems: one for each answer.
      rounds: K, at least 1.

    Raises:
      ValueError: rounds below 1.

    Paper: Madaan et al., 2023, arXiv 2303.17651; in the comparison of Liu et al., 2025, arXiv 2502.07191.
    """
    checks.positive_integer("rounds", rounds)
    results = [Refined(a, []) for a in answer(problems)]
    going = list(range(len(problems)))
    for _ in range(rounds):
        if not going:
            break
        asked, answers = [problems[i] for i in going], [results[i].answer for i in going]
        said = feedback(asked, answers)
        for i, a, f in zip(going, answers, said, strict=True):
            results[i].history.append((a, f))
        unhappy = [j for j, f in enumerate(said) if not satisfied(f)]
        if unhappy:
            better = refine(*([column[j] for j in unhappy] for column in (asked, answers, said)))
            for j, a in zip(unhappy, better, strict=True):
                results[going[j]] = results[going[j]]._replace(answer=a)
        going = [going[j] for j in unhappy]
    return results
