"""The reference's log-probs, computed once and stored, so that its parameters need not stay in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import numpy as np

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
    """Token log-probs [S, T] of the reference by example id, scored once over `batches` and kept in the file `path`."""
    if path.exists():
        with np.load(path, allow_pickle=False) as stored:
            if set(stored["ids"].tolist()) == ids:
                return dict(zip(stored["ids"].tolist(), stored["token_logps"], strict=True))
        print(f"{path} is of other data; scoring the reference again", flush=True)

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

    if jax.process_count() > 1:
        raise ValueError("config.precompute_reference: one process only for now; leave it False on several hosts")
    table: dict[int, np.ndarray] = {}
    for batch in batches:
        logps = np.asarray(score(params, mesh.put_batch(device_mesh, batch)))
        table |= {int(i): row for i, row, ok in zip(batch["ids"], logps, batch["valid"], strict=True) if ok}
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
