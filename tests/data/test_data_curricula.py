"""Orders of examples: paces, cycles, and that a stream that follows one resumes anywhere."""

import itertools
import math

import numpy as np
import pytest

from alignment.data import curricula, pipeline
from alignment.data.rows import Tokenized

PACE = {"start": 0.1, "end": 0.9, "lowest": 0.2, "highest": 1.0}
LOSSES = np.linspace(0.5, 3.0, 20)


@pytest.mark.parametrize("pacing", curricula.PACINGS)
def test_every_pace_rises_from_the_lowest_to_the_highest(pacing):
    pace = [curricula.climb_pacing(p, pacing=pacing, **PACE) for p in np.linspace(0, 1, 101)]
    assert all(b >= a for a, b in itertools.pairwise(pace))
    assert pace[0] == 0.2 and pace[-1] == 1.0
    # log begins at 1e-10 of the way or so, for the e^-10 within it
    assert curricula.climb_pacing(0.1, pacing=pacing, **PACE) == pytest.approx(0.2, abs=1e-6)


def test_paces_are_ordered_in_between():
    for progress in np.linspace(0.15, 0.85, 15):
        at = {kind: curricula.climb_pacing(progress, pacing=kind, **PACE) for kind in curricula.PACINGS}
        assert at["log"] > at["linear"] > at["exp"]
        assert at["root"] >= at["linear"] >= at["quad"] and at["step"] == 0.2
    assert curricula.climb_pacing(0.0, lowest=1.0) == 1.0
    with pytest.raises(ValueError, match="not one of linear"):
        curricula.climb_pacing(0.5, pacing="sqrt")
    with pytest.raises(ValueError, match="0 <= start < end <= 1"):
        curricula.climb_pacing(0.5, start=0.9, end=0.1)


def test_climb_draws_evenly_from_the_easiest_that_are_open():
    order = curricula.climb_order(LOSSES[::-1], 0, rows_in_all=4000, **PACE)
    early, late = ([order(place) for place in places] for places in (range(400), range(3600, 6000)))
    assert set(early) == {19, 18, 17, 16}
    counts = np.bincount(late, minlength=20)
    assert counts.min() > 0 and abs(counts - 120).max() < 50


def test_unigram_surprise_is_the_mean_negative_log_frequency():
    texts = [np.array([0, 0, 1]), np.array([0]), np.array([2])]
    p = np.array([3, 1, 1]) / 5
    expected = [-(2 * math.log(p[0]) + math.log(p[1])) / 3, -math.log(p[0]), -math.log(p[2])]
    np.testing.assert_allclose(curricula.unigram_surprises(texts), expected)
    assert curricula.frequency_ranks(texts, 5).tolist() == [0, 1, 2, 3, 4]
    assert curricula.frequency_ranks([np.array([3, 3, 1])], 4).tolist() == [2, 1, 3, 0]


def test_cycles_grow_and_shrink():
    cycle = curricula.mccl_sizes(smallest=0.25, largest=1.0, multiplier=0.5)
    assert list(itertools.islice(itertools.cycle(cycle), 7)) == [0.25, 0.5, 1.0, 0.5, 0.25, 0.5, 1.0]
    assert curricula.mccl_sizes(smallest=0.4, largest=1.0, multiplier=0.5) == [0.4, 0.8, 1.0, 0.5]
    assert curricula.mccl_sizes(smallest=1.0, largest=1.0) == [1.0]
    with pytest.raises(ValueError, match="0 < smallest <= largest <= 1"):
        curricula.mccl_sizes(smallest=0.0)


def test_probabilities_fall_with_the_loss_and_are_not_all_of_what_was_memorised():
    p = curricula.mccl_probabilities(LOSSES)
    assert p.sum() == pytest.approx(1) and (np.diff(p) < 0).all()
    assert curricula.mccl_probabilities([0.0, 1e-6, 1.0], floor=0.1)[:2] == pytest.approx([10 / 21, 10 / 21])


def test_an_epoch_of_the_cycle_draws_without_replacement_the_easy_ones_first():
    order = curricula.mccl_order(LOSSES, 0)
    ends = np.cumsum([5, 10, 20, 10, 5])
    epochs = [[order(p) for p in range(end - size, end)] for end, size in zip(ends, (5, 10, 20, 10, 5), strict=True)]
    assert all(len(set(e)) == len(e) for e in epochs) and sorted(epochs[2]) == list(range(20))
    assert epochs[0] != epochs[4]
    first = np.concatenate([[curricula.mccl_order(LOSSES, seed)(p) for p in range(5)] for seed in range(80)])
    assert (first < 10).mean() > 0.6
    whole = curricula.mccl_order(LOSSES, 0, smallest=1.0)
    assert sorted(whole(p) for p in range(20, 40)) == list(range(20))


def test_a_stream_in_an_order_of_its_own_resumes_and_splits_over_processes():
    examples = [Tokenized(i, np.ones(1, np.int32), (np.ones(1, np.int32),)) for i in range(20)]
    order = curricula.mccl_order(LOSSES, 3)

    def stream(**settings):
        collate = lambda rows: {"ids": np.array([r.id for r in rows])}  # noqa: E731
        return pipeline.training_batches(examples, batch_size=4, seed=0, collate=collate, order=order, **settings)

    whole = [b["ids"].tolist() for b in itertools.islice(stream(), 12)]
    assert list(itertools.chain(*whole)) == [order(p) for p in range(48)]
    halves = [
        [b["ids"].tolist() for b in itertools.islice(stream(process_index=i, process_count=2), 12)] for i in (0, 1)
    ]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole
    iterator = stream()
    for _ in range(7):
        next(iterator)
    resumed = stream()
    resumed.set_state(iterator.get_state())
    assert next(resumed)["ids"].tolist() == whole[7]
    with pytest.raises(ValueError, match="has no epochs"):
        stream(epochs=2)
