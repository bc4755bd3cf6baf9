"""Deterministic, sharded, exactly resumable batches with grain.

A batch is a pure function of (examples, seed, step): step k holds the places [k * batch_size, (k + 1) * batch_size) of
an endless list, one permutation of all examples after another. Hence
* the iterator's whole state is the next step, a small JSON-safe dict, and a resumed stream is the uninterrupted one at,
  before and after an epoch's end;
* a batch may span two epochs, so no example is ever dropped;
* the global batch does not depend on the number of processes: process p takes the p-th slice of its rows.

A "row" below is what `collate` takes: a `Tokenized` example, or a tuple of them from `collating.pack`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np

from alignment.data import collating

# Batches, not examples, pass through the buffer; collating is cheap, so two threads keep ahead of any training step.
_READ = {"num_threads": 2, "prefetch_buffer_size": 4}
_ENDLESS = 2**40  # steps

Mix = Callable[[Sequence[Any]], Sequence[Any]]
Order = Callable[[int], int]  # place in the endless list -> number of a row, see `alignment.data.curricula`
# (collated batch, a generator for each of its rows, share of the training that is done) -> batch
Corrupt = Callable[[collating.Batch, Sequence[np.random.Generator], float], collating.Batch]


def training_batches(
    rows: Sequence[Any],
    *,
    batch_size: int,
    seed: int,
    collate: Callable[[Sequence[Any]], collating.Batch],
    mix: Mix | None = None,
    order: Order | None = None,
    corrupt: Corrupt | None = None,
    steps_in_all: int = 0,
    epochs: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    shuffle: bool = True,
) -> grain.DatasetIterator:
    """An iterator of collated batches of `batch_size // process_count` rows, with `get_state` and `set_state`.

    Args:
      batch_size: rows of the global batch.
      seed: decides the order of every epoch, together with the epoch's number.
      collate: list of rows -> batch, e.g. `partial(collating.collate_trees, prompt_length=.., completion_length=..,
        sides=2)`.
      mix: rows of the global batch -> as many rows, for rows that take something from their neighbours, e.g.
        `collating.with_mismatched`. Every process applies it to the whole global batch and then takes its slice.
      order: which row stands at a place, in place of permutations.
      corrupt: what is done to every collated batch (`alignment.data.corruption`); `steps_in_all` is then what the
        progress that it is told refers to.
      epochs: stop after the first step that completes this many epochs (`step_count`); the last batch is filled up with
        the first rows of the epoch that would follow. None never stops.
      shuffle: False keeps the order of `rows`.
    """
    local = _local_size(rows, batch_size, process_index, process_count)
    if epochs is not None and order is not None:
        raise ValueError(f"{epochs=}: an order of its own has no epochs; give the one or the other")
    if corrupt is not None and steps_in_all < 1:
        raise ValueError(f"{steps_in_all=} must be at least 1, for a corruption is told how far the training is")
    if epochs is not None and epochs < 1:
        raise ValueError(f"{epochs=} must be at least 1, or None for no end")

    @functools.lru_cache(maxsize=3)  # A batch may span epochs, and threads read ahead.
    def permutation(epoch: int) -> np.ndarray:
        return np.random.default_rng([seed, epoch]).permutation(len(rows))

    def batch(step: int) -> collating.Batch:
        def read(first: int, count: int) -> list[Any]:
            if order is not None:
                return [rows[order(place)] for place in range(first, first + count)]
            places = (divmod(place, len(rows)) for place in range(first, first + count))
            return [rows[int(permutation(epoch)[i]) if shuffle else i] for epoch, i in places]

        collated = collate(_own_rows(read, step * batch_size, batch_size, process_index * local, local, mix))
        if corrupt is None:
            return collated
        first = step * batch_size + process_index * local
        return corrupt(collated, _generators(seed, first, local), min(1.0, step / steps_in_all))

    steps = _ENDLESS if epochs is None else step_count(len(rows), batch_size, epochs)
    dataset = grain.MapDataset.range(steps).map(batch)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(**_READ)))


def step_count(row_count: int, batch_size: int, epochs: int) -> int:
    """Steps until every row has been seen `epochs` times."""
    return -(-row_count * epochs // batch_size)


def evaluation_batches(
    rows: Sequence[Any],
    *,
    batch_size: int,
    collate: Callable[[Sequence[Any]], collating.Batch],
    mix: Mix | None = None,
    corrupt: Corrupt | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.MapDataset:
    """Every row exactly once, in order, as a sequence of equal batches (`len`, index, or iterate as often as you like).

    The last global batch is filled up with rows of valid=False. Every process gets the same number of batches. `mix` as
    in `training_batches`; there the last global batch goes on with the first rows, so that a single row has neighbours.
    `corrupt` is told a progress of 1, and draws the same for a row every time.
    """
    local = _local_size(rows, batch_size, process_index, process_count)

    def batch(step: int) -> collating.Batch:
        def read(first: int, count: int) -> list[Any]:
            return [rows[i % len(rows)] for i in range(first, first + count)]

        own = _own_rows(read, step * batch_size, batch_size, process_index * local, local, mix)
        first = step * batch_size + process_index * local
        real = max(0, min(local, len(rows) - first))
        # Where the last global batch ends before this process's slice, any row serves to give the shapes.
        collated = collate(own[: max(real, 1)])
        if corrupt is not None:
            collated = corrupt(collated, _generators(0, first, max(real, 1)), 1.0)
        padded = collating.pad_batch(collated, local)
        return padded if real else collating.blank_rows(padded, np.ones(local, bool))

    return grain.MapDataset.range(step_count(len(rows), batch_size, 1)).map(batch)


def _generators(seed: int, first: int, count: int) -> list[np.random.Generator]:
    """One for each of the rows from place `first` on, whichever process holds them."""
    return [np.random.default_rng([seed, place, 17]) for place in range(first, first + count)]


def _own_rows(
    read: Callable[[int, int], list[Any]], first: int, batch_size: int, start: int, count: int, mix: Mix | None
) -> list[Any]:
    """The `count` rows from `start` on of the global batch that begins at place `first`, mixed with all its rows."""
    if mix is None:
        return read(first + start, count)
    # A batch of one row gets the row after it as its neighbour.
    return mix(read(first, max(batch_size, 2)))[start : start + count]


def _local_size(rows: Sequence[Any], batch_size: int, process_index: int, process_count: int) -> int:
    if not len(rows):
        raise ValueError("no rows to batch")
    if batch_size < 1 or process_count < 1 or batch_size % process_count:
        raise ValueError(f"{batch_size=} must be a positive multiple of {process_count=}")
    if not 0 <= process_index < process_count:
        raise ValueError(f"{process_index=} must be in [0, {process_count=})")
    return batch_size // process_count
