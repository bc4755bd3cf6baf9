"""A named mesh (`data`, `fsdp`, `tensor`) and the one table that says how each parameter lies on it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
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


def make_rules(changes: Mapping[str, Any]) -> dict[str, P]:
    """`RULES` with a config's changes (`config.mesh.rules`): {"embedding": ("", "fsdp"), "reward_head": ("fsdp", "")}.

    A rule says for every dimension of the parameter over which axis it is split: "" for none, "fsdp+tensor" for two;
    () replicates it. A stacked parameter of the layers has the layers as its first dimension. ValueError for what is
    no axis, for one axis used twice, and (in `check_rules`) for a parameter that the model does not have.
    """
    rules = dict(RULES)
    for name, dimensions in changes.items():
        here = f"config.mesh.rules.{name}"
        if isinstance(dimensions, str) or not all(isinstance(d, str) for d in dimensions):
            raise ValueError(f"{here}: must be a tuple of axis names, one per dimension, got {dimensions!r}")
        split = [tuple(axis for axis in d.split("+") if axis) for d in dimensions]
        used = [axis for axes in split for axis in axes]
        if unknown := [axis for axis in used if axis not in AXES]:
            raise ValueError(f"{here}: unknown axis {unknown[0]!r}; allowed: {', '.join(AXES)}, or '' for none")
        if repeated := [axis for axis in AXES if used.count(axis) > 1]:
            raise ValueError(f"{here}: the axis {repeated[0]!r} can split one dimension only, got {dimensions!r}")
        rules[name] = P(*(axes[0] if len(axes) == 1 else axes or None for axes in split))
    return rules


def check_rules(changes: Mapping[str, Any], params: Any) -> None:
    """ValueError for a rule of a config that no parameter follows, or that has not one entry per dimension."""
    dimensions = {path[-1].key: len(x.shape) for path, x in jax.tree_util.tree_leaves_with_path(params)}
    for name, rule in changes.items():
        if name not in dimensions:
            near = difflib.get_close_matches(name, dimensions, n=3, cutoff=0.5) or sorted(dimensions)
            raise ValueError(f"config.mesh.rules.{name}: the model has no such parameter; nearest: {', '.join(near)}")
        if len(rule) not in (0, dimensions[name]):
            raise ValueError(
                f"config.mesh.rules.{name}: has {len(rule)} entries for a parameter of {dimensions[name]} dimensions"
            )


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
    """A mesh from {"data": -1, "fsdp": 1, "tensor": 1}; one -1 takes the devices that are left.

    `shape` may be the whole section of a config: its `rules` are for `make_rules`.
    """
    devices = list(jax.devices()) if devices is None else devices
    if unknown := set(shape) - {*AXES, "rules"}:
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


def _ways(mesh: Mesh, axes: str | tuple[str, ...] | None) -> int:
    names = (axes,) if isinstance(axes, str) else axes or ()
    return int(np.prod([mesh.shape[name] for name in names]))


def parameter_sharding(mesh: Mesh, tree: Any, rules: Mapping[str, P] = RULES) -> Any:
    """The sharding of every leaf of a tree of parameters, or of a state that holds some.

    `mesh` may also be a `jax.sharding.AbstractMesh`, whose devices need not be there.
    """

    def of(path, leaf):
        keys = [k.key for k in path if isinstance(k, jax.tree_util.DictKey)]
        spec = rules.get(keys[-1], P()) if keys else P()
        if len(spec) > len(leaf.shape):
            return NamedSharding(mesh, P())
        # An axis that does not divide is kept whole: a vocabulary of 50,257 must not need a special mesh.
        fitted = [a if leaf.shape[i] % _ways(mesh, a) == 0 else None for i, a in enumerate(spec)]
        return NamedSharding(mesh, P(*fitted))

    return jax.tree_util.tree_map_with_path(of, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def to_host(x: jax.Array) -> np.ndarray:
    """The whole array on every host, wherever its parts lie; all processes have to ask for it."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return multihost_utils.process_allgather(x, tiled=True)


def put_rows(mesh: Mesh, rows: Any) -> Any:
    """Rows that every process holds in full (a tree of arrays on the host), each device getting its part of them.

    Rows that the devices cannot share evenly lie on every device.
    """
    ways = _ways(mesh, ("data", "fsdp"))

    def put(x):
        x = np.asarray(x)
        sharding = replicated(mesh) if len(x) % ways else batch_sharding(mesh)
        return jax.make_array_from_callback(x.shape, sharding, lambda part: x[part])

    return jax.tree.map(put, rows)


def put_beside(params: Any, rows: Any) -> Any:
    """`put_rows` on the mesh that parameters lie on; what has its place already, or is traced, stays as it is."""

    def placed(x) -> bool:
        return isinstance(x, jax.Array) and (isinstance(x, jax.core.Tracer) or x.committed)

    leaves = [x for x in jax.tree.leaves(params) if isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)]
    meshes = [x.sharding.mesh for x in leaves if isinstance(x.sharding, NamedSharding)]
    of_ours = [m for m in meshes if set(m.axis_names) == set(AXES)]
    return jax.tree.map(lambda x: x if placed(x) else put_rows(of_ours[0], x), rows) if of_ours else rows


def put_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """This process' rows become its part of the global batch."""
    sharding = batch_sharding(mesh)
    return {k: jax.make_array_from_process_local_data(sharding, np.asarray(v)) for k, v in batch.items()}
