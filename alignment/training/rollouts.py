"""From sampled completions to batches: what an engine has to give, and rows in which a group shares its prompt.

An engine is a function `(params, prompts, prompt_mask, rng) -> Rollout`: the sampler of this package, or a server
behind a function of that form. It gives, for each prompt, `group_size` completions side by side, with the
log-probability that each token had when it was drawn (temperature and truncation included), at most `completion_length`
tokens, the end token last if there is one. Its log-probs may differ from the trainer's, by kernels, precision or stale
weights; then the trainer computes its own, and `truncated_importance_weights` corrects the gradient for the difference.
In a run of several processes each of them calls the engine with all prompts, and all must be given the same.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignment.decoding import sampler
from alignment.segments import BRANCHES
from alignment.training import mesh


class Rollout(NamedTuple):
    """Completions of B prompts, G of each; row i * G + j is the j-th of prompt i. Arrays on the host."""

    tokens: np.ndarray  # i32 [B * G, T]
    mask: np.ndarray  # bool [B * G, T], True up to and including the end token
    logps: np.ndarray  # f32 [B * G, T], of the tokens as drawn
    columns: Mapping[str, np.ndarray] = types.MappingProxyType({})  # more to say of each completion, [B * G, ...]


Engine = Callable[[Any, np.ndarray, np.ndarray, jax.Array], Rollout]


class EngineWithMemory(NamedTuple):
    """An engine that keeps something between iterations: an older policy, a guide, a count. It is saved with the run.

    `init(params)` gives the memory at the start, a pytree of arrays of its own; `draw(memory, params, prompts,
    prompt_mask, rng)` a rollout; `update(memory, params, rows)` the memory after an iteration, given the new parameters
    and the rollout with what was estimated of it, as rows on the host.
    `columns` are the columns that each rollout has besides, for kernels to name; `support` (`token_sets`) is none of
    them: with it the policy's statistics are those of its distribution restricted to what could be drawn.
    `models` names the frozen models of the run that it looks into ("teacher").
    """

    init: Callable[[Any], Any]
    draw: Callable[..., Rollout]
    update: Callable[[Any, Any, Mapping[str, np.ndarray]], Any]
    columns: tuple[str, ...] = ()
    models: frozenset[str] = frozenset()


def without_memory(engine: Engine) -> EngineWithMemory:
    return EngineWithMemory(lambda params: (), lambda memory, *given: engine(*given), lambda memory, *_: memory)


def sampling_engine(model, *, group_size: int, completion_length: int, eos_id, pad_id: int, **settings: Any) -> Engine:
    """The engine that samples with the model in training, on its own devices; `settings` are those of `sample`."""
    draw = functools.partial(
        sampler.sample,
        model,
        group_size=group_size,
        max_new_tokens=completion_length,
        eos_id=eos_id,
        pad_id=pad_id,
        **settings,
    )

    def engine(params, prompts, prompt_mask, rng) -> Rollout:
        drawn = draw(params, prompts, prompt_mask, rng)
        return Rollout(*(mesh.to_host(x) for x in (drawn.tokens, drawn.mask, drawn.logps)))

    return engine


def check(rollout: Rollout, prompts: int, group_size: int, completion_length: int) -> Rollout:
    """The same rollout, if an engine kept what it owes; ValueError that says what it did not."""
    shape = (prompts * group_size, completion_length)
    for name, array in zip(("tokens", "mask", "logps"), rollout, strict=False):
        if array.shape != shape:
            raise ValueError(f"the rollout engine gave {name} of shape {array.shape} in place of {shape}")
    for name, array in rollout.columns.items():
        if len(array) != shape[0]:
            raise ValueError(f"the rollout engine gave a column {name} of {len(array)} rows in place of {shape[0]}")
    mask = np.asarray(rollout.mask, bool)
    if not mask[:, 0].all() or (np.diff(mask.astype(np.int8), axis=1) > 0).any():
        raise ValueError("the rollout engine gave an empty completion, or one with a gap in its mask")
    if not np.isfinite(rollout.logps[mask]).all():
        raise ValueError("the rollout engine gave a log-probability that is not finite, for a token that it drew")
    return rollout


def pad_prompts(prompts: Sequence[Sequence[int]], length: int, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and mask [B, length], padded on the left; ValueError for a prompt that is too long."""
    tokens = np.full((len(prompts), length), pad_id, np.int32)
    mask = np.zeros(tokens.shape, bool)
    for row, ids in enumerate(prompts):
        if not 1 <= len(ids) <= length:
            raise ValueError(f"prompt {row} has {len(ids)} tokens; allowed are 1 to {length}")
        tokens[row, length - len(ids) :], mask[row, length - len(ids) :] = ids, True
    return tokens, mask


def with_demonstrations(
    rollout: Rollout, demonstrations: Sequence[Sequence[int] | None], group_size: int, count: int
) -> tuple[Rollout, np.ndarray]:
    """The last `count` completions of each group replaced by demonstrations, and where these stand.

    `demonstrations` holds `count` per prompt, as token ids with the end token; None leaves the sample in its place. Who
    wrote them is not asked: their behaviour log-probs are 0, a point mass. Returns the rollout and the demonstration
    mask, bool [B * G, T].
    """
    if not 1 <= count < group_size:
        raise ValueError(
            f"config.rollout.demonstrations: {count} of a group of {group_size} leaves nothing that was sampled"
        )
    tokens, mask, logps = (np.array(x) for x in rollout[:3])
    columns = {k: np.array(v) for k, v in rollout.columns.items()}
    shown = np.zeros(mask.shape, bool)
    for number, ids in enumerate(demonstrations):
        if ids is None:
            continue
        prompt, place = divmod(number, count)
        if not 1 <= len(ids) <= mask.shape[1]:
            raise ValueError(
                f"the demonstration of prompt {prompt} has {len(ids)} tokens; allowed are 1 to {mask.shape[1]}"
            )
        row = (prompt + 1) * group_size - count + place
        tokens[row], mask[row], logps[row] = 0, False, 0.0
        if "support" in columns:  # a demonstration may hold any token
            columns["support"][row] = np.iinfo(np.uint32).max
        tokens[row, : len(ids)], mask[row, : len(ids)], shown[row, : len(ids)] = ids, True, True
    return Rollout(tokens, mask, logps, columns), shown


def to_rows(
    prompts: np.ndarray, prompt_mask: np.ndarray, rollout: Rollout, group_size: int, prompt_ids: np.ndarray
) -> dict[str, np.ndarray]:
    """One row per prompt: the prompt once, then its group, each completion seeing the prompt and itself only.

    The keys of `alignment.data.rows`, S = group_size, and per completion [B, S]: `valid`, `group_ids` (the number of
    the prompt's first row: rows of one prompt are one group) and `prompt_ids`; `behaviour_token_logps` [B, S, T], and
    the rollout's columns, [B, S, ...].
    """
    rows, width = prompts.shape
    tokens, mask, logps = (np.asarray(x).reshape(rows, group_size, -1) for x in rollout[:3])
    time = tokens.shape[-1]
    lengths = prompt_mask.sum(axis=1)
    slots = np.arange(time)
    starts = width + time * np.arange(group_size)
    columns = starts[None, :, None] + slots
    before = np.where(slots == 0, width - 1, columns - 1)  # the prompt's last token predicts every first one
    branches = BRANCHES + 1 + np.arange(group_size)
    positions = lengths[:, None, None] + slots
    completion_length = mask.sum(axis=-1)
    _, first, which = np.unique(prompt_ids, return_index=True, return_inverse=True)
    return {
        "tokens": np.concatenate([prompts, tokens.reshape(rows, -1)], axis=1).astype(np.int32),
        "positions": np.concatenate(
            [np.maximum(np.cumsum(prompt_mask, axis=1) - 1, 0), np.where(mask, positions, 0).reshape(rows, -1)], axis=1
        ).astype(np.int32),
        "segment_ids": np.concatenate(
            [prompt_mask * BRANCHES, np.where(mask, branches[None, :, None], 0).reshape(rows, -1)], axis=1
        ).astype(np.int32),
        "targets": np.where(mask, tokens, 0).astype(np.int32),
        "predict_from": np.where(mask, before, 0).astype(np.int32),
        "mask": mask.astype(bool),
        "last_index": (starts[None] + completion_length - 1).astype(np.int32),
        "ids": np.asarray(prompt_ids, np.int32),
        "valid": np.ones((rows, group_size), bool),
        "group_ids": np.repeat(first[which].astype(np.int32)[:, None], group_size, axis=1),
        "prompt_ids": np.repeat(np.asarray(prompt_ids, np.int32)[:, None], group_size, axis=1),
        "behaviour_token_logps": np.where(mask, logps, 0.0).astype(np.float32),
        **{k: np.asarray(v).reshape(rows, group_size, *np.shape(v)[1:]) for k, v in rollout.columns.items()},
    }


def join(batches: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Several batches of rows as one; the groups of different batches stay apart."""
    out = {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}
    # Numbered by its first row, as in `to_rows`.
    which = [(number, group) for number, b in enumerate(batches) for group in b["group_ids"][:, 0]]
    _, first, inverse = np.unique(np.array(which), axis=0, return_index=True, return_inverse=True)
    out["group_ids"] = np.broadcast_to(first[inverse.reshape(-1), None], out["group_ids"].shape).astype(np.int32)
    return out


def take(batch: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {key: value[rows] for key, value in batch.items()}


def cut(batch: Mapping[str, np.ndarray], eos_id: int) -> np.ndarray:
    """Bool [B, S]: completions of full length that do not end with the end token, so that the budget cut them."""
    return batch["mask"].all(axis=-1) & (batch["targets"][..., -1] != eos_id)


def share_of_groups(marked: np.ndarray, batch: Mapping[str, np.ndarray]) -> float:
    """The share of the groups whose valid completions are all `marked` (bool [B, S]); NaN if none is valid."""
    valid = batch["valid"]
    groups = np.unique(batch["group_ids"][valid])
    others = np.unique(batch["group_ids"][valid & ~marked])
    return 1 - len(others) / len(groups) if len(groups) else float("nan")


def alike(batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """Completions whose reward is that of all valid completions of their group, bool [B, S]."""
    ids, valid, rewards = (batch[key].reshape(-1) for key in ("group_ids", "valid", "rewards"))
    differ = (ids[:, None] == ids) & valid & (rewards[:, None] != rewards)
    return ~differ.any(axis=1).reshape(batch["valid"].shape)


def silent(batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """Completions that teach nothing, bool [B, S]: their advantage is 0 at every token.

    Without advantages those of groups that are `alike`: an objective that compares completions finds no difference.
    """
    if "token_advantages" not in batch:
        return alike(batch)
    return ~np.any(np.where(batch["mask"], batch["token_advantages"], 0) != 0, axis=-1)


def one_per_row(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same completions with a row for each, [B * S, 1, ...], so that they can be drawn one by one."""
    rows, group_size, time = batch["mask"].shape
    width = batch["tokens"].shape[1] - group_size * time
    out = {}
    for key, value in batch.items():
        if key in ("tokens", "positions", "segment_ids"):
            prompt = np.repeat(value[:, :width], group_size, axis=0)
            out[key] = np.concatenate([prompt, value[:, width:].reshape(rows * group_size, time)], axis=1)
        elif key == "ids":
            out[key] = np.repeat(value, group_size)
        else:
            out[key] = value.reshape(rows * group_size, 1, *value.shape[2:])
    moved = np.tile(time * np.arange(group_size, dtype=np.int32), rows)[:, None]
    out["last_index"] = out["last_index"] - moved
    # The first token is predicted by the prompt's last, which stays where it was.
    later = out["predict_from"] >= width
    out["predict_from"] = np.where(later, out["predict_from"] - moved[..., None], out["predict_from"])
    return out


def resampled(batch: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """As many completions as there were, drawn with replacement by `sampling_weights` [B, S], each in a row of its own.

    What a column says of a completion (its advantage, its group) goes with it unchanged. ValueError if no completion
    has a weight above 0.
    """
    weights = np.where(batch["valid"], batch["sampling_weights"], 0.0).astype(np.float64).reshape(-1)
    if not weights.sum() > 0:
        raise ValueError("sampling_weights: no completion of the rollout has a weight above 0")
    return take(one_per_row(batch), rng.choice(weights.size, weights.size, p=weights / weights.sum()))


def truncated_importance_weights(trainer_logps: jax.Array, engine_logps: jax.Array, mask: jax.Array, cap: float):
    """min(pi_trainer / pi_engine, cap) per token, held fixed: an upper bound on what a mismatch of engines may amplify.

    A surrogate is linear in its advantage, so multiplying the advantage is multiplying the token's gradient.
    Shapes: all `[..., T]`; result float32. Yao et al., 2025, "Your efficient RL framework secretly brings you
    off-policy RL training" (a technical note).
    """
    if not cap > 0:
        raise ValueError(f"config.rollout.importance_cap must lie in (0, inf), got {cap}")
    difference = jnp.where(mask, trainer_logps - engine_logps, 0.0)
    return jax.lax.stop_gradient(jnp.minimum(jnp.exp(jnp.minimum(difference, 30.0)), cap))
