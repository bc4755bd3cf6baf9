"""The stream of batches: deterministic, sharded without changing the global batch, exactly resumable."""

import functools
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.data import collating, pipeline
from alignment.data.rows import Tokenized

quick = settings(max_examples=15, deadline=None, derandomize=True, database=None)
SIZES = [(3 + i % 4, 1 + i % 3) for i in range(20)]


def examples(count):
    return [
        Tokenized(
            i,
            np.full(SIZES[i % 20][0], i % 9 + 1, np.int32),
            (np.full(SIZES[i % 20][1], 1, np.int32),),
            margin=float(i),
        )
        for i in range(count)
    ]


collate = functools.partial(collating.collate_trees, prompt_length=6, completion_length=3, sides=1)


def stream(count, **kwargs):
    return pipeline.training_batches(examples(count), **{"collate": collate, "seed": 0, "batch_size": 4} | kwargs)


def flatten(lists):
    return list(itertools.chain.from_iterable(lists))


def take_ids(iterator, steps):
    return [batch["ids"].tolist() for batch in itertools.islice(iterator, steps)]


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], strict=True)


@quick
@given(st.integers(1, 13), st.integers(1, 6), st.integers(0, 5))
def test_every_epoch_holds_every_example_once_across_batch_boundaries(count, batch_size, seed):
    epochs = 3
    steps = pipeline.step_count(count, batch_size, epochs)
    flat = flatten(take_ids(stream(count, batch_size=batch_size, seed=seed), steps))
    for epoch in range(epochs):
        assert sorted(flat[epoch * count : (epoch + 1) * count]) == list(range(count))
    finite = take_ids(stream(count, batch_size=batch_size, seed=seed, epochs=epochs), steps + 5)
    assert flatten(finite) == flat and len(finite) == steps


def test_same_seed_same_stream_and_other_seeds_and_epochs_differ():
    assert take_ids(stream(12), 6) == take_ids(stream(12), 6)
    assert take_ids(stream(12), 6) != take_ids(stream(12, seed=1), 6)
    first, second = np.reshape(take_ids(stream(12), 6), (2, 12))
    assert first.tolist() != second.tolist()
    # The orders of (seed, epoch) and (seed + 1, epoch - 1) must not coincide.
    assert second.tolist() != np.reshape(take_ids(stream(12, seed=1), 3), 12).tolist()
    assert flatten(take_ids(stream(12, shuffle=False), 3)) == list(range(12))


# 10 examples in batches of 4: the epoch ends inside step 2 and exactly after step 4; 8 examples: exactly after step 1.
@pytest.mark.parametrize("count", [8, 10])
@pytest.mark.parametrize("stop", range(7))
def test_resumed_stream_is_the_uninterrupted_one_at_before_and_after_epoch_ends(count, stop):
    whole = list(itertools.islice(stream(count), 10))
    interrupted = stream(count)
    for _ in range(stop):
        next(interrupted)
    state = json.loads(json.dumps(interrupted.get_state()))  # survives a JSON checkpoint
    resumed = stream(count)
    next(resumed)
    resumed.set_state(state)
    for expected in whole[stop:]:
        assert_equal(next(resumed), expected)


def test_finite_stream_resumed_at_its_end_stays_ended():
    iterator = stream(8, epochs=1)
    list(iterator)
    again = stream(8, epochs=1)
    again.set_state(iterator.get_state())
    assert list(again) == []


@pytest.mark.parametrize("process_count", [2, 4])
def test_process_slices_partition_the_global_batch(process_count):
    whole = stream(10, batch_size=8)
    parts = [stream(10, batch_size=8, process_index=p, process_count=process_count) for p in range(process_count)]
    for _ in range(5):
        slices = [next(part) for part in parts]
        joined = {key: np.concatenate([piece[key] for piece in slices]) for key in slices[0]}
        assert_equal(joined, next(whole))


mixing = {"mix": collating.with_mismatched, "collate": functools.partial(collate, sides=2)}


def different(count):
    """Examples that differ in prompt and completion, so that a mismatched completion says whose it is."""
    return [Tokenized(i, np.array([i + 1], np.int32), (np.array([i + 1], np.int32),)) for i in range(count)]


def own_and_other(batch):
    tokens = batch["targets"][batch["valid"], :, 0]
    np.testing.assert_array_equal(tokens[:, 0], batch["ids"][batch["valid"]] + 1)
    return tokens.tolist()


@pytest.mark.parametrize("process_count", [1, 2, 4])
@pytest.mark.parametrize("count", [5, 10])
def test_mixed_rows_do_not_depend_on_the_number_of_processes(process_count, count):
    """One row per process included: neighbours are those of the global batch."""
    make = functools.partial(pipeline.training_batches, different(count), batch_size=4, seed=0, **mixing)
    parts = [make(process_index=p, process_count=process_count) for p in range(process_count)]
    for batch in itertools.islice(make(), 7):
        slices = [next(part) for part in parts]
        assert_equal({key: np.concatenate([piece[key] for piece in slices]) for key in slices[0]}, batch)
        assert all(own != other for own, other in own_and_other(batch))


@pytest.mark.parametrize("process_count", [1, 2, 4])
@pytest.mark.parametrize("count", [3, 5, 8])
def test_mixed_evaluation_rows_have_neighbours_even_in_a_last_batch_of_one(process_count, count):
    make = functools.partial(pipeline.evaluation_batches, different(count), batch_size=4, **mixing)
    parts = [make(process_index=p, process_count=process_count) for p in range(process_count)]
    seen = []
    for step, whole in enumerate(make()):
        slices = [part[step] for part in parts]
        joined = {key: np.concatenate([piece[key] for piece in slices]) for key in slices[0]}
        assert own_and_other(joined) == own_and_other(whole)
        seen += own_and_other(whole)
    assert [own for own, _ in seen] == list(range(1, count + 1))
    assert all(own != other for own, other in seen)


def test_a_batch_of_one_takes_its_neighbour_from_the_next():
    whole = pipeline.training_batches(different(6), batch_size=1, seed=0, **mixing)
    pairs = [own_and_other(batch)[0] for batch in itertools.islice(whole, 5)]
    assert [other for _, other in pairs[:-1]] == [own for own, _ in pairs[1:]]


def test_packed_stream_resumes_and_holds_every_example():
    packed = collating.pack(examples(20), 16)
    make = functools.partial(
        pipeline.training_batches,
        packed,
        batch_size=2,
        seed=0,
        collate=functools.partial(collating.collate_packed, length=16),
    )
    whole = list(itertools.islice(make(), 2 * len(packed)))
    assert sum(b["mask"].sum() for b in whole) == 4 * sum(len(e.completions[0]) for e in examples(20))
    iterator = make()
    for _ in range(3):
        next(iterator)
    resumed = make()
    resumed.set_state(iterator.get_state())
    for expected in whole[3:]:
        assert_equal(next(resumed), expected)


@quick
@given(st.integers(1, 13), st.sampled_from([(2, 1), (4, 2), (4, 4), (6, 3)]))
def test_evaluation_sees_every_example_once_in_equal_batches(count, sizes):
    batch_size, process_count = sizes
    parts = [
        pipeline.evaluation_batches(
            examples(count), batch_size=batch_size, collate=collate, process_index=p, process_count=process_count
        )
        for p in range(process_count)
    ]
    assert {len(part) for part in parts} == {-(-count // batch_size)}
    seen = []
    for step in range(len(parts[0])):
        for part in parts:
            batch = part[step]
            assert len(batch["valid"]) == batch_size // process_count
            assert batch["mask"].any((1, 2)).tolist() == batch["valid"].tolist()
            assert (batch["ids"] >= 0).tolist() == batch["valid"].tolist()
            seen += batch["ids"][batch["valid"]].tolist()
    assert seen == list(range(count))
    assert [b["ids"].tolist() for b in parts[0]] == [b["ids"].tolist() for b in parts[0]]  # may be walked again


def test_iterator_state_survives_grain_checkpoint_handler(tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    import grain

    iterator = stream(10)
    for _ in range(3):
        next(iterator)
    with ocp.CheckpointManager(tmp_path / "c") as manager:
        manager.save(3, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(iterator)))
        manager.wait_until_finished()
        resumed = stream(10)
        manager.restore(3, args=ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(resumed)))
    assert_equal(next(resumed), next(iterator))


@pytest.mark.parametrize(
    "bad", [{"batch_size": 0}, {"process_count": 3}, {"process_index": 1}, {"process_index": -1}, {"epochs": 0}]
)
def test_arguments_that_do_not_fit_are_errors(bad):
    with pytest.raises(ValueError, match="must be"):
        stream(4, **bad)
    with pytest.raises(ValueError, match="no rows"):
        stream(0)
