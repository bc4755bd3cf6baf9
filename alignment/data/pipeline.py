"""Deterministic, sharded, exactly resumable batches with grain.

A batch is a pure function of (examples, seed, step): step k holds the places [k * batch_size, (k + 1) * batch_size) of
an endless list, one permutation of all examples after another. Hence
* the iterator's whole state is the next step, a small JSON-safe dict, and a resumed stream is the uninterrupted one at,
  before and after an epoch's end;
* a batch may span two epochs, so no example is ever dropped;
* the global batch does not depend on the number of processes: process p takes the p-th slice of its rows.

A "row" below is what `collate` takes: a `Tokenized` example, or a tuple of them from `rows.pack`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np

from alignment.data import rows as rows_lib

# Batches, not examples, pass through the buffer; collating is cheap, so two threads keep ahead of any training step.
_READ = {"num_threads": 2, "prefetch_buffer_size": 4}
_ENDLESS = 2**40  # steps

Mix = Callable[[Sequence[Any]], Sequence[Any]]


def training_batches(
    rows: Sequence[Any],
    *,
    batch_size: int,
    seed: int,
    collate: Callable[[Sequence[Any]], rows_lib.Batch],
    mix: Mix | None = None,
    epochs: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    shuffle: bool = True,
) -> grain.DatasetIterator:
    """An iterator of collated batches of `batch_size // process_count` rows, with `get_state` and `set_state`.

    Args:
      batch_size: rows of the global batch.
      seed: decides the order of every epoch, together with the epoch's number.
      collate: list of rows -> batch, e.g. `partial(rows.collate_trees, prompt_length=.., completion_length=..,
        sides=2)`.
      mix: rows of the global batch -> as many rows, for rows that take something from their neighbours, e.g.
        `rows.with_mismatched`. Every process applies it to the whole global batch and then takes its slice.
      epochs: stop after the first step that completes this many epochs (`step_count`); the last batch is filled up with
        the first rows of the epoch that would follow. None never stops.
      shuffle: False keeps the order of `rows`.
    """
    local = _local_size(rows, batch_size, process_index, process_count)
    if epochs is not None and epochs < 1:
        raise ValueError(f"{epochs=} must be at least 1, or None for no end")

    @functools.lru_cache(maxsize=3)  # A batch may span epochs, and threads read ahead.
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng([seed, epoch]).permutation(len(rows))

    def batch(step: int) -> rows_lib.Batch:
        def read(first: int, count: int) -> list[Any]:
            places = (divmod(place, len(rows)) for place in range(first, first + count))
            return [rows[int(order(epoch)[i]) if shuffle else i] for epoch, i in places]

        return collate(_own_rows(read, step * batch_size, batch_size, process_index * local, local, mix))

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
    collate: Callable[[Sequence[Any]], rows_lib.Batch],
    mix: Mix | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.MapDataset:
    """Every row exactly once, in order, as a sequence of equal batches (`len`, index, or iterate as often as you like).

    The last global batch is filled up with rows of valid=False. Every process gets the same number of batches. `mix` as
    in `training_batches`; there the last global batch goes on with the first rows, so that a single row has neighbours.
    """
    local = _local_size(rows, batch_size, process_index, process_count)

    def batch(step: int) -> rows_lib.Batch:
        def read(first: int, count: int) -> list[Any]:
            return [rows[i % len(rows)] for i in range(first, first + count)]

        own = _own_rows(read, step * batch_size, batch_size, process_index * local, local, mix)
        first = step * batch_size + process_index * local
        real = max(0, min(local, len(rows) - first))
        if real:
            return rows_lib.pad_batch(collate(own[:real]), local)
        # The last global batch ends before this process's slice: any row serves to give the shapes.
        return rows_lib.blank_rows(rows_lib.pad_batch(collate(own[:1]), local), np.ones(local, bool))

    return grain.MapDataset.range(step_count(len(rows), batch_size, 1)).map(batch)


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
