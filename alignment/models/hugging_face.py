"""Checkpoints in Hugging Face's layout: `load`, `save` and the translation of config.json.

Read: LlamaForCausalLM and the models that differ from it by features `DecoderConfig` has (Mistral, Qwen2, Qwen3,
Gemma), also as ...ForSequenceClassification, whose `score` becomes the reward head. Written: the same.
Weights are safetensors only; no pickle is read or written.
"""

import json
import math
import os
import pathlib
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from alignment.models.decoder import DecoderConfig, Params, layer_shapes, top_shapes

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"

# Our name -> (their name, whether the matrix is transposed: theirs are [out, in]).
_TOP = {
    "embedding": ("model.embed_tokens.weight", False),
    "final_norm": ("model.norm.weight", False),
    "lm_head": ("lm_head.weight", False),
    "reward_head": ("score.weight", True),
}
_LAYER = {
    "attention_norm": ("input_layernorm.weight", False),
    "mlp_norm": ("post_attention_layernorm.weight", False),
    "q_norm": ("self_attn.q_norm.weight", False),
    "k_norm": ("self_attn.k_norm.weight", False),
    **{n: (f"self_attn.{n}_proj.weight", True) for n in "qkvo"},
    **{f"{n}_bias": (f"self_attn.{n}_proj.bias", False) for n in "qkvo"},
    **{n: (f"mlp.{n}_proj.weight", True) for n in ("gate", "up", "down")},
}

_MODELS = ("llama", "mistral", "qwen2", "qwen3", "gemma")
_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}
# Keys whose value changes the arithmetic in a way we do not have; (key, values that switch it off).
_UNSUPPORTED = {
    "quantization_config": (),
    "mlp_bias": (False,),
    "use_sliding_window": (False,),
    "partial_rotary_factor": (1, 1.0),
    "rope_interleaved": (False,),
    "final_logit_softcapping": (),
    "attn_logit_softcapping": (),
    "use_bidirectional_attention": (False,),
    "num_experts": (0,),
    "num_local_experts": (0,),
}
_READ = {
    *("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "rms_norm_eps", "hidden_act", "hidden_activation", "tie_word_embeddings"),
    *("attention_bias", "max_position_embeddings", "rope_theta", "rope_scaling", "rope_parameters", "sliding_window"),
    *("layer_types", "max_window_layers", "dtype", "torch_dtype", "architectures"),
}
# Names, tokens, training settings: nothing that changes the forward pass.
_HARMLESS = {
    *("_name_or_path", "transformers_version", "bos_token_id", "eos_token_id", "pad_token_id", "use_cache"),
    *("initializer_range", "attention_dropout", "pretraining_tp", "id2label", "label2id", "num_labels"),
    *("transformers.js_config", "is_llama_config", "problem_type", "output_hidden_states", "output_attentions"),
    *("return_dict", "chunk_size_feed_forward", "is_encoder_decoder", "_attn_implementation", "unsloth_version"),
}


def config_from_hugging_face(raw: Mapping[str, Any], source: str = "config.json") -> DecoderConfig:
    """Translates a config.json (transformers 4 or 5) into a `DecoderConfig`.

    Raises:
      ValueError: a missing key, or a feature the decoder does not have; the message names the key.
    """

    def need(key):
        if raw.get(key) is None:
            raise ValueError(f"{source}: key {key!r} is missing")
        return raw[key]

    def refuse(key, value, why="is not supported"):
        raise ValueError(f"{source}: {key} = {value!r} {why}")

    kind = need("model_type")
    if kind not in _MODELS:
        refuse("model_type", kind, f"is not supported; supported are {', '.join(_MODELS)}")
    for key, off in _UNSUPPORTED.items():
        if raw.get(key) is not None and raw[key] not in off:
            refuse(key, raw[key])
    context = raw.get("max_position_embeddings", 2048)
    if any(layer != "full_attention" for layer in raw.get("layer_types") or ()):
        refuse("layer_types", raw["layer_types"], "is not supported (full attention only)")
    # Qwen writes a window that use_sliding_window switches off; elsewhere the window counts when it is set.
    window = raw.get("sliding_window")
    if kind == "mistral" and window is not None and window < context:
        refuse("sliding_window", window, f"is shorter than the context of {context}; windows are not supported")
    activation = raw.get("hidden_activation") or need("hidden_act")
    if kind == "gemma":
        # Gemma's first configs say "gelu" and mean the tanh form (so transformers reads them).
        activation = {"gelu": "gelu_pytorch_tanh"}.get(activation, activation)
    if activation not in _ACTIVATIONS:
        refuse("hidden_act", activation)
    unknown = set(raw) - _READ - _HARMLESS - set(_UNSUPPORTED)
    if unknown := sorted(key for key in unknown if raw[key] not in (None, False, 0, "", [], {})):
        warnings.warn(f"{source}: keys with no meaning here are ignored: {', '.join(unknown)}", stacklevel=2)

    rope = dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
    theta = rope.pop("rope_theta", None) or raw.get("rope_theta") or 10000.0
    rope_key = "rope_parameters" if raw.get("rope_parameters") else "rope_scaling"
    rope_type = rope.pop("rope_type", None) or rope.pop("type", None) or "default"
    rope.pop("type", None)
    scaling = None
    if rope_type == "llama3":
        names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        if missing := [name for name in names if rope.get(name) is None]:
            raise ValueError(f"{source}: {rope_key} lacks {', '.join(missing)}")
        scaling = {name: rope[name] for name in names}
    elif rope_type != "default":
        refuse(f"{rope_key}.rope_type", rope_type, "is not supported; supported are default and llama3")
    if rope.get("partial_rotary_factor") not in (None, 1, 1.0):
        refuse(f"{rope_key}.partial_rotary_factor", rope["partial_rotary_factor"])

    bias = bool(raw.get("attention_bias", False))
    return DecoderConfig(
        vocab_size=need("vocab_size"),
        hidden_size=need("hidden_size"),
        intermediate_size=need("intermediate_size"),
        num_layers=need("num_hidden_layers"),
        num_heads=need("num_attention_heads"),
        num_kv_heads=raw.get("num_key_value_heads"),
        head_dim=raw.get("head_dim") or {"qwen3": 128, "gemma": 256}.get(kind),  # transformers' own defaults
        rope_theta=float(theta),
        rope_scaling=scaling,
        rms_norm_eps=raw.get("rms_norm_eps", 1e-6),
        norm="gemma" if kind == "gemma" else "llama",
        activation=_ACTIVATIONS[activation],
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", kind == "gemma")),
        embedding_scale=kind == "gemma",
        attention_bias=kind == "qwen2" or (bias and kind != "mistral"),
        attention_output_bias=bias and kind not in ("qwen2", "mistral"),
        qk_norm=kind == "qwen3",
        max_position_embeddings=context,
    )


def config_to_hugging_face(config: DecoderConfig, dtype: str = "float32") -> dict[str, Any]:
    """The config.json of a model, in the form that transformers 4 and 5 both read.

    Raises:
      ValueError: a combination of features that no supported architecture has.
    """
    gemma = (config.norm == "gemma", config.embedding_scale, config.activation == "gelu_tanh")
    if not config.causal:
        raise ValueError("causal=False has no counterpart in the layouts written here")
    if config.logit_softcap is not None or config.attn_softcap is not None:
        raise ValueError("logit_softcap and attn_softcap have no counterpart in the layouts written here")
    if config.attention_output_bias and not config.attention_bias:
        raise ValueError("attention_output_bias without attention_bias has no counterpart in the layouts written here")
    if gemma[0] != gemma[1] or (gemma[0] and (not gemma[2] or config.qk_norm)):
        raise ValueError("norm='gemma' can only be written with embedding_scale, activation='gelu_tanh' and no qk_norm")
    half_bias = config.attention_bias and not config.attention_output_bias
    if half_bias and (gemma[0] or config.qk_norm):
        raise ValueError("attention_bias without attention_output_bias can only be written for a plain (Qwen2) layout")
    kind = "gemma" if gemma[0] else "qwen3" if config.qk_norm else "qwen2" if half_bias else "llama"
    name = {"gemma": "Gemma", "qwen3": "Qwen3", "qwen2": "Qwen2", "llama": "Llama"}[kind]
    if kind == "qwen2" and config.head_dim * config.num_heads != config.hidden_size:
        raise ValueError("Qwen2's layout needs head_dim = hidden_size / num_heads")
    activation = "gelu_pytorch_tanh" if config.activation == "gelu_tanh" else config.activation
    raw = {
        "architectures": [f"{name}For{'SequenceClassification' if config.reward_heads else 'CausalLM'}"],
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": activation,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": None,
        "max_position_embeddings": config.max_position_embeddings,
        "tie_word_embeddings": config.tie_word_embeddings,
        "attention_bias": config.attention_bias,
        "dtype": dtype,
        "torch_dtype": dtype,
        # Absent keys would get the architecture's own tokens; the caller's `extra_config` sets the real ones.
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    if kind == "gemma":
        raw["hidden_activation"] = activation
    if kind.startswith("qwen"):
        raw["use_sliding_window"] = False
    if scaling := config.rope_scaling:
        raw["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_position_embeddings,
        }
    if config.reward_heads:
        raw["id2label"] = {str(i): f"reward_{i}" for i in range(config.reward_heads)}
        raw["label2id"] = {f"reward_{i}": i for i in range(config.reward_heads)}
    return raw


def _tensors(config: DecoderConfig) -> Iterator[tuple[str, str, int | None, tuple[int, ...], bool]]:
    """(their name, our name, layer or None, our shape of one layer's array, transposed), in the order of the file."""
    top, layers = top_shapes(config), layer_shapes(config)
    yield _TOP["embedding"][0], "embedding", None, top.pop("embedding"), False
    for i in range(config.num_layers):
        for name, shape in layers.items():
            yield f"model.layers.{i}.{_LAYER[name][0]}", name, i, shape, _LAYER[name][1]
    for name, shape in top.items():
        yield _TOP[name][0], name, None, shape, _TOP[name][1]


def _read_json(path: pathlib.Path) -> dict[str, Any]:
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
            listed = _read_json(directory / _INDEX).get("weight_map")
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
        self.paths = paths
        self.slices = {name: opened[path].get_slice(name) for name, path in paths.items()}

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
    config = config_from_hugging_face(_read_json(path), str(path))
    score, output = _TOP["reward_head"][0], _TOP["lm_head"][0]
    fields = dict(vars(config))
    if score in files.slices:
        fields["reward_heads"] = files.slices[score].get_shape()[0]
        # transformers' reward models are saved without an output matrix; the embedding then serves as one.
        fields["tie_word_embeddings"] = config.tie_word_embeddings or output not in files.slices
    return DecoderConfig(**fields)


def _check_tensors(config, files, directory):
    wanted = {theirs: shape[::-1] if transposed else shape for theirs, _, _, shape, transposed in _tensors(config)}
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
    # Old files repeat constants of the rotation, and tied models may repeat the embedding.
    spare = {name for name in files.slices if name.endswith("rotary_emb.inv_freq")} | {_TOP["lm_head"][0]}
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
) -> tuple[DecoderConfig, Params]:
    """Reads a checkpoint; every tensor is checked before the first is read, and read in the slices each device needs.

    Args:
      directory: holds config.json and model.safetensors, or the shards named by model.safetensors.index.json.
      dtype: of the parameters in memory (`config.param_dtype`); None means float32, which optimizers want.
      shardings: a Sharding for all parameters, or a pytree of them in the structure of `params`
        (`jax.eval_shape(build(load_config(directory)).init, key)`); None puts everything on the default device.

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

    def read(theirs, transposed, index):
        try:
            piece = files.slices[theirs][index[::-1] if transposed else index]
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{files.paths[theirs]}: tensor {theirs} cannot be read ({error})") from None
        return (piece.T if transposed else piece).astype(target)

    def assemble(theirs_by_layer, shape, transposed, sharding):
        """One of our arrays; the callback gets the part a device holds."""
        pieces = {}

        def part(index):
            key = str(index)  # devices that hold the same part share it
            if key not in pieces:
                index = tuple(slice(*i.indices(n)) for i, n in zip(index, shape, strict=True))
                if isinstance(theirs_by_layer, str):
                    pieces[key] = np.ascontiguousarray(read(theirs_by_layer, transposed, index))
                else:
                    pieces[key] = np.stack([read(name, transposed, index[1:]) for name in theirs_by_layer[index[0]]])
            return pieces[key]

        if sharding is None:
            return jax.device_put(part((slice(None),) * len(shape)))
        return jax.make_array_from_callback(shape, sharding, part)

    def sharding_of(*path):
        if shardings is None or isinstance(shardings, jax.sharding.Sharding):
            return shardings
        value = shardings
        for key in path:
            value = value[key]
        return value

    params = {
        name: assemble(_TOP[name][0], shape, _TOP[name][1], sharding_of(name))
        for name, shape in top_shapes(config).items()
    }
    params["layers"] = {}
    for name, shape in layer_shapes(config).items():
        names = [f"model.layers.{i}.{_LAYER[name][0]}" for i in range(config.num_layers)]
        stacked = (config.num_layers, *shape)
        params["layers"][name] = assemble(names, stacked, _LAYER[name][1], sharding_of("layers", name))
    return config, params


def _numpy_dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def _plan(config: DecoderConfig, itemsize: int, max_shard_bytes: int) -> list[list[tuple]]:
    """Fills shards in order; a tensor larger than the limit gets a shard of its own."""
    shards, used = [[]], 0
    for entry in _tensors(config):
        size = math.prod(entry[3]) * itemsize
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
    directory = pathlib.Path(directory)
    dtype = dtype or config.param_dtype
    if dtype not in _DTYPES.values():
        raise ValueError(f"dtype must be one of {tuple(_DTYPES.values())}, got {dtype!r}")
    raw = config_to_hugging_face(config, dtype) | dict(extra_config or {})
    if directory.exists() and not overwrite and (not directory.is_dir() or any(directory.iterdir())):
        raise FileExistsError(f"{directory}: exists already; pass overwrite=True to replace it")
    _check_params(config, params)
    target = _numpy_dtype(dtype)
    shards = _plan(config, target.itemsize, max_shard_bytes)
    file_of = (
        (lambda i: _SINGLE) if len(shards) == 1 else lambda i: f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
    )

    directory.parent.mkdir(parents=True, exist_ok=True)
    work = directory.with_name(f".{directory.name}.tmp-{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        index, total = {}, 0
        for i, shard in enumerate(shards):
            arrays = {}
            for theirs, ours, layer, _, transposed in shard:
                value = params[ours] if layer is None else params["layers"][ours][layer]
                value = np.asarray(value).astype(target)
                arrays[theirs] = np.ascontiguousarray(value.T if transposed else value)
                index[theirs] = file_of(i)
                total += arrays[theirs].nbytes
            _write(work / file_of(i), lambda path, arrays=arrays: save_file(arrays, path, metadata={"format": "pt"}))
        if len(shards) > 1:
            text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=2)
            _write(work / _INDEX, lambda path: path.write_text(text, encoding="utf-8"))
        text = json.dumps(raw, indent=2, sort_keys=True)
        _write(work / "config.json", lambda path: path.write_text(text, encoding="utf-8"))
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


def _write(path: pathlib.Path, write: Callable[[pathlib.Path], Any]) -> None:
    write(path)
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _replace(work: pathlib.Path, directory: pathlib.Path) -> None:
    if not directory.exists() or not any(directory.iterdir()):
        os.replace(work, directory)
        return
    # A full directory cannot be replaced in one step: it is moved aside first and stays whole if we die in between.
    aside = directory.with_name(f".{directory.name}.old-{os.getpid()}")
    os.replace(directory, aside)
    os.replace(work, directory)
    shutil.rmtree(aside)
