"""Checkpoints in Hugging Face's layout: `load` and `save`. `alignment.models.families` says which models.

Also as ...ForSequenceClassification, whose `score` becomes the reward head. Weights are safetensors only; no pickle is
read or written. Loading holds one tensor of the file at a time: it goes to the devices as it lies in the file, is
transposed and cast there, and takes its layer's place in the stacked parameter.
"""

import contextlib
import functools
import gc
import json
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from alignment.models.config import DecoderConfig
from alignment.models.decoder import Params, layer_shapes, top_shapes
from alignment.models.families import Tensor, config_from_hugging_face, config_to_hugging_face, tensors, top_names

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}


def read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


class _Files:
    """The open safetensors files of a directory: where each tensor is, its shape, and slices of it."""

    def __init__(self, directory: pathlib.Path):
        if (directory / _INDEX).exists():
            listed = read_json(directory / _INDEX).get("weight_map")
            if not isinstance(listed, dict):
                raise ValueError(f"{directory / _INDEX}: key 'weight_map' is missing")
            paths = {name: directory / file for name, file in listed.items()}
        elif (directory / _SINGLE).exists():
            names = self._open(directory / _SINGLE).keys()  # a handle, not a dict
            paths = {name: directory / _SINGLE for name in names}
        else:
            raise FileNotFoundError(f"{directory}: holds neither {_SINGLE} nor {_INDEX}")
        opened = {path: self._open(path) for path in sorted(set(paths.values()))}
        held = {path: set(file.keys()) for path, file in opened.items()}
        for name, path in paths.items():
            if name not in held[path]:
                raise ValueError(f"{path}: tensor {name} is missing, although {_INDEX} puts it there")
        slices = {name: opened[path].get_slice(name) for name, path in paths.items()}
        # The first GPT-2 checkpoints leave out the prefix of every name.
        bare = "wte.weight" in slices
        self.paths, self.slices = (
            {f"transformer.{name}" if bare and not name.startswith("lm_head.") else name: x for name, x in of.items()}
            for of in (paths, slices)
        )

    @staticmethod
    def _open(path):
        try:
            return safe_open(path, framework="numpy")
        except FileNotFoundError:
            raise FileNotFoundError(f"{path}: no such file, although {_INDEX} names it") from None
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: not a whole safetensors file ({error})") from None


def load_config(directory: str | os.PathLike) -> DecoderConfig:
    """The `DecoderConfig` of a checkpoint directory; also finds out from the weights about reward heads and tying."""
    return _load_config(pathlib.Path(directory), _Files(pathlib.Path(directory)))


def _load_config(directory, files):
    path = directory / "config.json"
    config = config_from_hugging_face(read_json(path), str(path))
    score, output = top_names(config)["reward_head"][0], top_names(config)["lm_head"][0]
    fields = dict(vars(config))
    if score in files.slices:
        fields["reward_heads"] = files.slices[score].get_shape()[0]
        # transformers' reward models are saved without an output matrix; the embedding then serves as one.
        fields["tie_word_embeddings"] = config.tie_word_embeddings or output not in files.slices
    return DecoderConfig(**fields)


def _check_tensors(config, files, directory):
    wanted = {tensor.name: tensor.shape for tensor in tensors(config)}
    for name, shape in wanted.items():
        if name not in files.slices:
            raise ValueError(f"{directory}: tensor {name} is missing")
        found = tuple(files.slices[name].get_shape())
        if found != shape:
            raise ValueError(f"{files.paths[name]}: tensor {name} has shape {found}, the config asks for {shape}")
        if files.slices[name].get_dtype() not in _DTYPES:
            raise ValueError(
                f"{files.paths[name]}: tensor {name} has dtype {files.slices[name].get_dtype()}, not a float"
            )
    # Old files repeat constants of the rotation and of the causal mask, and tied models may repeat the embedding.
    constants = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")
    spare = {name for name in files.slices if name.endswith(constants)} | {top_names(config)["lm_head"][0]}
    if extra := sorted(set(files.slices) - set(wanted) - spare):
        more = f" and {len(extra) - 3} more" if len(extra) > 3 else ""
        raise ValueError(
            f"{files.paths[extra[0]]}: tensors the config has no place for: {', '.join(extra[:3])}{more}; the model "
            "may have a feature that is not supported"
        )


def load(
    directory: str | os.PathLike,
    dtype: str | None = None,
    shardings: Any = None,
    convert: Callable[[str, jax.Array], Any] | None = None,
) -> tuple[DecoderConfig, Params]:
    """Reads a checkpoint, one tensor at a time, of which each device gets the slice it holds.

    Every tensor is checked before the first is read. On the host there is never more than one tensor of the file; on
    the devices, the parameters and one tensor.

    Args:
      directory: holds config.json and model.safetensors, or the shards named by model.safetensors.index.json.
      dtype: of the parameters in memory (`config.param_dtype`); None means float32, which optimizers want.
      shardings: a Sharding for all parameters, or a pytree of them in the structure of `params`
        (`jax.eval_shape(build(load_config(directory)).init, key)`); None puts everything on the default device.
      convert: what becomes of each parameter, by its name, as soon as it is there (to quantise it, say).

    Raises:
      FileNotFoundError, ValueError: naming the file and the tensor or key.
    """
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such directory")
    files = _Files(directory)
    config = DecoderConfig(**vars(_load_config(directory, files)) | {"param_dtype": dtype or "float32"})
    _check_tensors(config, files, directory)
    target = _numpy_dtype(config.param_dtype)
    places: dict[tuple[str, int | None], tuple[Tensor, int]] = {}
    for tensor in tensors(config):
        places |= {(ours, tensor.layer): (tensor, part) for part, ours in enumerate(tensor.ours)}

    def sharding_of(*path):
        if shardings is None or isinstance(shardings, jax.sharding.Sharding):
            return shardings
        return functools.reduce(lambda tree, key: tree[key], path, shardings)

    params: Params = {"layers": {}}
    for name, shape in top_shapes(config).items():
        sharding = sharding_of(name)
        tensor, part = places[name, None]
        cast = _caster(sharding, tensor.transposed)
        array = cast(_piece(files, tensor, part, shape, sharding), target).block_until_ready()
        params[name] = convert(name, array) if convert else array
    for name, shape in layer_shapes(config).items():
        sharding = sharding_of("layers", name)
        stack = jnp.zeros((config.num_layers, *shape), target, device=sharding)
        for layer in range(config.num_layers):
            tensor, part = places[name, layer]
            fill, of_layer = _filler(sharding, tensor.transposed), _of_one_layer(sharding)
            # One piece at a time: waited for, held by no name, and jax returns what numpy lent it when Python collects.
            stack = fill(stack, _piece(files, tensor, part, shape, of_layer), layer).block_until_ready()
            gc.collect(0)
        params["layers"][name] = convert(name, stack) if convert else stack
    return config, params


def _of_one_layer(sharding: jax.sharding.Sharding | None) -> jax.sharding.Sharding | None:
    if isinstance(sharding, jax.NamedSharding):
        return jax.NamedSharding(sharding.mesh, jax.P(*sharding.spec[1:]))
    return sharding


def _piece(files: _Files, tensor: Tensor, part: int, shape: tuple[int, ...], sharding) -> jax.Array:
    """One parameter of one layer as it lies in the file, on the devices; `shape` and `sharding` are ours."""
    theirs = shape[::-1] if tensor.transposed else shape
    offset = part * shape[-1]
    read: dict[tuple, np.ndarray] = {}  # devices that hold the same slice share it

    def slice_of(index):
        bounds = [list(s.indices(n)[:2]) for s, n in zip(index, theirs, strict=True)]
        bounds[-1] = [edge + offset for edge in bounds[-1]]
        key = tuple(map(tuple, bounds))
        if key not in read:
            try:
                value = files.slices[tensor.name][tuple(slice(*edge) for edge in key)]
            except (SafetensorError, OSError) as error:
                raise ValueError(f"{files.paths[tensor.name]}: tensor {tensor.name} cannot be read ({error})") from None
            # jax has no float64 unless asked for.
            read[key] = value.astype(np.float32) if value.dtype == np.float64 else value
        return read[key]

    if sharding is None:
        return jax.device_put(slice_of((slice(None),) * len(theirs)))
    if tensor.transposed and isinstance(sharding, jax.NamedSharding):
        spec = [*sharding.spec, *(None,) * (len(shape) - len(sharding.spec))]
        sharding = jax.NamedSharding(sharding.mesh, jax.P(*spec[::-1]))
    return jax.make_array_from_callback(theirs, sharding, slice_of)


@functools.lru_cache(maxsize=256)
def _caster(sharding, transposed: bool) -> Callable:
    def cast(piece, dtype):
        return (piece.T if transposed else piece).astype(dtype)

    return jax.jit(cast, static_argnums=1, out_shardings=sharding)


@functools.lru_cache(maxsize=256)
def _filler(sharding, transposed: bool) -> Callable:
    def fill(stack, piece, layer):
        piece = (piece.T if transposed else piece).astype(stack.dtype)
        return jax.lax.dynamic_update_index_in_dim(stack, piece, layer, 0)

    return jax.jit(fill, donate_argnums=0, out_shardings=sharding)


def _numpy_dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def _plan(entries: Iterable[Tensor], itemsize: int, max_shard_bytes: int) -> list[list[Tensor]]:
    """Fills shards in order; a tensor larger than the limit gets a shard of its own."""
    shards, used = [[]], 0
    for entry in entries:
        size = math.prod(entry.shape) * itemsize
        if shards[-1] and used + size > max_shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(entry)
        used += size
    return shards


def save(
    directory: str | os.PathLike,
    config: DecoderConfig,
    params: Params,
    *,
    dtype: str | None = None,
    max_shard_bytes: int = 5 * 10**9,
    extra_config: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Writes config.json and safetensors beside the target, then renames: a crash leaves no half checkpoint.

    Args:
      directory: made here; must not exist or be empty, unless `overwrite` (then it is replaced as a whole).
      params: arrays this process can read in full (gather them first on several hosts).
      dtype: of the file; None keeps `config.param_dtype`.
      max_shard_bytes: above this the weights are split, with an index.
      extra_config: keys added to config.json, such as bos_token_id, eos_token_id and pad_token_id.

    Raises:
      ValueError: parameters that do not fit the config, or a config no supported layout can express.
      FileExistsError: the directory holds something.
    """
    dtype = dtype or config.param_dtype
    if dtype not in _DTYPES.values():
        raise ValueError(f"dtype must be one of {tuple(_DTYPES.values())}, got {dtype!r}")
    raw = config_to_hugging_face(config, dtype) | dict(extra_config or {})
    with whole_directory(directory, overwrite) as work:
        _check_params(config, params)
        target = _numpy_dtype(dtype)
        shards = _plan(tensors(config), target.itemsize, max_shard_bytes)
        names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
        names = [_SINGLE] if len(shards) == 1 else names
        index, total = {}, 0
        for name, shard in zip(names, shards, strict=True):
            arrays = {}
            for tensor in shard:
                held = params if tensor.layer is None else params["layers"]
                values = [held[ours] if tensor.layer is None else held[ours][tensor.layer] for ours in tensor.ours]
                value = np.concatenate([np.asarray(v) for v in values], axis=-1).astype(target)
                arrays[tensor.name] = np.ascontiguousarray(value.T if tensor.transposed else value)
                index[tensor.name] = name
                total += arrays[tensor.name].nbytes
            save_file(arrays, work / name, metadata={"format": "pt"})
        if len(shards) > 1:
            text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=2)
            (work / _INDEX).write_text(text, encoding="utf-8")
        (work / "config.json").write_text(json.dumps(raw, indent=2, sort_keys=True), encoding="utf-8")


@contextlib.contextmanager
def whole_directory(directory: str | os.PathLike, overwrite: bool) -> Iterator[pathlib.Path]:
    """A directory to write files into, which becomes `directory` when all is on disk: a crash leaves no half of one.

    Raises:
      FileExistsError: `directory` holds something, and it is not to be overwritten.
    """
    directory = pathlib.Path(directory)
    if directory.exists() and not overwrite and (not directory.is_dir() or any(directory.iterdir())):
        raise FileExistsError(f"{directory}: exists already; pass overwrite=True to replace it")
    directory.parent.mkdir(parents=True, exist_ok=True)
    work = directory.with_name(f".{directory.name}.tmp-{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        yield work
        for path in work.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        _replace(work, directory)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _check_params(config, params):
    expected = {(name,): shape for name, shape in top_shapes(config).items()}
    expected |= {("layers", name): (config.num_layers, *shape) for name, shape in layer_shapes(config).items()}
    found = {(k,): v for k, v in params.items() if k != "layers"} | {
        ("layers", k): v for k, v in params["layers"].items()
    }
    for path in sorted(expected.keys() | found.keys()):
        name = ".".join(path)
        if path not in found or path not in expected:
            raise ValueError(f"parameter {name} is {'missing' if path not in found else 'not in the config'}")
        if tuple(found[path].shape) != expected[path]:
            raise ValueError(f"parameter {name} has shape {found[path].shape}, the config asks for {expected[path]}")
        if not getattr(found[path], "is_fully_addressable", True):
            raise ValueError(f"parameter {name} is spread over several hosts: gather it before saving")


def _replace(work: pathlib.Path, directory: pathlib.Path) -> None:
    if not directory.exists() or not any(directory.iterdir()):
        os.replace(work, directory)
        return
    # A full directory cannot be replaced in one step: it is moved aside first and stays whole if we die in between.
    aside = directory.with_name(f".{directory.name}.old-{os.getpid()}")
    os.replace(directory, aside)
    os.replace(work, directory)
    shutil.rmtree(aside)
