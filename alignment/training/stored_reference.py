"""What the frozen starting model says of every completion token, computed once and stored.

Its log-probs, so that its parameters need not stay in memory; or the token rewards that it gives under two prompts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from alignment import statistics
from alignment.losses import treg_token_rewards
from alignment.training import mesh

Table = Mapping[int, np.ndarray]


def token_logps(model, params, *, chunk_size: int | None, temperature: float) -> Callable[[dict], jax.Array]:
    """A function from a batch to the model's token log-probs [B, S, T]."""

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

    return functools.partial(score, params)


def token_rewards(logps: Callable[[dict], jax.Array]) -> Callable[[dict, dict], jax.Array]:
    """A function from the same rows after a better and after a worse prompt to T-REG's token rewards [B, S, T]."""
    return lambda better, worse: treg_token_rewards(logps(better), logps(worse))


def score_all(
    score: Callable[..., jax.Array], batches: Iterable[tuple[dict, ...]], device_mesh
) -> dict[int, np.ndarray]:
    """`score` [S, T] of every example of the batches by its id; on several hosts each scores its part of them."""
    table: dict[int, np.ndarray] = {}
    for arguments in batches:
        values = score(*(mesh.put_batch(device_mesh, batch) for batch in arguments))
        numbers, valid = arguments[0]["ids"], arguments[0]["valid"]
        if jax.process_count() > 1:
            values, numbers, valid = (
                multihost_utils.process_allgather(x, tiled=True) for x in (values, numbers, valid)
            )
        table |= {int(i): row for i, row, ok in zip(numbers, np.asarray(values), valid, strict=True) if ok}
    return table


def load_or_score(
    path: Path,
    score: Callable[..., jax.Array],
    batches: Iterable[tuple[dict, ...]],
    ids: set[int],
    device_mesh,
    what: str,
) -> Table:
    """`score` [S, T] of every example by its id, computed once over `batches` and kept in the file `path`.

    An element of `batches` is a tuple, the arguments of `score`: the same examples, perhaps after different prompts.

    A file from before is used if it holds the same examples and the same scores of the first batch, which are always
    computed afresh: another model, other prompts, lengths or another tokenizer would show there. On several hosts each
    scores its part of a batch and all get the whole table.
    """

    batches = iter(batches)
    table = score_all(score, [next(batches)], device_mesh)
    if path.exists():
        with np.load(path, allow_pickle=False) as stored:
            old = dict(zip(stored["ids"].tolist(), stored["values"], strict=True)) if "values" in stored else {}
        if set(old) == ids and all(
            np.shape(old[i]) == x.shape and np.allclose(old[i], x, atol=1e-3) for i, x in table.items()
        ):
            return old
        if jax.process_index() == 0:
            print(f"{path} is of other data or of another model; scoring again", flush=True)
    table |= score_all(score, batches, device_mesh)
    if jax.process_index() == 0:
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, ids=np.array(list(table)), values=np.stack(list(table.values())))
        temporary.replace(path)
        print(f"{what} of {len(table)} examples stored in {path}", flush=True)
    return table


def join(batch: dict, tables: Mapping[str, Table]) -> dict:
    """The batch with what is stored of its examples, under the keys of `tables`; 0 for rows that only pad."""

    def column(table: Table) -> np.ndarray:
        nothing = np.zeros_like(next(iter(table.values())))
        return np.stack([table.get(int(i), nothing) for i in batch["ids"]])

    return batch | {key: column(table) for key, table in tables.items()}
