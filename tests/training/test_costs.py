"""The cost model against what jax and XLA say of the real programs: parameters, state, activations, work, traffic."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_steps

import alignment.losses
from alignment import objective
from alignment.models import decoder
from alignment.training import costs, mesh, state, step

# Not scanned: a loop's body stands once in the compiled program, however often it runs.
CONFIG = decoder.DecoderConfig(
    vocab_size=264, hidden_size=64, intermediate_size=128, num_layers=2, num_heads=4, num_kv_heads=4, scan_layers=False
)
LLAMA = {"num_kv_heads": 8, "vocab_size": 128256}
LLAMA_8B = {"hidden_size": 4096, "intermediate_size": 14336, "num_layers": 32, "num_heads": 32}
LLAMA_70B = {"hidden_size": 8192, "intermediate_size": 28672, "num_layers": 80, "num_heads": 64}
MESHES = {
    "data": {"data": 8, "fsdp": 1, "tensor": 1},
    "fsdp": {"data": 1, "fsdp": 8, "tensor": 1},
    "tensor": {"data": 1, "fsdp": 1, "tensor": 4},
}


@functools.cache
def compiled(name):
    """The compiled DPO step on one of the meshes, and what the model of costs says of it."""
    shape, sides = MESHES[name], ("chosen", "rejected")
    device_mesh = mesh.make_mesh(shape, jax.devices()[: int(np.prod(list(shape.values())))])
    model = decoder.build(CONFIG, mesh.batch_sharding(device_mesh))
    terms = objective.bind({"dpo": {}}, alignment.losses, "objective", sides, ())
    losses = step.make_losses(model, {"reference": model}, terms, (), sides)
    tx = optax.adam(1e-3)
    whole = jax.eval_shape(lambda key: state.create(model.init(key), tx, {}, key), jax.random.key(0))
    placed = mesh.parameter_sharding(device_mesh, whole)
    batch = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in tiny_steps.batch(16).items()}
    function = jax.jit(
        step.make_step(losses, terms, (), sides, tx),
        in_shardings=(placed, {"reference": placed.params}, mesh.batch_sharding(device_mesh)),
        out_shardings=(placed, mesh.replicated(device_mesh)),
        donate_argnums=0,
    )
    program = function.lower(whole, {"reference": whole.params}, batch).compile()
    work = costs.Work(16, batch["tokens"].shape[1], int(np.prod(batch["targets"].shape[1:])), frozen=1)
    batch_bytes = sum(int(np.prod(v.shape)) * v.dtype.itemsize for v in batch.values())
    return program, costs.costs(CONFIG, work, shape), batch_bytes / shape["data"] / shape["fsdp"]


def collectives(program):
    """Bytes that each device sends, by kind of collective, as rings would send them."""
    sizes, sent = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1}, {}
    for line in program.as_text().splitlines():
        found = re.search(r"^\s*(?:ROOT )?%\S+ = (.*?) (all-gather|all-reduce|reduce-scatter)(?:-start)?\(", line)
        if found:
            arrays = re.findall(r"(\w+)\[([\d,]*)\]", found[1])
            count = sum(sizes[t] * int(np.prod([int(n) for n in dims.split(",") if n])) for t, dims in arrays)
            sent[found[2]] = sent.get(found[2], 0) + count * (2 if found[2] == "all-reduce" else 1)
    return sent


@pytest.mark.parametrize(("sizes", "count"), [(LLAMA_8B, 8_030_261_248), (LLAMA_70B, 70_553_706_496)])
def test_parameters_are_those_of_the_real_models(sizes, count):
    config = decoder.DecoderConfig(**LLAMA, **sizes)
    found = costs.costs(config, costs.Work(64, 1024, 512), {"data": 1, "fsdp": 64, "tensor": 1})
    assert found.parameters == count
    assert costs.matrix_parameters(config) < count
    # Split 64 ways but for the norms.
    np.testing.assert_allclose(found.state_bytes, 12 * count / 64, rtol=5e-3)


@pytest.mark.parametrize("name", MESHES)
def test_state_and_frozen_model_fill_what_the_program_takes_as_arguments(name):
    program, found, batch_bytes = compiled(name)
    predicted = found.state_bytes + found.memory["frozen models"] + batch_bytes
    # Beside them are the counters and the random key; columns that the objective does not read are left out.
    assert abs(program.memory_analysis().argument_size_in_bytes - predicted) < 1024


@pytest.mark.parametrize("name", ["data", "fsdp"])
def test_work_is_what_xla_counts(name):
    program, found, _ = compiled(name)
    counted = program.cost_analysis()["flops"]  # with the additions and exponentials, which the model leaves out
    assert 0.85 * counted < found.flops <= counted


def test_gradients_travel_once_over_the_data_axis():
    program, found, _ = compiled("data")
    sent = collectives(program)
    assert set(sent) == {"all-reduce"}
    np.testing.assert_allclose(sent["all-reduce"] * 7 / 8, found.traffic["data"], rtol=1e-3)
    assert found.traffic["fsdp"] == found.traffic["tensor"] == 0


def test_over_the_fsdp_axis_weights_travel_and_not_activations():
    program, found, _ = compiled("fsdp")
    sent = collectives(program)
    # XLA keeps here what it gathered forward, and reduces gradients whole: one gathering less, one scattering more.
    assert 0.7 < sum(sent.values()) * 7 / 8 / found.traffic["fsdp"] < 1.4
    assert sent["all-gather"] <= 3 * 4 * found.parameters
    assert sent["all-reduce"] <= 2.2 * 4 * found.parameters


def test_over_the_tensor_axis_activations_travel():
    program, found, _ = compiled("tensor")
    assert 0.7 < sum(collectives(program).values()) * 3 / 4 / found.traffic["tensor"] < 1.4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_activations_are_what_differentiation_keeps(remat, dtype):
    """What a layer more adds to the residuals of the model, less its weights."""
    columns, rows = 256, 2
    config = dataclasses.replace(CONFIG, num_kv_heads=2, scan_layers=True, remat=remat, dtype=dtype)

    def kept(layers):
        at = dataclasses.replace(config, num_layers=layers)
        params = jax.eval_shape(lambda: decoder.init(at, jax.random.key(0)))
        tokens = jax.ShapeDtypeStruct((rows, columns), jnp.int32)

        def residuals(params, tokens):
            return jax.vjp(lambda p: decoder.hidden(at, p, tokens, tokens, jnp.ones_like(tokens))[0], params)[1]

        leaves = jax.tree.leaves(jax.eval_shape(residuals, params, tokens))
        return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves if leaf.size)

    # Without remat the weights are kept as they were multiplied with, else as they were given.
    matrices = costs.matrix_parameters(dataclasses.replace(config, num_layers=1))
    weights = matrices * (2 if dtype == "bfloat16" and remat == "none" else 4) + 2 * 4 * config.hidden_size
    per_layer = (kept(4) - kept(2)) / 2 - weights
    np.testing.assert_allclose(per_layer / rows / columns, costs.kept_per_column(config, columns), rtol=1e-3)


def test_chunks_of_the_vocabulary_bound_the_logits():
    work = costs.Work(8, 384, 256)
    shape = {"data": 1, "fsdp": 1, "tensor": 1}
    wide = dataclasses.replace(CONFIG, vocab_size=131072)
    found = costs.costs(wide, work, shape)
    assert found.memory["logits"] + found.logits_saved == 2 * 4 * 8 * 256 * 131072
    assert found.memory["logits"] == 2 * 4 * 8 * 256 * 4096
    small = costs.costs(wide, work._replace(chunk=512), shape)
    assert small.memory["logits"] == found.memory["logits"] / 8


def test_the_cache_is_that_of_the_sampler():
    cache = jax.eval_shape(lambda: decoder.init_cache(CONFIG, 6, 40))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache.layers))
    assert costs.cache_bytes(CONFIG, 6, 40) == size


def test_time_is_the_largest_of_three_and_the_network_between_nodes_is_slower():
    hardware = costs.Hardware("toy", 16, 1e12, 1e10, 1e11, 8, 1e10, 1e9)
    found = costs.costs(CONFIG, costs.Work(16, 128, 64), {"data": 2, "fsdp": 8, "tensor": 1})
    seconds = costs.step_seconds(found, {"data": 2, "fsdp": 8, "tensor": 1}, hardware)
    assert seconds["compute"] == found.flops / 1e12
    assert seconds["memory"] == found.memory_traffic / 1e11
    np.testing.assert_allclose(seconds["network"], found.traffic["fsdp"] / 1e10 + found.traffic["data"] / 1e9)


def test_rows_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="12 rows are not a multiple of 8 data shard"):
        costs.costs(CONFIG, costs.Work(12, 128, 64), {"data": 4, "fsdp": 2, "tensor": 1})
