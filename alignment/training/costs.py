"""Memory, work and traffic of a training step from the shapes alone: what a run will take, before it is started.

All numbers are per device of a mesh of `data` x `fsdp` x `tensor` devices. Notation: N parameters, L layers, width D,
H query and K key/value heads of size d, MLP width F, vocabulary V; a row of C columns of which T positions are scored,
R rows per device and micro-batch, c bytes of a computed number (4 for float32, 2 for bfloat16).

Memory in bytes
  parameters, gradients         4 N each, float32 whatever the computation: these are the master weights
  Adam's two moments            8 N
  frozen models                 4 N each
  all of these are split as the table in `alignment.training.mesh` says, so N stands for a device's share
  gathered                      the embedding and the head whole, in the dtype of the computation, and their gradients
                                (the head's in float32); one layer's weights, whole but for their split over tensor
  activations                   R C L times what a layer keeps of a column (`kept_per_column`), and what the one layer
                                keeps that is just being recomputed
  scores                        two blocks of queries by C keys; attention keeps none
  logits                        two chunks of R T positions and `chunk` vocabulary entries, in float32; a loss that
                                makes them all keeps two arrays [R T, V] (`logits_saved` is the difference)
  key/value cache               2 L K d c per column and sequence (sampling only)

Work in floating point operations (a multiply-add is two)
  matrices                      2 N_matrices per column; attention 4 H d per query and key it reads; head 2 D V per
                                scored position. Forward once, backward twice; attention's scores and the head's logits
                                are computed once more in the backward pass, with remat "full" the whole layer is
  a frozen model                one forward pass

Traffic in bytes sent by each device (a ring of k devices: an all-gather or a reduce-scatter of n bytes moves
(k-1)/k n, an all-reduce twice that)
  fsdp                          per micro-batch, the parameters gathered forward and again backward, and forward for
                                every frozen model, in the dtype of the computation; gradients reduced
  data                          gradients all-reduced
  tensor                        per layer two all-reduces of R C D c forward, two backward, two more where the layer is
                                recomputed; one for the embedding

Time is at least the largest of work / peak, bytes read and written / memory bandwidth, and traffic / network bandwidth:
a bound, not a forecast. What a step reaches of it on a real machine has to be measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from alignment import vocabulary_walk
from alignment.models import attention, decoder
from alignment.training import mesh

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Hardware(NamedTuple):
    """Per device: bfloat16 operations per second, bytes, bytes per second; `inner` devices share the fast network."""

    name: str
    devices: int
    flops: float
    memory: float
    memory_bandwidth: float
    inner: int
    inner_bandwidth: float
    outer_bandwidth: float


# Vendors' peak numbers. A v5p-128 has 128 TensorCores on 64 chips, and jax counts chips. Its interconnect moves 1,200
# GB/s per chip in both directions together; NVLink 900 GB/s likewise; 400 Gbit/s InfiniBand per GPU between nodes.
HARDWARE = {
    "v5p-128": Hardware("v5p-128 (64 chips)", 64, 459e12, 95 * 2**30, 2765e9, 64, 600e9, 6.25e9),
    "h100-64": Hardware("64 H100 (8 nodes of 8)", 64, 989e12, 80e9, 3350e9, 8, 450e9, 50e9),
    "h100-1": Hardware("one H100", 1, 989e12, 80e9, 3350e9, 1, 450e9, 50e9),
}


class Work(NamedTuple):
    """What one optimizer step is fed, over all devices."""

    rows: int  # of the whole step
    columns: int  # of a row: prompt and all completions, or the packed length
    scored: int  # positions of a row
    accumulate: int = 1
    frozen: int = 0  # models scored besides the policy
    chunk: int | None = None  # vocabulary entries at a time; None: as the scoring pass chooses


@dataclasses.dataclass(frozen=True)
class Costs:
    """Per device. Bytes, operations and bytes of traffic of one optimizer step."""

    parameters: int  # of the model as a whole, a count
    memory: Mapping[str, float]
    logits_saved: float
    flops: float
    traffic: Mapping[str, float]
    memory_traffic: float

    @property
    def state_bytes(self) -> float:
        return self.memory["parameters"] + self.memory["moments"]

    @property
    def total_memory(self) -> float:
        return sum(self.memory.values())


def shard_bytes(params: Any, shape: Mapping[str, int], rules: Mapping[str, Any] = mesh.RULES) -> dict[str, float]:
    """{last key: bytes of it on one device} of a tree of parameters (or of their shapes) on a mesh of this shape."""
    abstract = jax.sharding.AbstractMesh(tuple(shape[a] for a in mesh.AXES), mesh.AXES)
    total: dict[str, float] = {}
    shardings = mesh.parameter_sharding(abstract, params, rules)
    for (path, leaf), sharding in zip(
        jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(shardings), strict=True
    ):
        size = int(np.prod(sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
        total[path[-1].key] = total.get(path[-1].key, 0) + size
    return total


def _blocks(config: decoder.DecoderConfig, columns: int) -> list[tuple[int, int]]:
    """(queries, keys) of the products that attention makes of a row."""
    if not config.causal:
        return [(columns, columns)]
    return [(end - start, end) for start, end in attention.blocks(columns)]


def kept_per_column(config: decoder.DecoderConfig, columns: int) -> float:
    """Bytes that the backward pass of one layer keeps of one column of a row of `columns`, by remat policy.

    "full": the layer's input. "dots": also every product with a weight but the last: q, k, v, o, gate, up. "none": of
    both norms the input, what is scaled (both in float32), two numbers per column and the output; q, and k and v once
    per block that reads them; what attention gives; gate, up and their product. Attention's scores, and what lies
    between gate and product, are computed again under every policy.
    """
    width, mlp = config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    c = _BYTES[config.dtype]
    if config.remat == "full":
        return c * width
    if config.remat == "dots":
        return c * (2 * width + queries + 2 * keys + 2 * mlp)
    read = sum(k for _, k in _blocks(config, columns)) / columns
    return 2 * (c * width + 8 * width + 8) + c * (2 * queries + 2 * keys * read + 3 * mlp)


def attended(config: decoder.DecoderConfig, columns: int) -> int:
    """Query-key pairs that attention computes for a row: `attend_row` leaves out the blocks to the right."""
    return sum(queries * keys for queries, keys in _blocks(config, columns))


def matrix_parameters(config: decoder.DecoderConfig) -> int:
    """Parameters of the layers that a column is multiplied with."""
    shapes = decoder.layer_shapes(config).values()
    return config.num_layers * sum(int(np.prod(s)) for s in shapes if len(s) == 2)


def forward_flops(config: decoder.DecoderConfig, rows: int, columns: int, scored: int) -> dict[str, float]:
    """Operations of one forward pass over all rows, by where they are done."""
    return {
        "matrices": 2.0 * matrix_parameters(config) * rows * columns,
        "attention": 4.0 * config.num_layers * config.num_heads * config.head_dim * rows * attended(config, columns),
        "head": 2.0 * config.hidden_size * config.vocab_size * rows * scored,
    }


def step_flops(config: decoder.DecoderConfig, work: Work) -> dict[str, float]:
    """Operations of one optimizer step over all devices, with what the backward pass computes again."""
    forward = forward_flops(config, work.rows, work.columns, work.scored)
    # Of attention the scores are made again, which is half of it, and with a layer the rest of it too.
    again = {"matrices": 0.0, "attention": 0.5, "head": 1.0}
    if config.remat == "full":
        again |= {"matrices": 1.0, "attention": 1.5}
    return {k: v * (3 + work.frozen + again[k]) for k, v in forward.items()}


def cache_bytes(config: decoder.DecoderConfig, sequences: int, columns: int) -> float:
    """The key/value cache of sampling."""
    per_column = 2 * config.num_layers * config.num_kv_heads * config.head_dim * _BYTES[config.dtype]
    return float(per_column * sequences * columns)


def costs(
    config: decoder.DecoderConfig,
    work: Work,
    shape: Mapping[str, int],
    *,
    cache: tuple[int, int] = (0, 0),
    rules: Mapping[str, Any] = mesh.RULES,
) -> Costs:
    """What one step takes on every device of a mesh `shape` = {"data", "fsdp", "tensor"}.

    `cache` = (sequences, columns) of sampling, over all devices; (0, 0) for offline runs. ValueError if the rows do not
    divide.
    """
    data, fsdp, tensor = (shape[a] for a in mesh.AXES)
    shards = data * fsdp
    if work.rows % (shards * work.accumulate):
        raise ValueError(
            f"{work.rows} rows are not a multiple of {shards} data shard(s) x {work.accumulate} micro-batch(es)"
        )
    rows = work.rows // (shards * work.accumulate)
    c = _BYTES[config.dtype]
    params = jax.eval_shape(decoder.build(config).init, jax.random.key(0))
    pieces = shard_bytes(params, shape, rules)
    local = sum(pieces.values())
    positions = rows * work.scored
    chunk = min(work.chunk or vocabulary_walk.default_chunk(positions, config.vocab_size), config.vocab_size)
    full_logits = 2.0 * positions * config.vocab_size * 4
    chunked = 2.0 * positions * chunk * 4
    block = _blocks(config, work.columns)[0][0]
    scores = 2.0 * rows * (config.num_heads / tensor) * block * work.columns * 4
    none = dataclasses.replace(config, remat="none")
    layer = kept_per_column(none, work.columns) * rows * work.columns if config.remat != "none" else 0.0
    table = config.vocab_size * config.hidden_size
    tables = 1 if config.tie_word_embeddings else 2
    one_layer = matrix_parameters(config) / config.num_layers / tensor * c
    whole = table * (2 * tables * c + (4 - c)) if shards * tensor > 1 else 4.0 * table
    memory = {
        "parameters": local,
        "gradients": local * (2 if work.accumulate > 1 else 1),  # the sum so far, and those of a micro-batch
        "moments": 2 * local,
        "frozen models": work.frozen * local,
        "gathered": whole + (one_layer if fsdp > 1 else 0.0),
        "activations": kept_per_column(config, work.columns) * config.num_layers * rows * work.columns + layer,
        "scores": scores,
        "logits": chunked,
        "cache": cache_bytes(config, *cache) / (data * fsdp * tensor),
    }

    # What is gathered: everything that the table splits over fsdp, whole but for its split over tensor.
    unsplit = sum(shard_bytes(params, {**shape, "fsdp": 1}, rules).values())
    gathered = (unsplit - local) * c / 4
    passes = 2 + work.frozen  # forward and backward, and forward of every frozen model
    traffic = {
        "fsdp": work.accumulate * (passes * gathered + (unsplit - local)),
        "data": 2 * (data - 1) / data * local,
        "tensor": 0.0,
    }
    if tensor > 1:
        each = 2 * (tensor - 1) / tensor * rows * work.columns * config.hidden_size * c
        layers = 4 + (2 if config.remat == "full" else 0) + 2 * work.frozen
        traffic["tensor"] = work.accumulate * each * (config.num_layers * layers + 1 + work.frozen)

    # Weights once per pass; the optimizer reads p, g, m, v and writes p, m, v; activations go and come back.
    reads = work.accumulate * (passes + 1) * unsplit * c / 4
    memory_traffic = reads + 7 * local + 2 * work.accumulate * memory["activations"]
    flops = step_flops(config, work)
    return Costs(
        parameters=decoder.parameter_count(params),
        memory=memory,
        logits_saved=full_logits - chunked,
        # Every device of the tensor axis walks the whole vocabulary.
        flops=(flops["matrices"] + flops["attention"]) / (shards * tensor) + flops["head"] / shards,
        traffic=traffic,
        memory_traffic=memory_traffic,
    )


def step_seconds(found: Costs, shape: Mapping[str, int], hardware: Hardware) -> dict[str, float]:
    """{"compute", "memory", "network"}: the least that each takes; the step takes at least the largest.

    An axis whose devices lie further apart than one node (the axes are laid out data, fsdp, tensor, the last side by
    side) goes at the speed of the network between nodes.
    """
    span, network = 1, 0.0
    for axis in reversed(mesh.AXES):
        span *= shape[axis]
        fast = span <= hardware.inner
        network += found.traffic[axis] / (hardware.inner_bandwidth if fast else hardware.outer_bandwidth)
    return {
        "compute": found.flops / hardware.flops,
        "memory": found.memory_traffic / hardware.memory_bandwidth,
        "network": network,
    }
