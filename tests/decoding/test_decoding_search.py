"""Searches on problems small enough to know the best solution: words over a few letters, a tree of numbers."""

import itertools

import numpy as np
import pytest

from alignment.decoding import search

DEPTH, LETTERS = 4, "abc"
GOAL = "cabb"


def expand(states, n):
    return [[s + letter for letter in LETTERS[:n]] if len(s) < DEPTH else [] for s in states]


def ended(state):
    return len(state) == DEPTH


def progress(states):
    """How many letters agree with the goal before the first that does not."""
    return np.array([sum(1 for _ in itertools.takewhile(lambda p: p[0] == p[1], zip(s, GOAL, strict=False)))
                     for s in states], float)  # fmt: skip


def test_an_oracle_and_all_letters_find_the_goal():
    for found in (
        search.step_best_of_n(expand, progress, ended, [""], n=3, depth=DEPTH),
        search.step_beam(expand, progress, ended, [""], n=3, beams=2, depth=DEPTH),
    ):
        assert found[0].state == GOAL and found[0].score == DEPTH and found[0].steps == DEPTH
    assert found[0].proposed == 3 + 3 * 6


def noisy(seed):
    """Draws letters; what it draws depends on the state alone."""
    return lambda states, n: [
        [s + LETTERS[np.random.default_rng([seed, i, *map(ord, s)]).integers(3)] for i in range(n)] for s in states
    ]


def test_one_draw_a_step_is_plain_sampling_whatever_the_score():
    draw = noisy(1)
    plain = ""
    while not ended(plain):
        plain = draw([plain], 1)[0][0]
    for sign in (1, -1):
        found = search.step_best_of_n(draw, lambda s, sign=sign: sign * progress(s), ended, [""], n=1, depth=DEPTH)
        assert found[0].state == plain


def test_problems_do_not_see_each_other():
    draw = noisy(2)
    starts = ["", "a", "cab", "bbbb"]
    together = search.step_beam(draw, progress, ended, starts, n=3, beams=2, depth=DEPTH)
    alone = [search.step_beam(draw, progress, ended, [s], n=3, beams=2, depth=DEPTH)[0] for s in starts]
    assert together == alone
    assert together[3].state == "bbbb" and together[3].steps == 0


def test_a_wider_beam_keeps_what_a_greedy_step_loses():
    """The first letter that looks best leads nowhere."""
    worth = {"a": 2.0, "b": 1.0, "aa": 0.0, "ab": 0.5, "ac": 0.0, "ba": 0.0, "bb": 3.0, "bc": 0.0, "c": 0.0}
    score = lambda states: np.array([worth.get(s, 0.0) for s in states])  # noqa: E731
    whole = lambda s: len(s) == 2  # noqa: E731
    assert search.step_best_of_n(expand, score, whole, [""], n=3, depth=2)[0].state == "ab"
    assert search.step_beam(expand, score, whole, [""], n=3, beams=2, depth=2)[0].state == "bb"


def test_a_dead_end_stays_as_good_as_it_was_and_an_ended_solution_goes_on_competing():
    children = {"": ["a", "b"], "a": [], "b": ["bx"], "bx": []}
    worth = {"a": 2.0, "b": 1.0, "bx": 1.5}
    found = search.step_beam(
        lambda states, n: [children[s] for s in states], lambda states: np.array([worth[s] for s in states]),
        lambda s: False, [""], n=2, beams=2, depth=5,
    )  # fmt: skip
    assert found[0].state == "a" and found[0].steps == 3
    lost = search.step_best_of_n(expand, lambda s: np.full(len(s), np.nan), ended, [""], n=2, depth=DEPTH)
    assert lost[0].state == "aaaa"  # of equal scores the first, NaN among them


# --- MCTS


def test_puct_by_hand():
    """An unvisited child of a parent visited once scores c_init + log((1 + c_base + 1) / c_base)."""
    fresh = search.puct_scores(np.zeros(2), np.array([0, 1]), 1)
    bonus = 1.25 + np.log((1 + 19652 + 1) / 19652)
    np.testing.assert_allclose(fresh, [bonus, bonus / 2], rtol=1e-12)
    sums, visits = np.array([0.5, 3.0]), np.array([1, 4])
    expected = sums / (visits + 1e-6) + (2.0 + np.log((5 + 10 + 1) / 10)) * np.sqrt(5) / (1 + visits)
    np.testing.assert_allclose(search.puct_scores(sums, visits, 5, c_init=2.0, c_base=10.0), expected)


def test_the_bonus_vanishes_with_visits_and_uct_goes_to_the_unvisited_first():
    visits = np.array([10.0, 1e3, 1e6, 1e9])
    bonus = search.puct_scores(0.3 * visits, visits, 100) - 0.3
    assert (np.diff(bonus) < 0).all() and abs(bonus[-1]) < 1e-6
    scores = search.uct_scores(np.array([1.0, 0.0]), np.array([2, 0]), 2)
    assert scores[1] == np.inf and scores[0] == pytest.approx(0.5 + 1.4 * np.sqrt(np.log(2)), abs=1e-5)


# A tree of two moves: "b" is the better first move, though what is seen first speaks for "a".
VALUES = {"aa": 0.9, "ab": 0.0, "ac": 0.0, "ba": 0.6, "bb": 0.7, "bc": 0.95, "ca": 0.1, "cb": 0.1, "cc": 0.1}


def moves(states, n):
    return [[s + letter for letter in LETTERS[:n]] if len(s) < 2 else [] for s in states]


def value(states):
    """Of a state that has not ended: what its first continuation gives."""
    return np.array([VALUES[s] if len(s) == 2 else VALUES[s + "a"] for s in states])


@pytest.mark.parametrize("score", [search.puct_scores, search.uct_scores])
def test_with_many_simulations_the_most_visited_move_is_the_best(score):
    (tree,) = search.mcts(moves, value, [""], n=3, simulations=2000, score=score)
    first = tree.best_child()
    second = tree.best_child(first)
    assert tree.states[second] == "bc"
    assert tree.visits[0] == 2000
    for node, children in enumerate(tree.children):
        if children:
            assert sum(tree.visits[child] for child in children) <= tree.visits[node]
            for child in children:
                assert tree.parents[child] == node
    leaves = [i for i, s in enumerate(tree.states) if len(s) == 2 and tree.visits[i]]
    for i in leaves:
        assert tree.value_sums[i] == pytest.approx(tree.visits[i] * VALUES[tree.states[i]])


def test_the_same_search_twice_is_the_same_and_problems_are_apart():
    one, two = search.mcts(moves, value, ["", "c"], n=3, simulations=40)
    assert one == search.mcts(moves, value, [""], n=3, simulations=40)[0]
    assert two == search.mcts(moves, value, ["c"], n=3, simulations=40)[0]


def test_a_solution_move_by_move():
    whole = lambda s: len(s) == 2  # noqa: E731
    found = search.mcts_decode(moves, value, whole, ["", "ca", "a"], n=3, simulations=400, depth=2)
    assert [f.state for f in found] == ["bc", "ca", "aa"] and [f.steps for f in found] == [2, 0, 1]
    assert found[0].score == pytest.approx(0.95)


# --- DeAL

V, END, LENGTH = 3, 2, 3
RNG = np.random.default_rng(0)
TABLE = {
    t: np.log(RNG.dirichlet(np.ones(V))) for k in range(LENGTH) for t in itertools.product(range(V), repeat=k)
}  # next-token log-probs after every prefix


def next_logps(problems, prefixes):
    return np.array([TABLE[p] for p in prefixes])


def look_ahead(problems, prefixes, tokens):
    out = []
    for p in prefixes:
        for _ in range(tokens):
            if p[-1:] == (END,):
                break
            p = (*p, int(np.argmax(TABLE[p])))
        assert len(p) <= LENGTH
        out.append(p)
    return out


def prefers_zeros(problems, prefixes):
    return np.array([sum(t == 0 for t in p) - 0.1 * len(p) for p in prefixes])


def every_response():
    """{response: log-prob}, ended or of full length."""
    out = {}
    for row in itertools.product(range(V), repeat=LENGTH):
        length = next((i + 1 for i, t in enumerate(row) if t == END), LENGTH)
        out[row[:length]] = sum(TABLE[row[:i]][row[i]] for i in range(length))
    return out


def run_deal(heuristic=prefers_zeros, problems=1, **settings):
    defaults = {"width": V, "beams": 1, "lookahead": 0, "weight": 1.0, "length": LENGTH, "end": END}
    return search.deal(next_logps, look_ahead, heuristic, problems, **defaults | settings)


@pytest.mark.parametrize("weight", [0.5, 3.0])
def test_with_every_extension_kept_deal_is_the_exhaustive_maximum(weight):
    best = run_deal(beams=V**LENGTH, weight=weight)[0][0]
    scores = {y: p + weight * prefers_zeros([0], [y])[0] for y, p in every_response().items()}
    assert best.tokens == max(scores, key=scores.get)
    assert best.score == pytest.approx(max(scores.values()))
    assert best.logp == pytest.approx(every_response()[best.tokens])


def test_without_weight_it_is_beam_search_and_with_one_beam_greedy_for_any_look_ahead():
    for lookahead in (0, 2):
        greedy = run_deal(weight=0.0, lookahead=lookahead)[0][0].tokens
        assert greedy == look_ahead([0], [(int(np.argmax(TABLE[()])),)], LENGTH - 1)[0]
        wide = run_deal(weight=0.0, lookahead=lookahead, beams=V**LENGTH)[0]
        assert wide[0].tokens == max(every_response(), key=every_response().get)


@pytest.mark.parametrize("beams", [1, 2, 27])
def test_a_constant_heuristic_changes_nothing(beams):
    constant = run_deal(lambda i, p: np.full(len(p), 4.0), beams=beams, lookahead=2)
    assert [h.tokens for h in constant[0]] == [h.tokens for h in run_deal(weight=0.0, beams=beams)[0]]


def test_problems_are_apart_and_a_look_ahead_sees_what_lies_behind_a_token():
    """Ending with 1 is worth much; greedily only a first token 1 leads there, and one beam without sight misses it."""
    last = lambda i, p: np.array([50.0 * (len(q) == LENGTH and q[-1] == 1) for q in p])  # noqa: E731
    seen = [p for p in TABLE if len(p) == 1 and look_ahead([0], [p], LENGTH - 1)[0][-1] == 1]
    far = run_deal(last, lookahead=LENGTH - 1, problems=2)
    assert far[0] == far[1]
    if seen:
        assert far[0][0].tokens[0] in {p[0] for p in seen}


# --- self-refinement


def refine_numbers(rounds, satisfied=lambda said: said == "good"):
    """Answers count up to their problem; the critique says when they are there."""
    return search.self_refine(
        lambda problems: [0] * len(problems),
        lambda problems, answers: ["good" if a == p else "more" for p, a in zip(problems, answers, strict=True)],
        lambda problems, answers, said: [a + 1 for a in answers],
        satisfied, [0, 2, 9], rounds=rounds,
    )  # fmt: skip


def test_rounds_end_with_the_budget_or_when_the_critique_is_satisfied():
    zero, two, nine = refine_numbers(4)
    assert (zero.answer, two.answer, nine.answer) == (0, 2, 4)
    assert zero.history == [(0, "good")] and two.history == [(0, "more"), (1, "more"), (2, "good")]
    assert len(nine.history) == 4
    assert [r.answer for r in refine_numbers(1, lambda said: True)] == [0, 0, 0]  # plain answers


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: search.step_best_of_n(expand, progress, ended, [""], n=0, depth=1), "n must be an integer"),
        (lambda: search.step_beam(expand, progress, ended, [""], n=1, beams=0, depth=1), "beams must be an integer"),
        (lambda: search.step_beam(expand, progress, ended, [""], n=1, beams=1, depth=0), "depth must be an integer"),
        (lambda: search.mcts(moves, value, [""], n=1, simulations=0), "simulations must be an integer"),
        (lambda: search.mcts(moves, value, [""], n=0, simulations=1), "n must be an integer"),
        (lambda: search.mcts_decode(moves, value, ended, [""], n=1, simulations=1, depth=0), "depth must be"),
        (lambda: search.puct_scores(np.zeros(1), np.zeros(1), 1, c_base=0.0), "c_base must lie in"),
        (lambda: run_deal(width=0), "width must be an integer"),
        (lambda: run_deal(width=4), "width must be at most the vocabulary's 3, got 4"),
        (lambda: run_deal(beams=0), "beams must be an integer"),
        (lambda: run_deal(length=0), "length must be an integer"),
        (lambda: run_deal(lookahead=-1), "lookahead must be at least 0"),
        (lambda: run_deal(weight=-1.0), "weight must lie in"),
        (lambda: refine_numbers(0), "rounds must be an integer"),
        (lambda: search.step_best_of_n(expand, lambda s: np.zeros(1), ended, [""], n=2, depth=1), "must have shape"),
        (lambda: search.mcts(moves, lambda s: np.full(len(s), np.nan), [""], n=1, simulations=1), "finite numbers"),
    ],
)
def test_budgets_of_nothing_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
