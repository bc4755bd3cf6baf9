"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685) beside frozen and perhaps quantised matrices (QLoRA,
Dettmers et al. 2023, arXiv:2305.14314), with trained magnitudes (DoRA, Liu et al. 2024, arXiv:2402.09353).

The adapters are a tree of their own, and the only one that is trained:

    layers: NAME_lora_a [L, in, r]   NAME_lora_b [L, r, out]   NAME_magnitude [L, out] (magnitudes)
    reward_head [D, n], whole, where the model has one

`attach(adapter, base, adapters)` is the tree that every function of the model takes; `base` alone is the model with the
adapters switched off, which is why a reference costs nothing. qwix' own LoraProvider creates its parameters inside flax
modules, which the decoder has none of: what is used of qwix is its quantised array (`alignment.models.quantized`).
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from alignment.models import families, hugging_face
from alignment.models.config import DecoderConfig
from alignment.models.decoder import Model, Params, layer_shapes
from alignment.models.quantized import dense, quantize

Array = jax.Array

MATRICES = ("q", "k", "v", "o", "gate", "up", "down")
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Keys of PEFT's configuration that change the arithmetic in a way we do not have, when set.
_UNSUPPORTED = (
    *("rank_pattern", "alpha_pattern", "layers_to_transform", "layer_replication", "megatron_config", "lora_bias"),
    *("exclude_modules", "trainable_token_indices", "target_parameters", "use_qalora", "alora_invocation_tokens"),
)


@dataclasses.dataclass(frozen=True)
class Adapter:
    """W + scale A B on the targets, with scale alpha / rank, or alpha / sqrt(rank) if rank-stabilised.

    The latter is Kalajdzievski (2023), arXiv:2312.03732. With magnitudes the columns of that sum are scaled to trained
    norms. There is no dropout.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...] = MATRICES
    rank_stabilized: bool = False
    magnitudes: bool = False

    def __post_init__(self):
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")
        if not self.alpha > 0:
            raise ValueError(f"alpha must be > 0, got {self.alpha}")
        if not self.targets or set(self.targets) - set(MATRICES):
            raise ValueError(f"targets must be some of {MATRICES}, got {self.targets}")
        object.__setattr__(self, "targets", tuple(name for name in MATRICES if name in self.targets))

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)


def init(adapter: Adapter, config: DecoderConfig, base: Params, rng: Array) -> Params:
    """A uniform within 1 / sqrt(in), as PEFT draws it, B zero and magnitudes the base's: the model is unchanged.

    Everything is float32, whatever the base is stored in.

    Raises:
      ValueError: a target that the model does not have, or a rank above what a target can have.
    """
    shapes, layers = layer_shapes(config), {}
    for number, name in enumerate(adapter.targets):
        if name not in shapes:
            raise ValueError(f"target {name!r} is not in the model, which has {', '.join(_matrices(config))}")
        rows, columns = shapes[name]
        if adapter.rank > min(rows, columns):
            raise ValueError(f"rank {adapter.rank} is above the {min(rows, columns)} that target {name!r} can have")
        bound = 1 / math.sqrt(rows)
        key = jax.random.fold_in(rng, number)
        layers[f"{name}_lora_a"] = jax.random.uniform(
            key, (config.num_layers, rows, adapter.rank), jnp.float32, -bound, bound
        )
        layers[f"{name}_lora_b"] = jnp.zeros((config.num_layers, adapter.rank, columns), jnp.float32)
        if adapter.magnitudes:
            norms = jnp.linalg.norm(dense(base["layers"][name]).astype(jnp.float32), axis=-2)
            layers[f"{name}_magnitude"] = norms
    adapters = {"layers": layers}
    if config.reward_heads:
        adapters["reward_head"] = jnp.array(base["reward_head"], jnp.float32)
    return adapters


def _matrices(config: DecoderConfig) -> list[str]:
    return [name for name in MATRICES if name in layer_shapes(config)]


def quantize_base(params: Params, form: str) -> Params:
    """The same parameters with every matrix of the layers quantised; embeddings, norms and heads stay as they are."""
    layers = params["layers"]
    coarse = {name: quantize(layers[name], form) for name in MATRICES if name in layers}
    return params | {"layers": layers | coarse}


def attach(adapter: Adapter, base: Params, adapters: Params) -> Params:
    """The model's parameters with the adapters beside the matrices, B scaled; nothing of the base is copied."""
    layers = {
        name: adapter.scale * array if name.endswith("_lora_b") else array for name, array in adapters["layers"].items()
    }
    return base | adapters | {"layers": base["layers"] | layers}


def merge(adapter: Adapter, base: Params, adapters: Params) -> Params:
    """Plain parameters of the same model: the targets in float32, for in bfloat16 small updates would be lost.

    A quantised base is read back first.
    """
    layers = {name: dense(array) for name, array in base["layers"].items()}
    for name in adapter.targets:
        a, b = adapters["layers"][f"{name}_lora_a"], adapters["layers"][f"{name}_lora_b"]
        whole = layers[name].astype(jnp.float32) + adapter.scale * jnp.matmul(a, b, precision="highest")
        if adapter.magnitudes:
            norms = jnp.linalg.norm(whole, axis=-2, keepdims=True)
            whole = adapters["layers"][f"{name}_magnitude"][:, None] * whole / norms
        layers[name] = whole
    return base | {k: v for k, v in adapters.items() if k != "layers"} | {"layers": layers}


def on_base(adapter: Adapter, model: Model, make: Callable[[Model], Callable]) -> Callable:
    """`make(model)` is a function of (params, frozen_params, ...); this is the same one of the adapters alone.

    The base is `frozen_params["base"]`, an argument and never a constant of what is compiled; the others stay.
    """

    def function(adapters, frozen_params, *rest):
        base = frozen_params["base"]
        others = {whose: params for whose, params in frozen_params.items() if whose != "base"}
        whole = lambda params: attach(adapter, base, params)  # noqa: E731
        adapted = model._replace(
            hidden=lambda params, *row, **kw: model.hidden(whole(params), *row, **kw),
            unembed=lambda params, h: model.unembed(whole(params), h),
            head=lambda params: model.head(whole(params)),
        )
        return make(adapted)(adapters, others, *rest)

    return function


def _modules(config: DecoderConfig) -> dict[str, str]:
    """Our name -> the name of theirs within a layer, of every matrix that is one of its own in their layout."""
    names = families.layer_names(config)
    theirs = {name: names[name][0].removesuffix(".weight") for name in _matrices(config)}
    return {name: module for name, module in theirs.items() if list(theirs.values()).count(module) == 1}


def check_layout(adapter: Adapter, config: DecoderConfig) -> None:
    """ValueError for adapters that `save` cannot write: of q, k and v of GPT-2, which are one matrix there."""
    if fused := [name for name in adapter.targets if name in _matrices(config) and name not in _modules(config)]:
        raise ValueError(f"adapters of {', '.join(fused)} cannot be written: the layout fuses them with others")


def _key(config: DecoderConfig, layer: int, module: str, part: str) -> str:
    return f"base_model.model.{families.layer_prefix(config)}{layer}.{module}.{part}"


_PARTS = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight", "magnitude": "lora_magnitude_vector"}


def save(
    directory: str | os.PathLike,
    adapter: Adapter,
    config: DecoderConfig,
    adapters: Params,
    *,
    base_name: str = "",
    overwrite: bool = False,
) -> None:
    """Writes adapter_config.json and adapter_model.safetensors as PEFT does; whole or not at all.

    Args:
      base_name: the checkpoint directory or the name of the model that the adapters belong to.

    Raises:
      ValueError: a target that is not a matrix of its own in the model's layout (q, k and v of GPT-2).
      FileExistsError: the directory holds something, and `overwrite` is not set.
    """
    check_layout(adapter, config)
    modules, arrays = _modules(config), {}
    for name, stacked in adapters["layers"].items():
        target, _, part = name.partition("_")
        for layer in range(config.num_layers):
            value = np.asarray(stacked[layer], np.float32)
            arrays[_key(config, layer, modules[target], _PARTS[part])] = np.ascontiguousarray(value.T)
    if config.reward_heads:
        head = families.top_names(config)["reward_head"][0]
        arrays[f"base_model.model.{head}"] = np.ascontiguousarray(np.asarray(adapters["reward_head"], np.float32).T)
    short = families.family(config) != "gpt2"  # GPT-2 has a c_proj in both halves of a layer
    raw = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if config.reward_heads else "CAUSAL_LM",
        "base_model_name_or_path": base_name or None,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0,
        "target_modules": [modules[n].rpartition(".")[2] if short else modules[n] for n in adapter.targets],
        "modules_to_save": ["score"] if config.reward_heads else None,
        "use_rslora": adapter.rank_stabilized,
        "use_dora": adapter.magnitudes,
        "fan_in_fan_out": not short,
        "bias": "none",
        "inference_mode": True,
    }
    with hugging_face.whole_directory(directory, overwrite) as work:
        hugging_face.save_file(arrays, work / _WEIGHTS, metadata={"format": "pt"})
        (work / _CONFIG).write_text(json.dumps(raw, indent=2, sort_keys=True), encoding="utf-8")


def load(directory: str | os.PathLike, config: DecoderConfig) -> tuple[Adapter, Params]:
    """Reads adapters that PEFT or `save` wrote, for a model of this config; dropout, if they had any, is left out.

    Raises:
      FileNotFoundError, ValueError: naming the file and the key or the tensor.
    """
    directory = pathlib.Path(directory)
    path, raw = directory / _WEIGHTS, hugging_face.read_json(directory / _CONFIG)
    here = directory / _CONFIG
    if raw.get("peft_type") != "LORA":
        raise ValueError(f"{here}: peft_type = {raw.get('peft_type')!r} is not supported; LORA is")
    for key in _UNSUPPORTED:
        if raw.get(key):
            raise ValueError(f"{here}: {key} = {raw[key]!r} is not supported")
    if raw.get("bias", "none") != "none" or set(raw.get("modules_to_save") or ()) - {"score"}:
        raise ValueError(f"{here}: bias and modules_to_save are not supported, but for the score of a reward model")
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error})") from None

    modules = _modules(config)
    targets = tuple(n for n, module in modules.items() if _key(config, 0, module, _PARTS["lora_a"]) in tensors)
    if not targets:
        raise ValueError(f"{path}: holds no adapter of a matrix of this model")
    try:
        adapter = Adapter(raw["r"], raw["lora_alpha"], targets, bool(raw.get("use_rslora")), bool(raw.get("use_dora")))
    except KeyError as error:
        raise ValueError(f"{here}: key {error} is missing") from None
    shapes, layers = layer_shapes(config), {}

    def take(name, shape):
        if name not in tensors:
            raise ValueError(f"{path}: tensor {name} is missing")
        found = tensors.pop(name)
        if found.shape != shape:
            raise ValueError(f"{path}: tensor {name} has shape {found.shape}, this model needs {shape}")
        return found.astype(np.float32).T

    for name in targets:
        rows, columns = shapes[name]
        wanted = {"lora_a": (adapter.rank, rows), "lora_b": (columns, adapter.rank)}
        wanted |= {"magnitude": (columns,)} if adapter.magnitudes else {}
        for part, shape in wanted.items():
            keys = [_key(config, layer, modules[name], _PARTS[part]) for layer in range(config.num_layers)]
            layers[f"{name}_{part}"] = jnp.stack([take(key, shape) for key in keys])
    adapters = {"layers": layers}
    if config.reward_heads:
        head = f"base_model.model.{families.top_names(config)['reward_head'][0]}"
        adapters["reward_head"] = jnp.asarray(take(head, (config.reward_heads, config.hidden_size)))
    if tensors:
        raise ValueError(f"{path}: tensors this model has no place for: {', '.join(sorted(tensors)[:3])}")
    return adapter, adapters
