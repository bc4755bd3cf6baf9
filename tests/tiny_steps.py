"""One training step on a tiny decoder and a real batch of pairs; shared by the tests of the step and of the mesh."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import alignment.losses
import alignment.metrics
from alignment import objective
from alignment.data import collating, corpus, formats, rows, tokenizers
from alignment.models import decoder
from alignment.training import mesh, side_gradients, state, step

SIDES = ("chosen", "rejected")
COLUMNS = ("annotator_ids", "margins")
MODEL = decoder.build(
    decoder.DecoderConfig(
        vocab_size=264, hidden_size=16, intermediate_size=32, num_layers=2, num_heads=2, num_kv_heads=2
    )
)


@functools.cache
def _batch(size: int, padding: int) -> dict[str, np.ndarray]:
    examples = formats.from_records(corpus.generate("pairs", size - padding, 3), "pairs")
    tokenised, _ = rows.tokenize(examples, tokenizers.ByteTokenizer(), prompt_length=32, completion_length=64)
    batch = collating.collate_trees(tokenised, 32, 64, 2)
    batch["annotator_ids"] = (np.arange(size - padding) % 3).astype(np.int32)
    return collating.pad_batch(batch, size)


def batch(size=8, padding=0):
    return dict(_batch(size, padding))


@functools.cache
def _packed(size: int) -> dict[str, np.ndarray]:
    examples = formats.from_records(corpus.generate("completion", 4 * size, 3), "completion")
    tokenised, _ = rows.tokenize(examples, tokenizers.ByteTokenizer(), prompt_length=32, completion_length=64)
    return collating.collate_packed(collating.pack(tokenised, 160)[:size], 160)


def packed(size=8):
    """Rows of several demonstrations each, for sides=("",)."""
    return dict(_packed(size))


def params_and_reference(scale=0.3):
    """Parameters and a reference that differs from them: at policy == reference many gradients are special."""
    params = MODEL.init(jax.random.key(0))
    noise = MODEL.init(jax.random.key(1))
    return params, jax.tree.map(lambda a, b: a + scale * (b - a), params, noise)


def take(spec, data, *, accumulate=1, metrics=None, optimizer=None, shape=None, devices=1, params=None, steps=1,
         total=None, pairwise=False, sides=SIDES, model=MODEL, rules=mesh.RULES):  # fmt: skip
    """`steps` steps of the objective `spec` on the same batch; returns (state before, state after, logs).

    `total` is how many the training has, for terms that are active in a part of it; `pairwise` takes the pairwise
    normalised gradient in place of the ordinary one.
    """
    terms = objective.bind(spec, alignment.losses, "objective", sides, COLUMNS, steps=total)
    shown = objective.bind(metrics or {}, alignment.metrics, "metrics", sides, COLUMNS)
    # Plain gradient descent: the change of a parameter is its gradient, which Adam would rescale.
    optimizer = optimizer or optax.sgd(1.0)
    default, reference = params_and_reference()
    before = state.create(
        default if params is None else params, optimizer, objective.initial_states(terms), jax.random.key(5)
    )
    device_mesh = mesh.make_mesh(shape or {"data": -1}, jax.devices()[:devices])
    model = decoder.build(model.config, mesh.batch_sharding(device_mesh))
    losses = step.make_losses(model, {"reference": model}, terms, shown, sides)
    function = step.make_step(losses, terms, shown, sides, optimizer, accumulate=accumulate)
    if pairwise:
        gradient = side_gradients.make_gradient(model, {"reference": model}, terms, shown, sides)
        function = step.make_update(gradient, terms, shown, sides, optimizer, accumulate=accumulate)
    shardings = mesh.parameter_sharding(device_mesh, jax.eval_shape(lambda: before), rules)
    reference_sharding = mesh.parameter_sharding(device_mesh, reference, rules)
    after = jax.device_put(before, shardings)
    reference = {"reference": jax.device_put(reference, reference_sharding)}
    function = jax.jit(
        function,
        in_shardings=(shardings, {"reference": reference_sharding}, mesh.batch_sharding(device_mesh)),
        out_shardings=(shardings, mesh.replicated(device_mesh)),
    )
    for _ in range(steps):
        after, logs = function(after, reference, mesh.put_batch(device_mesh, data))
    return before, after, {k: float(v) for k, v in logs.items()}


def difference(before, after):
    return jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), before.params, after.params)


def assert_equal_up_to(got, want, tolerance):
    """Leaf by leaf within `tolerance` of the largest entry of the wanted leaf."""
    for (path, g), (_, w) in zip(
        jax.tree_util.tree_leaves_with_path(got), jax.tree_util.tree_leaves_with_path(want), strict=True
    ):
        g, w = np.asarray(g, np.float64), np.asarray(w, np.float64)
        scale = np.abs(w).max()
        assert np.abs(g - w).max() <= tolerance * scale, f"{jax.tree_util.keystr(path)}: {np.abs(g - w).max() / scale}"


def poisoned(params):
    return params | {"embedding": jnp.full_like(params["embedding"], jnp.nan)}
