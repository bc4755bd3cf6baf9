"""Token rows: from token ids of examples to the batch dictionary that the statistics pass and the step read.

A batch is a dict of numpy arrays; B rows, L columns, S completions ("sides") a row, T completion slots:

| key            | shape          | meaning                                                                            |
|----------------|----------------|------------------------------------------------------------------------------------|
| `tokens`       | i32 [B, L]     | row tokens                                                                         |
| `positions`    | i32 [B, L]     | positions; a completion continues from its prompt's length                         |
| `segment_ids`  | i32 [B, L]     | 0 = padding, else tree * 1024 + branch; branch 0 = prompt or plain, 1.. = sides    |
| `targets`      | i32 [B, S, T]  | tokens to score, end token included; 0 where masked                                |
| `predict_from` | i32 [B, S, T]  | column whose hidden state predicts the target; 0 where masked                      |
| `mask`         | bool [B, S, T] | True where the target counts                                                       |
| `last_index`   | i32 [B, S]     | column of the last real token of each completion                                   |
| `ids`          | i32 [B]        | number of the example in the data set; -1 for rows that only pad                   |
| `valid`        | bool [B]       | False for rows that only pad a batch                                               |
| `labels`       | f32 [B, S]     | ranked lists only, best first                                                      |
| `margins`      | f32 [B]        | if the data has them; likewise `annotator_ids` i32 [B], `weights` f32 [B] and      |
|                |                | `preference_proportions` f32 [B], `objective_ids` i32 [B], and of both sides       |
|                |                | `chosen_margin_rewards` f32 [B, K] and `chosen_harmful` bool [B]                   |
| `desirable`    | bool [B]       | unpaired examples only, whether the completion is a wanted one                     |
| `ties`         | bool [B]       | pairs, if the data has it; likewise `rewards` f32 [B] of ratings and `correct`     |
|                |                | bool [B] of steps                                                                  |
| `ratings`      | f32 [B, K]     | of ratings, 0 where one is missing; `rated` bool [B, K] says where                 |
| `token_rewards` | f32 [B, S, T] | of segments that have rewards; likewise `trained_mask` bool [B, S, T]             |
| `step_labels`  | f32 [B, S, T]  | of steps, at the last token of each step's separator; `step_mask` bool [B, S, T]   |
| `instruction_levels` | i32 [B, L] | of kinds `hierarchy`: whose word each token is (`alignment.segments.LEVELS`) |

Who may attend to whom follows from `segment_ids`: see `alignment.segments`.

Trees: `[prompt block of P, left-padded | completion 0: T | completion 1: T | ...]`, L = P + S * T; target t of side s
is the token of column P + s * T + t. Packed rows: whole examples one after another, each a tree with branch 0, S = 1
and T = L; target t is the token of column t.

Sides of several prompts (`ForgetRetain`, the pairs of `alignment.data.halves`, sides with control tokens of their own):
`[prompt block of P | completion: T]` for every side, one after another, each a tree of its own; L = S * (P + T), and
target t of side s is the token of column s * (P + T) + P + t.

The sides of a row, in order: the completion; or chosen, rejected; or the responses of a list, best first; or chosen,
rejected, gold; or chosen, rejected, samples; or forget, retain and, if there is one, chosen; or confident, unconfident;
or, for unpaired examples, the completion and one of another prompt (`with_mismatched`).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from alignment.data.formats import DataError
from alignment.data.rows import OPTIONAL, Tokenized
from alignment.segments import BRANCHES, LEVELS

Batch = dict[str, np.ndarray]


def with_mismatched(examples: Sequence[Tokenized]) -> list[Tokenized]:
    """Gives each example a second completion that belongs to another prompt, for an estimate of the KL divergence.

    That is the completion of the next example in cyclic order (Ethayarajh et al. 2024, arXiv:2402.01306: completions
    shifted by one), passing over those of the same prompt. If all share one prompt it is that of the next other
    example, and only an example that is alone is paired with itself. Give it the whole global batch, so that the
    outcome does not depend on how many processes share it: `pipeline` calls it so, as `mix`.
    """
    count = len(examples)
    out = []
    for i, example in enumerate(examples):
        if len(example.completions) != 1:
            raise ValueError(
                f"{example.where}: a mismatched side goes with one completion, got {len(example.completions)}"
            )
        others = [examples[(i + k) % count] for k in range(1, count)]
        foreign = (o for o in others if not np.array_equal(o.prompt, example.prompt))
        # An epoch's end inside the batch may bring the same example twice.
        partner = next(foreign, next((o for o in others if o.id != example.id), example))
        out.append(dataclasses.replace(example, completions=(*example.completions, *partner.completions)))
    return out


def collate_trees(
    examples: Sequence[Tokenized], prompt_length: int, completion_length: int, sides: int, *, pad_id: int = 0
) -> Batch:
    """Rows of one prompt and its `sides` completions: the tree layout of the module docstring."""
    rows, columns = len(examples), prompt_length + sides * completion_length
    batch = _empty(rows, columns, sides, completion_length, pad_id)
    for b, example in enumerate(examples):
        n = len(example.prompt)
        if len(example.completions) != sides:
            raise ValueError(f"{example.where}: {len(example.completions)} completions for {sides=}")
        if not 1 <= n <= prompt_length or max(map(len, example.completions)) > completion_length:
            raise ValueError(
                f"{example.where}: does not fit {prompt_length=}, {completion_length=}; tokenize with these"
            )
        block = slice(prompt_length - n, prompt_length)
        batch["tokens"][b, block] = example.prompt
        batch["positions"][b, block] = np.arange(n)
        batch["segment_ids"][b, block] = BRANCHES
        for s, completion in enumerate(example.completions):
            start, m = prompt_length + s * completion_length, len(completion)
            columns_of = np.arange(start, start + m)
            batch["tokens"][b, columns_of] = completion
            batch["positions"][b, columns_of] = n + np.arange(m)
            batch["segment_ids"][b, columns_of] = BRANCHES + s + 1
            batch["targets"][b, s, :m] = completion
            # The first token of every side is predicted by the shared prompt's last token, the others by their left.
            batch["predict_from"][b, s, :m] = np.concatenate([[prompt_length - 1], columns_of[:-1]])
            batch["mask"][b, s, :m] = True
            batch["last_index"][b, s] = start + m - 1
        batch["ids"][b] = example.id
    if examples and examples[0].prompt_levels is not None:
        batch["instruction_levels"] = np.where(batch["segment_ids"] != 0, LEVELS["assistant"], 0).astype(np.int32)
        for b, example in enumerate(examples):
            batch["instruction_levels"][b, prompt_length - len(example.prompt) : prompt_length] = example.prompt_levels
    if examples and examples[0].step_ends is not None:
        batch["step_labels"] = np.zeros((rows, sides, completion_length), np.float32)
        batch["step_mask"] = np.zeros((rows, sides, completion_length), bool)
        for b, example in enumerate(examples):
            batch["step_labels"][b, 0, list(example.step_ends)] = example.step_labels
            batch["step_mask"][b, 0, list(example.step_ends)] = True
    for key, field, dtype in (("token_rewards",) * 2 + (np.float32,), ("trained_mask", "trained", bool)):
        if examples and getattr(examples[0], field) is not None:
            batch[key] = np.zeros((rows, sides, completion_length), dtype)
            for b, example in enumerate(examples):
                values = getattr(example, field)
                batch[key][b, 0, : len(values)] = values
    return batch | _optional(examples)


def collate_several_prompts(
    examples: Sequence[Tokenized], prompt_length: int, completion_length: int, sides: int, *, pad_id: int = 0
) -> Batch:
    """Rows of `sides` prompts, each with its completion: trees side by side, as the module docstring says."""
    width = prompt_length + completion_length
    batch = _empty(len(examples), sides * width, sides, completion_length, pad_id)
    for b, example in enumerate(examples):
        if example.prompts is None or not len(example.prompts) == len(example.completions) == sides:
            raise ValueError(f"{example.where}: not an example of {sides} completions that each have a prompt")
        for s, (prompt, completion) in enumerate(zip(example.prompts, example.completions, strict=True)):
            n, m, start = len(prompt), len(completion), s * width + prompt_length
            if not 1 <= n <= prompt_length or m > completion_length:
                raise ValueError(
                    f"{example.where}: does not fit {prompt_length=}, {completion_length=}; tokenize with these"
                )
            block = slice(start - n, start + m)
            batch["tokens"][b, block] = np.concatenate([prompt, completion])
            batch["positions"][b, block] = np.arange(n + m)
            batch["segment_ids"][b, block] = (s + 1) * BRANCHES
            batch["targets"][b, s, :m] = completion
            batch["predict_from"][b, s, :m] = np.arange(start - 1, start + m - 1)
            batch["mask"][b, s, :m] = True
            batch["last_index"][b, s] = start + m - 1
        batch["ids"][b] = example.id
    return batch | _optional(examples)


def pack(examples: Sequence[Tokenized], length: int) -> list[tuple[Tokenized, ...]]:
    """Distributes single-completion examples over rows of `length` columns: each to the first row with room.

    Deterministic, and done once up front, so that a packed stream resumes as simply as any other. Pass the rows to the
    pipeline in place of examples, with `collate_packed`.
    """
    rows: list[list[Tokenized]] = []
    room = np.zeros(len(examples), np.int64)
    for example in examples:
        if len(example.completions) != 1:
            raise ValueError(
                f"{example.where}: packing takes one completion an example, got {len(example.completions)}"
            )
        per_token = (example.step_ends, example.ratings, example.token_rewards, example.trained)
        if any(values is not None for values in per_token):
            raise ValueError(
                f"{example.where}: packed rows have no place for ratings or steps, nor for segments; "
                "use the tree layout"
            )
        if example.weight is not None:
            raise ValueError(
                f"{example.where}: packed rows have no place for a weight per example; use the tree layout"
            )
        size = len(example.prompt) + len(example.completions[0])
        if size > length:
            raise DataError(f"{example.where}: prompt and completion have {size} tokens, more than a row of {length}")
        fits = np.flatnonzero(room[: len(rows)] >= size)[:1]
        index = int(fits[0]) if fits.size else len(rows)
        if index == len(rows):
            rows.append([])
            room[index] = length
        rows[index].append(example)
        room[index] -= size
    return [tuple(row) for row in rows]


def collate_packed(rows: Sequence[Sequence[Tokenized]], length: int, *, pad_id: int = 0) -> Batch:
    """Packed rows: examples side by side, each its own tree, positions from 0, completions scored, prompts not.

    `ids` is the number of the first example of the row and `last_index` the last real column of the row.
    """
    batch = _empty(len(rows), length, 1, length, pad_id)
    if rows and rows[0][0].prompt_levels is not None:
        batch["instruction_levels"] = np.zeros((len(rows), length), np.int32)
    for b, row in enumerate(rows):
        start = 0
        for tree, example in enumerate(row, 1):
            (completion,) = example.completions
            n, m = len(example.prompt), len(completion)
            if n < 1 or start + n + m > length:
                raise ValueError(f"{example.where}: does not fit a row of {length} columns; pack with this length")
            block, scored = slice(start, start + n + m), slice(start + n, start + n + m)
            batch["tokens"][b, block] = np.concatenate([example.prompt, completion])
            batch["positions"][b, block] = np.arange(n + m)
            batch["segment_ids"][b, block] = tree * BRANCHES
            batch["targets"][b, 0, scored] = completion
            batch["predict_from"][b, 0, scored] = np.arange(start + n - 1, start + n + m - 1)
            batch["mask"][b, 0, scored] = True
            if example.prompt_levels is not None:
                batch["instruction_levels"][b, start : start + n] = example.prompt_levels
                batch["instruction_levels"][b, scored] = LEVELS["assistant"]
            start += n + m
        batch["last_index"][b, 0] = start - 1
        batch["ids"][b] = row[0].id
    return batch


def pad_batch(batch: Batch, size: int) -> Batch:
    """Adds rows up to `size` that count for nothing: valid False, all masked, weight 0, id -1.

    Their tokens repeat the first row: attention over a row of nothing but padding has no finite value.
    """
    rows = len(batch["valid"])
    if rows > size:
        raise ValueError(f"a batch of {rows} rows does not fit {size=}")
    source = np.concatenate([np.arange(rows), np.zeros(size - rows, np.int64)])
    return blank_rows({key: value[source] for key, value in batch.items()}, np.arange(size) >= rows)


def blank_rows(batch: Batch, blank: np.ndarray) -> Batch:
    """The batch with the rows of `blank` (bool [B]) counting for nothing, as `pad_batch` says."""
    batch = {key: value.copy() for key, value in batch.items()}
    for key in ("targets", "predict_from", "mask", "valid", "weights", "rated", "step_mask"):
        if key in batch:
            batch[key][blank] = 0
    batch["ids"][blank] = -1
    return batch


def lengths(batch: Batch, prompt_length: int) -> tuple[np.ndarray, np.ndarray]:
    """(prompt lengths [B], completion lengths [B, S]) of a tree batch, from its segment ids."""
    rows, sides = batch["last_index"].shape
    real = batch["segment_ids"] != 0
    return real[:, :prompt_length].sum(1), real[:, prompt_length:].reshape(rows, sides, -1).sum(2)


def unpack(batch: Batch, prompt_length: int | None = None) -> list[list[tuple[np.ndarray, list[np.ndarray]]]]:
    """The (prompt, completions) token vectors of every tree of every row: undoes either way of collating.

    `prompt_length` is given for tree rows and None for packed rows. Rows that only pad give an empty list.
    """
    out = []
    for b in range(len(batch["tokens"])):
        trees = []
        segments, tokens = batch["segment_ids"][b], batch["tokens"][b]
        if not batch["valid"][b]:
            out.append(trees)
            continue
        if prompt_length is not None:
            sides = range(1, batch["last_index"].shape[1] + 1)
            trees.append((tokens[segments == BRANCHES], [tokens[segments == BRANCHES + s] for s in sides]))
        else:
            for tree in range(1, int(segments.max()) // BRANCHES + 1):
                inside, scored = segments // BRANCHES == tree, batch["mask"][b, 0]
                trees.append((tokens[inside & ~scored], [tokens[inside & scored]]))
        out.append(trees)
    return out


def _empty(rows: int, columns: int, sides: int, slots: int, pad_id: int) -> Batch:
    return {
        "tokens": np.full((rows, columns), pad_id, np.int32),
        "positions": np.zeros((rows, columns), np.int32),
        "segment_ids": np.zeros((rows, columns), np.int32),
        "targets": np.zeros((rows, sides, slots), np.int32),
        "predict_from": np.zeros((rows, sides, slots), np.int32),
        "mask": np.zeros((rows, sides, slots), bool),
        "last_index": np.zeros((rows, sides), np.int32),
        "ids": np.zeros(rows, np.int32),
        "valid": np.ones(rows, bool),
    }


def _optional(examples: Sequence[Tokenized]) -> Batch:
    found = {
        key: np.asarray([getattr(e, field) for e in examples], dtype)
        for key, field, dtype in OPTIONAL
        if examples and getattr(examples[0], field) is not None
    }
    if examples and examples[0].ratings is not None:
        found["rated"] = np.asarray([[r is not None for r in e.ratings] for e in examples], bool)
        found["ratings"] = np.asarray([[r or 0.0 for r in e.ratings] for e in examples], np.float32)
    return found
