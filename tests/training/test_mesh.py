"""The same step on every mesh, parameters where the table says, and meshes that cannot be."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import tiny_steps
from jax.sharding import PartitionSpec as P

from alignment.models import decoder
from alignment.training import mesh

SPEC = {
    "dpo": {"weight": 1.0, "beta": 0.5},
    "sft": {"weight": 0.7, "side": "chosen", "reduction": "token_mean"},
    "lcpo": {"weight": 0.5, "num_annotators": 3},
}
# Every way to write 8 as a product over the three axes.
MESHES = [
    {"data": 8 // (fsdp * tensor), "fsdp": fsdp, "tensor": tensor}
    for fsdp in (1, 2, 4, 8)
    for tensor in (1, 2, 4, 8)
    if fsdp * tensor <= 8
]


SFT = {"sft": {"weight": 1.0, "reduction": "token_mean"}}


def name_of(shape):
    return "-".join(f"{k}{v}" for k, v in shape.items())


def test_there_are_eight_devices():
    assert jax.device_count() == 8


@functools.cache
def on_one_device(packed):
    if packed:
        return tiny_steps.take(SFT, tiny_steps.packed(), sides=("",))
    return tiny_steps.take(SPEC, tiny_steps.batch(16, padding=3), metrics={"reward_margin": {}})


def assert_same_step(one, other):
    (before, after, logs), (_, other_after, other_logs) = one, other
    for key, value in logs.items():
        np.testing.assert_allclose(other_logs[key], value, rtol=3e-5, atol=1e-6, err_msg=key)
    # Plain gradient descent: the difference is the gradient.
    tiny_steps.assert_equal_up_to(
        tiny_steps.difference(before, other_after), tiny_steps.difference(before, after), 3e-4
    )


@pytest.mark.parametrize(
    ("shape", "accumulate"),
    [(shape, 1) for shape in MESHES] + [({"data": 8}, 2), ({"data": 2, "fsdp": 2, "tensor": 2}, 2)],
    ids=lambda v: name_of(v) if isinstance(v, dict) else f"x{v}",
)
def test_eight_devices_equal_one_on_pairs(shape, accumulate):
    batch = tiny_steps.batch(16, padding=3)
    eight = tiny_steps.take(
        SPEC, batch, metrics={"reward_margin": {}}, shape=shape, devices=8, accumulate=accumulate
    )  # fmt: skip
    assert_same_step(on_one_device(False), eight)
    np.testing.assert_allclose(
        eight[1].method_state["lcpo"].eta, on_one_device(False)[1].method_state["lcpo"].eta, rtol=1e-5
    )


@pytest.mark.parametrize("shape", MESHES, ids=name_of)
def test_eight_devices_equal_one_on_packed_rows(shape):
    eight = tiny_steps.take(SFT, tiny_steps.packed(), sides=("",), shape=shape, devices=8)
    assert_same_step(on_one_device(True), eight)


def test_a_table_of_ones_own_moves_the_parameters_and_not_the_numbers():
    rules = mesh.make_rules({"embedding": ("fsdp+tensor", ""), "q": (), "final_norm": ("fsdp",)})
    shape = {"data": 2, "fsdp": 2, "tensor": 2}
    other = tiny_steps.take(SFT, tiny_steps.packed(), sides=("",), shape=shape, devices=8, rules=rules)
    assert_same_step(on_one_device(True), other)
    params = other[1].params
    assert params["embedding"].sharding.spec == P(("fsdp", "tensor"), None)
    assert params["embedding"].addressable_shards[0].data.shape == (66, 16)
    assert params["final_norm"].sharding.spec == P("fsdp")
    assert params["layers"]["q"].sharding.is_fully_replicated
    assert params["layers"]["k"].sharding.spec == P(None, "fsdp", "tensor")


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"embedding": ("model", "")}, ["config.mesh.rules.embedding", "'model'", "data, fsdp, tensor"]),
        ({"embedding": ("fsdp", "fsdp")}, ["config.mesh.rules.embedding", "'fsdp'", "one dimension"]),
        ({"embedding": "fsdp"}, ["config.mesh.rules.embedding", "tuple"]),
        ({"embedding": ("fsdp",)}, ["config.mesh.rules.embedding", "1 entries", "2 dimensions"]),
        ({"embeding": ("fsdp", "")}, ["config.mesh.rules.embeding", "no such parameter", "embedding"]),
    ],
)
def test_a_rule_that_cannot_be_is_refused(rules, words):
    params = jax.eval_shape(tiny_steps.MODEL.init, jax.random.key(0))
    with pytest.raises(ValueError) as error:
        mesh.make_rules(rules)
        mesh.check_rules(rules, params)
    assert all(w in str(error.value) for w in words), error.value


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_what_is_kept_and_what_is_computed_again_makes_no_difference(remat):
    model = decoder.build(dataclasses.replace(tiny_steps.MODEL.config, remat=remat))
    shape = {"data": 2, "fsdp": 2, "tensor": 2}
    other = tiny_steps.take(SFT, tiny_steps.packed(), sides=("",), shape=shape, devices=8, model=model)
    assert_same_step(on_one_device(True), other)


def test_bfloat16_computes_and_float32_remembers():
    """The master weights and the moments stay float32; a step of 1e-5, which bfloat16 would swallow, moves them."""
    import optax

    model = decoder.build(dataclasses.replace(tiny_steps.MODEL.config, dtype="bfloat16"))
    before, half, logs = tiny_steps.take(
        SFT, tiny_steps.packed(), sides=("",), model=model, optimizer=optax.adam(1e-5)
    )  # fmt: skip
    start, whole, want = on_one_device(True)
    moments = half.opt_state[0]
    for leaf in jax.tree.leaves((half.params, moments.mu, moments.nu)):
        assert leaf.dtype == np.float32
    np.testing.assert_allclose(logs["loss"], want["loss"], rtol=2e-2)
    np.testing.assert_allclose(logs["grad_norm"], want["grad_norm"], rtol=5e-2)
    assert logs["loss"] != want["loss"], "nothing was computed in bfloat16"
    gradient = tiny_steps.difference(start, whole)
    for got, wanted in zip(jax.tree.leaves(moments.mu), jax.tree.leaves(gradient), strict=True):
        got, wanted = np.asarray(got).ravel(), np.asarray(wanted).ravel()
        assert got @ wanted > 0.98 * np.linalg.norm(got) * np.linalg.norm(wanted)
    change = tiny_steps.difference(before, half)["layers"]["q"]
    assert 0 < np.abs(change).max() < 2e-5


def test_kernels_run_under_pmap_with_the_mean_over_all_devices():
    """Eight devices with two pairs each give the loss and the gradient of the sixteen on one."""
    from alignment import losses

    rng = np.random.default_rng(0)
    arrays = [rng.normal(-20, 3, (8, 2)).astype(np.float32) for _ in range(4)]

    def mean(*logps):
        return losses.dpo(*logps, beta=0.3).mean()

    def on_each(*logps):
        value, gradient = jax.value_and_grad(mean)(*logps)
        return jax.lax.pmean(value, "devices"), gradient / 8

    values, gradients = jax.pmap(on_each, axis_name="devices")(*arrays)
    value, gradient = jax.value_and_grad(mean)(*(a.reshape(16) for a in arrays))
    np.testing.assert_allclose(values, np.full(8, value), rtol=1e-6)
    np.testing.assert_allclose(gradients.reshape(16), gradient, rtol=1e-5)


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
