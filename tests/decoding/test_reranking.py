"""Reranking in windows: one is a sort, several carry the best to the top, and the model's scores are its own logits."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.decoding import reranking, sampler
from alignment.models import decoder
from alignment.training import rollouts


def true_scores(prompt, window):
    return [len(prompt) + c for c in window]


def recorded(calls, score=true_scores):
    def call(prompt, window):
        calls.append(list(window))
        return score(prompt, window)

    return call


@st.composite
def lists(draw):
    """(candidates, window, stride): candidates are their own scores, some equal."""
    candidates = draw(st.lists(st.integers(-9, 9), min_size=1, max_size=40))
    window = draw(st.integers(1, 12))
    return candidates, window, draw(st.integers(1, window))


def by_slices(candidates, score, window, stride):
    """The windows one slice after another, as a list that is sorted in place: no numbers, no count beforehand."""
    numbered, end = list(enumerate(candidates)), len(candidates)
    while True:
        start = end - window if end > window else 0
        part = numbered[start:end]
        scores = dict(zip((i for i, _ in part), score("", [c for _, c in part]), strict=True))
        numbered[start:end] = sorted(part, key=lambda pair: -scores[pair[0]])
        if start == 0:
            return [i for i, _ in numbered]
        end -= stride


@settings(max_examples=60, deadline=None)
@given(lists())
def test_it_is_the_windows_one_after_the_other(case):
    candidates, window, stride = case

    def fickle(prompt, shown):  # says something else in every company, as a model does
        return [((c * 7 + sum(shown) + 3 * place) % 5) - len(prompt) for place, c in enumerate(shown)]

    for score in (true_scores, fickle):
        got = reranking.rerank(score, "", candidates, window=window, stride=stride)
        assert got == by_slices(candidates, score, window, stride)
        assert sorted(got) == list(range(len(candidates)))


@settings(max_examples=30, deadline=None)
@given(lists())
def test_every_candidate_is_seen_and_the_calls_are_as_many_as_the_windows(case):
    candidates, window, stride = case
    calls, places = [], list(range(len(candidates)))
    reranking.rerank(recorded(calls, lambda _, shown: [-x for x in shown]), "", places, window=window, stride=stride)
    assert set(itertools.chain.from_iterable(calls)) == set(places)
    assert len(calls) == reranking.count_windows(len(places), window=window, stride=stride)
    assert all(len(shown) <= window for shown in calls)
    # The order that they stand in is already right: nothing moves, and the windows lie at their places.
    assert [(shown[0], shown[-1] + 1) for shown in calls] == [
        (max(len(places) - i * stride - window, 0), len(places) - i * stride) for i in range(len(calls))
    ]


@settings(max_examples=40, deadline=None)
@given(lists())
def test_with_true_scores_the_first_places_are_right_wherever_the_best_stood(case):
    candidates, window, stride = case
    got = [candidates[i] for i in reranking.rerank(true_scores, "", candidates, window=window, stride=stride)]
    sure = len(candidates) if len(candidates) <= window else window - stride
    assert got[:sure] == sorted(candidates, reverse=True)[:sure]


def test_the_best_reaches_the_top_of_a_hundred_from_every_place():
    for place in range(100):
        candidates = [0] * place + [1] + [0] * (99 - place)
        calls = []
        got = reranking.rerank(recorded(calls), "query", candidates)
        assert got == [place, *(i for i in range(100) if i != place)]  # and the others, all equal, stay in their order
        assert [len(shown) for shown in calls] == [20] * 9


@settings(max_examples=30, deadline=None)
@given(lists(), st.integers(-1000, 1000))
def test_a_constant_added_to_all_scores_changes_nothing(case, constant):
    candidates, window, stride = case
    kept = reranking.rerank(true_scores, "", candidates, window=window, stride=stride)
    shifted = reranking.rerank(
        lambda _, shown: np.asarray(shown) + constant, "", candidates, window=window, stride=stride
    )
    assert shifted == kept


def test_one_window_is_a_plain_sort_and_equal_scores_keep_their_order():
    candidates = ["b", "a", "c", "a2", "b2"]
    score = {"a": 3.0, "a2": 3.0, "b": 2.0, "b2": 2.0, "c": 9.5}
    got = reranking.rerank(lambda _, shown: [score[c] for c in shown], None, candidates)
    assert [candidates[i] for i in got] == ["c", "a", "a2", "b", "b2"] and candidates[0] == "b"
    assert reranking.rerank(lambda _, shown: [0.0], None, ["only"]) == [0]


@pytest.mark.parametrize(("candidates", "windows"), [(1, 1), (20, 1), (21, 2), (30, 2), (31, 3), (100, 9)])
def test_windows_of_the_paper(candidates, windows):
    assert reranking.count_windows(candidates) == windows


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"stride": 0}, r"stride must be an integer in \[1, window\], window 20, got 0"),
        ({"stride": 21}, r"stride must be an integer in \[1, window\], window 20, got 21"),
        ({"stride": 2.5}, "stride must be an integer"),
        ({"window": 0, "stride": 1}, "window must be an integer in"),
        ({"candidates": []}, "candidates must be an integer in"),
        ({"score": lambda prompt, window: [1.0]}, "score must give 3 finite numbers, one for each candidate"),
        ({"score": lambda prompt, window: [1.0, float("nan"), 2.0]}, "score must give 3 finite numbers"),
        ({"score": lambda prompt, window: [1.0, -np.inf, 2.0]}, "score must give 3 finite numbers"),
    ],
)
def test_what_cannot_be_reranked_is_named(settings_, words):
    arguments = {"score": true_scores, "prompt": "", "candidates": [1, 2, 3], **settings_}
    with pytest.raises(ValueError, match=words):
        reranking.rerank(**arguments)


def test_identifier_logits_are_those_that_the_sampler_draws_its_first_token_from():
    """Up to a constant, which no order sees; also of prompts that differ in length."""
    model = decoder.build(
        decoder.DecoderConfig(vocab_size=40, hidden_size=16, intermediate_size=16, num_layers=2, num_heads=2)
    )
    params = model.init(jax.random.key(0))
    prompts = rollouts.pad_prompts([[5, 6, 7], [9, 8, 7, 6, 5, 4]], 8, 0)
    identifiers = jnp.array([11, 30, 2])
    got = np.asarray(reranking.identifier_logits(model, params, *prompts, identifiers))
    assert got.shape == (2, 3) and got.dtype == np.float32
    drawn = sampler.sample(model, params, *prompts, jax.random.key(1), group_size=64, temperature=1.0,
                           max_new_tokens=1, eos_id=39, pad_id=0, top_k=None)  # fmt: skip
    tokens, logps = np.asarray(drawn.tokens).reshape(2, 64), np.asarray(drawn.logps).reshape(2, 64)
    everything = np.asarray(reranking.identifier_logits(model, params, *prompts, jnp.arange(40)))
    want = np.asarray(jax.nn.log_softmax(everything))
    np.testing.assert_allclose(logps, np.take_along_axis(want, tokens, axis=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(got, everything[:, np.asarray(identifiers)])
