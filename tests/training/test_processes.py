"""Work shared by several processes, all played by this one; real ones run in experiments/test_two_processes.py."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.rewards import runner
from alignment.training import processes


class _Sent(Exception):
    """This process has sent its part, and would now wait for the others."""


def play(monkeypatch, count: int, work, *columns):
    """What each of `count` processes gets."""
    sent = {}
    monkeypatch.setattr(jax, "process_count", lambda: count)

    def as_process(index):
        monkeypatch.setattr(jax, "process_index", lambda: index)
        return processes.share(work, *columns)

    def send(value):
        sent[jax.process_index()] = value
        raise _Sent

    monkeypatch.setattr(processes, "gather", send)
    for index in range(count if count > 1 else 0):
        with pytest.raises(_Sent):
            as_process(index)
    monkeypatch.setattr(processes, "gather", lambda value: [sent[i] for i in range(count)])
    return [as_process(index) for index in range(count)]


@settings(max_examples=20, deadline=None)
@given(count=st.integers(0, 20), among=st.integers(1, 7))
def test_parts_are_neighbours_that_cover_all_items_evenly(count, among):
    parts = [range(count)[processes.part(count, index, among)] for index in range(among)]
    assert [i for part in parts for i in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("among", [1, 2, 3, 8])
def test_every_process_knows_all_results_in_order_and_works_on_its_part_only(among, monkeypatch):
    called = []

    def work(numbers, words):
        called.append(len(numbers))
        return [f"{word}{number}" for number, word in zip(numbers, words, strict=True)]

    for parts in play(monkeypatch, among, work, range(5), "abcde"):
        assert [x for part in parts for x in part] == ["a0", "b1", "c2", "d3", "e4"]
    assert 0 not in called and max(called) <= -(-5 // among)


def test_what_one_process_raises_ends_all_with_its_words(monkeypatch):
    def work(numbers):
        if 3 in numbers:
            raise RuntimeError("the judge says nothing")
        return numbers

    with pytest.raises(ValueError, match="process 1: RuntimeError: the judge says nothing"):
        play(monkeypatch, 2, work, [0, 1, 2, 3])


def test_one_process_gathers_itself():
    assert processes.gather({"a": 1}) == [{"a": 1}]


def test_rewards_of_parts_are_those_of_the_whole():
    def short(prompt, completion, record):
        return 1 / len(completion)

    prompts, completions, records = ["p"] * 5, ["a", "", "ccc", "dd", ""], [{}] * 5
    with runner.RewardRunner([short, len_of_record], [1.0, 2.0]) as whole:
        one = whole(prompts, completions, records)
        two = runner.concatenated([whole(prompts[p], completions[p], records[p]) for p in (slice(0, 2), slice(2, 5))])
    for name in ("rewards", "by_function", "failed", "failed_by_function"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert (one.report.calls, one.report.counts) == (two.report.calls, two.report.counts) == (10, {"exception": 2})


def len_of_record(prompt, completion, record):
    return float(len(record))
