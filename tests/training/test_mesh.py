"""The same step on every mesh, parameters where the table says, and meshes that cannot be."""

import jax
import numpy as np
import pytest
import tiny_steps
from jax.sharding import PartitionSpec as P

from alignment.training import mesh

SPEC = {
    "dpo": {"weight": 1.0, "beta": 0.5},
    "sft": {"weight": 0.7, "side": "chosen", "reduction": "token_mean"},
    "lcpo": {"weight": 0.5, "num_annotators": 3},
}
MESHES = [
    {"data": 8},
    {"data": 2, "fsdp": 2, "tensor": 2},
    {"data": 1, "fsdp": 8},
    {"data": 1, "tensor": 2, "fsdp": 4},
]


def test_there_are_eight_devices():
    assert jax.device_count() == 8


@pytest.mark.parametrize("shape", MESHES, ids=lambda s: "-".join(f"{k}{v}" for k, v in s.items()))
@pytest.mark.parametrize("accumulate", [1, 2])
def test_eight_devices_equal_one(shape, accumulate):
    batch = tiny_steps.batch(16, padding=3)
    metrics = {"reward_margin": {}}
    before, one, logs = tiny_steps.take(SPEC, batch, metrics=metrics)
    _, eight, eight_logs = tiny_steps.take(SPEC, batch, metrics=metrics, shape=shape, devices=8, accumulate=accumulate)
    for key, value in logs.items():
        np.testing.assert_allclose(eight_logs[key], value, rtol=3e-5, atol=1e-6, err_msg=key)
    tiny_steps.assert_equal_up_to(tiny_steps.difference(before, eight), tiny_steps.difference(before, one), 3e-4)
    np.testing.assert_allclose(eight.method_state["lcpo"].eta, one.method_state["lcpo"].eta, rtol=1e-5)


def test_every_device_holds_its_share_of_the_rows():
    """Replicated rows would give the same numbers, only eight times as slowly."""
    made = mesh.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    tokens = mesh.put_batch(made, tiny_steps.batch(16))["tokens"]
    assert {s.data.shape[0] for s in tokens.addressable_shards} == {4}
    assert len({s.index[0].start for s in tokens.addressable_shards}) == 4


def test_parameters_and_moments_lie_as_the_table_says():
    import optax

    made = mesh.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    params = jax.eval_shape(tiny_steps.MODEL.init, jax.random.key(0))
    shardings = mesh.parameter_sharding(made, params)
    assert shardings["layers"]["q"].spec == P(None, "fsdp", "tensor")
    assert shardings["layers"]["o"].spec == P(None, "tensor", "fsdp")
    assert shardings["embedding"].spec == P("tensor", "fsdp")
    assert shardings["final_norm"].spec == P()
    moments = mesh.parameter_sharding(made, jax.eval_shape(optax.adam(1e-3).init, params))[0]
    assert moments.mu["layers"]["q"].spec == moments.nu["layers"]["q"].spec == P(None, "fsdp", "tensor")


def test_an_axis_that_does_not_divide_is_kept_whole():
    made = mesh.make_mesh({"data": 1, "fsdp": 4, "tensor": 2})
    leaf = jax.ShapeDtypeStruct((259, 16), np.float32)
    assert mesh.parameter_sharding(made, {"embedding": leaf})["embedding"].spec == P(None, "fsdp")


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"data": 3}, ["config.mesh", "3", "8 device"]),
        ({"data": 16}, ["config.mesh", "8 device"]),
        ({"data": 2, "fsdp": 2, "tensor": 1}, ["config.mesh", "4 of 8"]),
        ({"data": -1, "fsdp": -1}, ["config.mesh", "only one"]),
        ({"data": -1, "fsdp": 0}, ["config.mesh.fsdp", "at least 1"]),
        ({"data": -1, "pipeline": 2}, ["config.mesh.pipeline", "data, fsdp, tensor"]),
    ],
)
def test_a_mesh_that_cannot_be_is_refused(shape, words):
    with pytest.raises(ValueError) as error:
        mesh.make_mesh(shape)
    assert all(w in str(error.value) for w in words), error.value


def test_minus_one_takes_the_devices_that_are_left():
    assert dict(mesh.make_mesh({"data": -1, "tensor": 2}).shape) == {"data": 4, "fsdp": 1, "tensor": 2}


@pytest.mark.parametrize(("batch_size", "accumulate"), [(12, 1), (8, 2), (4, 1)])
def test_a_batch_that_does_not_divide_is_refused(batch_size, accumulate):
    made = mesh.make_mesh({"data": 2, "fsdp": 4})
    with pytest.raises(ValueError, match=f"config.data.batch_size: {batch_size} is not a multiple of 8"):
        mesh.check_batch(made, batch_size, accumulate)
    mesh.check_batch(made, 16, 2)
