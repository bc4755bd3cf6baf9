"""The reference's log-probs, computed once and stored, so that its parameters need not stay in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from alignment import statistics
from alignment.training import mesh


def load_or_score(
    path: Path,
    model,
    params,
    batches: Iterable[dict],
    ids: set[int],
    device_mesh,
    *,
    chunk_size: int | None,
    temperature: float,
) -> dict[int, np.ndarray]:
    """Token log-probs [S, T] of the reference by example id, scored once over `batches` and kept in the file `path`.

    A file from before is used if it holds the same examples and the same log-probs of the first batch, which are always
    computed afresh: another model, other lengths or another tokenizer would show there. On several hosts each scores
    its part of a batch and all get the whole table.
    """

    @jax.jit
    def score(params, batch):
        _, hidden = statistics.completion_hidden(model, params, batch)
        return statistics.token_statistics(
            ("token_logps",),
            hidden,
            model.head(params),
            batch["targets"],
            batch["mask"],
            chunk_size=chunk_size,
            logit_softcap=model.config.logit_softcap,
            temperature=temperature,
        )["token_logps"]

    def scored(batch: dict) -> dict[int, np.ndarray]:
        logps = score(params, mesh.put_batch(device_mesh, batch))
        numbers, valid = batch["ids"], batch["valid"]
        if jax.process_count() > 1:
            logps, numbers, valid = (multihost_utils.process_allgather(x, tiled=True) for x in (logps, numbers, valid))
        return {int(i): row for i, row, ok in zip(numbers, np.asarray(logps), valid, strict=True) if ok}

    batches = iter(batches)
    table = scored(next(batches))
    if path.exists():
        with np.load(path, allow_pickle=False) as stored:
            old = dict(zip(stored["ids"].tolist(), stored["token_logps"], strict=True))
        if set(old) == ids and all(
            np.shape(old[i]) == x.shape and np.allclose(old[i], x, atol=1e-3) for i, x in table.items()
        ):
            return old
        if jax.process_index() == 0:
            print(f"{path} is of other data or of another model; scoring the reference again", flush=True)
    for batch in batches:
        table |= scored(batch)
    if jax.process_index() == 0:
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, ids=np.array(list(table)), token_logps=np.stack(list(table.values())))
        temporary.replace(path)
        print(f"reference log-probs of {len(table)} examples stored in {path}", flush=True)
    return table


def join(batch: dict, table: Mapping[int, np.ndarray] | None) -> dict:
    """The batch with the stored log-probs of its examples; unchanged without a table."""
    if table is None:
        return batch
    nothing = np.zeros(batch["targets"].shape[1:], np.float32)
    return batch | {"reference_token_logps": np.stack([table.get(int(i), nothing) for i in batch["ids"]])}
