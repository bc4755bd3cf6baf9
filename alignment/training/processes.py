"""Work on the host that several processes of one program do together, and whose outcome all of them know.

Each has the same rollout in memory; calling rewards and judges on it is what takes time, and what need not give the
same answer twice. So every process calls them for its part of the items and learns the others' answers, and from there
on all go the same way.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def gather(value: Any) -> list[Any]:
    """The value of every process, by its number. All processes have to call it; what they send must be picklable."""
    if jax.process_count() == 1:
        return [value]
    sent = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(len(sent), np.int32)).reshape(-1)
    filled = np.pad(sent, (0, int(sizes.max()) - len(sent)))
    received = multihost_utils.process_allgather(filled).reshape(len(sizes), -1)
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(received, sizes, strict=True)]


def part(count: int, index: int, processes: int) -> slice:
    """Which of `count` items the process `index` works on: neighbours, and as many as any other within one."""
    return slice(count * index // processes, count * (index + 1) // processes)


def share(work: Callable[..., Any], *columns: Sequence[Any]) -> list[Any]:
    """`work(*columns)` of all items, done in parts: what came of each part, in the order of the items.

    A part without items is left out. What `work` raises in one process is raised in all, for none of them can go on.
    """
    if jax.process_count() == 1:
        return [work(*columns)]
    own = part(len(columns[0]), jax.process_index(), jax.process_count())
    result, error = None, None
    if own.start < own.stop:
        try:
            result = work(*(column[own] for column in columns))
        except Exception as raised:  # the others wait for this process: they are told before it ends
            error = raised
    sizes = [part(len(columns[0]), i, jax.process_count()) for i in range(jax.process_count())]
    parts = gather((result, error and (type(error).__name__, str(error))))
    for number, (_, problem) in enumerate(parts):
        if problem:
            raise ValueError(f"process {number}: {': '.join(problem)}") from error
    return [result for (result, _), size in zip(parts, sizes, strict=True) if size.start < size.stop]
