"""A named mesh (`data`, `fsdp`, `tensor`) and the one table that says how each parameter lies on it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("data", "fsdp", "tensor")

# By the last key of a parameter's path; stacked layers have a leading axis that is never split. Matrices into the
# hidden width are split over `tensor` on their inner side, matrices out of it on their outer side; the other side over
# `fsdp`. The optimizer's moments have the same last keys, so they follow. What is not listed is replicated.
RULES: Mapping[str, P] = {
    "embedding": P("tensor", "fsdp"),
    "lm_head": P("tensor", "fsdp"),
    "q": P(None, "fsdp", "tensor"),
    "k": P(None, "fsdp", "tensor"),
    "v": P(None, "fsdp", "tensor"),
    "gate": P(None, "fsdp", "tensor"),
    "up": P(None, "fsdp", "tensor"),
    "o": P(None, "tensor", "fsdp"),
    "down": P(None, "tensor", "fsdp"),
}


def join_processes() -> None:
    """Joins the processes of a job, one per host, before jax is first used.

    TPU slices, SLURM and the other schedulers jax knows tell it everything. Elsewhere three environment variables do:
    JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID.
    """
    given = {k: os.environ.get(f"JAX_{k.upper()}") for k in ("num_processes", "process_id")}
    try:
        numbers = {k: int(v) for k, v in given.items() if v}
    except ValueError:
        raise ValueError(f"JAX_NUM_PROCESSES and JAX_PROCESS_ID must be whole numbers, got {given}") from None
    jax.distributed.initialize(**numbers)


def make_mesh(shape: Mapping[str, int], devices: list | None = None) -> Mesh:
    """A mesh from {"data": -1, "fsdp": 1, "tensor": 1}; one -1 takes the devices that are left."""
    devices = list(jax.devices()) if devices is None else devices
    if unknown := set(shape) - set(AXES):
        raise ValueError(f"config.mesh.{sorted(unknown)[0]}: unknown axis; allowed: {', '.join(AXES)}")
    sizes = [int(shape.get(axis, 1)) for axis in AXES]
    if bad := [a for a, s in zip(AXES, sizes, strict=True) if s < 1 and s != -1]:
        raise ValueError(f"config.mesh.{bad[0]}: must be at least 1, or -1 for the devices that are left")
    if sizes.count(-1) > 1:
        raise ValueError("config.mesh: only one axis may be -1")
    known = int(np.prod([s for s in sizes if s != -1]))
    if len(devices) % known or (-1 not in sizes and known > len(devices)):
        raise ValueError(f"config.mesh: {dict(zip(AXES, sizes, strict=True))} does not divide {len(devices)} device(s)")
    sizes = [len(devices) // known if s == -1 else s for s in sizes]
    used = int(np.prod(sizes))
    if used != len(devices):
        raise ValueError(f"config.mesh: {dict(zip(AXES, sizes, strict=True))} uses {used} of {len(devices)} device(s)")
    return Mesh(np.asarray(devices).reshape(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def check_batch(mesh: Mesh, batch_size: int, accumulate: int) -> None:
    """ValueError unless every device gets the same number of rows of every micro-batch."""
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % (shards * accumulate):
        raise ValueError(
            f"config.data.batch_size: {batch_size} is not a multiple of {shards} data shard(s) (mesh data x fsdp) "
            f"x {accumulate} micro-batch(es) (config.training.accumulate)"
        )


def parameter_sharding(mesh: Mesh, tree: Any, rules: Mapping[str, P] = RULES) -> Any:
    """The sharding of every leaf of a tree of parameters, or of a state that holds some."""

    def of(path, leaf):
        keys = [k.key for k in path if isinstance(k, jax.tree_util.DictKey)]
        spec = rules.get(keys[-1], P()) if keys else P()
        if len(spec) > len(leaf.shape):
            return NamedSharding(mesh, P())
        # An axis that does not divide is kept whole: a vocabulary of 50,257 must not need a special mesh.
        fitted = [a if a is None or leaf.shape[i] % mesh.shape[a] == 0 else None for i, a in enumerate(spec)]
        return NamedSharding(mesh, P(*fitted))

    return jax.tree_util.tree_map_with_path(of, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def put_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """This process' rows become its part of the global batch."""
    sharding = batch_sharding(mesh)
    return {k: jax.make_array_from_process_local_data(sharding, np.asarray(v)) for k, v in batch.items()}
