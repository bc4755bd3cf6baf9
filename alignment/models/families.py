"""Hugging Face's families of models: what their config.json means, and where each keeps our parameters in its files.

Llama 2 and 3, Mistral, Qwen 2, 2.5 and 3, Gemma 1, 2 and 3 (text) and GPT-2.
"""

import dataclasses
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from alignment.models.config import FULL, SLIDING, DecoderConfig
from alignment.models.decoder import layer_shapes, top_shapes

# model_type -> its classes: of the language model, and of the one with a reward head.
FAMILIES = {
    "llama": ("LlamaForCausalLM", "LlamaForSequenceClassification"),
    "mistral": ("MistralForCausalLM", "MistralForSequenceClassification"),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2ForSequenceClassification"),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3ForSequenceClassification"),
    "gemma": ("GemmaForCausalLM", "GemmaForSequenceClassification"),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2ForSequenceClassification"),
    "gemma3_text": ("Gemma3ForCausalLM", "Gemma3TextForSequenceClassification"),
    "gpt2": ("GPT2LMHeadModel", "GPT2ForSequenceClassification"),
}
_GEMMAS = ("gemma", "gemma2", "gemma3_text")
_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}
# Keys whose value changes the arithmetic in a way we do not have, with the values that switch it off; where families
# are named, the key means something to them.
_UNSUPPORTED: dict[str, tuple[tuple, tuple[str, ...]]] = {
    "quantization_config": ((), ()),
    "mlp_bias": ((False,), ("llama",)),
    "use_sliding_window": ((False,), ("qwen2", "qwen3")),
    "partial_rotary_factor": ((1, 1.0), ()),
    "rope_interleaved": ((False,), ()),
    "final_logit_softcapping": ((), ("gemma2", "gemma3_text")),
    "attn_logit_softcapping": ((), ("gemma2", "gemma3_text")),
    "use_bidirectional_attention": ((False,), ()),
    "num_experts": ((0,), ()),
    "num_local_experts": ((0,), ()),
    "scale_attn_weights": ((True,), ()),
    "scale_attn_by_inverse_layer_idx": ((False,), ()),
    "add_cross_attention": ((False,), ()),
}
_READ = {
    *("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "rms_norm_eps", "hidden_act", "hidden_activation", "tie_word_embeddings"),
    *("attention_bias", "max_position_embeddings", "rope_theta", "rope_scaling", "rope_parameters", "sliding_window"),
    *("layer_types", "max_window_layers", "dtype", "torch_dtype", "architectures", "query_pre_attn_scalar"),
    *("rope_local_base_freq", "sliding_window_pattern", "_sliding_window_pattern"),
    *("n_positions", "n_embd", "n_layer", "n_head", "n_inner", "activation_function", "layer_norm_epsilon"),
}
# Names, tokens, training settings: nothing that changes the forward pass.
_HARMLESS = {
    *("_name_or_path", "transformers_version", "bos_token_id", "eos_token_id", "pad_token_id", "use_cache"),
    *("initializer_range", "attention_dropout", "pretraining_tp", "id2label", "label2id", "num_labels"),
    *("transformers.js_config", "is_llama_config", "problem_type", "output_hidden_states", "output_attentions"),
    *("return_dict", "chunk_size_feed_forward", "is_encoder_decoder", "_attn_implementation", "unsloth_version"),
    *("cache_implementation", "default_theta", "n_ctx", "task_specific_params", "reorder_and_upcast_attn"),
    *("attn_pdrop", "embd_pdrop", "resid_pdrop"),
    *("summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj"),
}


class _Reader:
    """A config.json whose complaints name the file and the key."""

    def __init__(self, raw: Mapping[str, Any], source: str):
        self.raw, self.source = raw, source

    def need(self, key: str) -> Any:
        if self.raw.get(key) is None:
            raise ValueError(f"{self.source}: key {key!r} is missing")
        return self.raw[key]

    def refuse(self, key: str, value: Any, why: str = "is not supported"):
        raise ValueError(f"{self.source}: {key} = {value!r} {why}")


def config_from_hugging_face(raw: Mapping[str, Any], source: str = "config.json") -> DecoderConfig:
    """Translates a config.json (transformers 4 or 5) into a `DecoderConfig`.

    Raises:
      ValueError: a missing key, or a feature the decoder does not have; the message names the key.
    """
    reader = _Reader(raw, source)
    kind = reader.need("model_type")
    if kind not in FAMILIES:
        reader.refuse("model_type", kind, f"is not supported; supported are {', '.join(FAMILIES)}")
    for key, (off, families) in _UNSUPPORTED.items():
        if raw.get(key) is not None and raw[key] not in off and kind not in families:
            reader.refuse(key, raw[key])
    unknown = set(raw) - _READ - _HARMLESS - set(_UNSUPPORTED)
    if unknown := sorted(key for key in unknown if raw[key] not in (None, False, 0, "", [], {})):
        warnings.warn(f"{source}: keys with no meaning here are ignored: {', '.join(unknown)}", stacklevel=2)
    return _gpt2(reader) if kind == "gpt2" else _llama_like(reader, kind)


def _activation(reader: _Reader, *keys: str) -> str:
    key = next((k for k in keys if reader.raw.get(k) is not None), keys[-1])
    value = reader.need(key)
    if reader.raw["model_type"] == "gemma" and value == "gelu":
        value = (
            "gelu_pytorch_tanh"  # Gemma's first configs say "gelu" and mean the tanh form (so transformers reads it)
        )
    if value not in _ACTIVATIONS:
        reader.refuse(key, value)
    return _ACTIVATIONS[value]


def _gpt2(reader: _Reader) -> DecoderConfig:
    width = reader.need("n_embd")
    return DecoderConfig(
        vocab_size=reader.need("vocab_size"),
        hidden_size=width,
        intermediate_size=reader.raw.get("n_inner") or 4 * width,
        num_layers=reader.need("n_layer"),
        num_heads=reader.need("n_head"),
        learned_positions=True,
        rms_norm_eps=reader.raw.get("layer_norm_epsilon", 1e-5),
        norm="layer",
        activation=_activation(reader, "activation_function"),
        gated_mlp=False,
        mlp_bias=True,
        attention_bias=True,
        attention_output_bias=True,
        tie_word_embeddings=bool(reader.raw.get("tie_word_embeddings", True)),
        max_position_embeddings=reader.need("n_positions"),
    )


def _llama_like(reader: _Reader, kind: str) -> DecoderConfig:
    raw, need = reader.raw, reader.need
    gemma, late_gemma = kind in _GEMMAS, kind in ("gemma2", "gemma3_text")
    bias = bool(raw.get("attention_bias", False))
    window, types = _sliding(reader, kind)
    theta, scaling, local = _rope(reader, kind)
    return DecoderConfig(
        vocab_size=need("vocab_size"),
        hidden_size=need("hidden_size"),
        intermediate_size=need("intermediate_size"),
        num_layers=need("num_hidden_layers"),
        num_heads=need("num_attention_heads"),
        num_kv_heads=raw.get("num_key_value_heads"),
        head_dim=raw.get("head_dim") or (256 if gemma else {"qwen3": 128}.get(kind)),  # transformers' own defaults
        rope_theta=theta,
        rope_scaling=scaling,
        rope_local_theta=local if types and SLIDING in types else None,
        sliding_window=window,
        layer_types=types,
        rms_norm_eps=raw.get("rms_norm_eps", 1e-6),
        norm="gemma" if gemma else "llama",
        post_norms=late_gemma,
        activation=_activation(reader, "hidden_activation", "hidden_act"),
        mlp_bias=bool(raw.get("mlp_bias", False)),
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", gemma)),
        embedding_scale=gemma,
        attention_bias=kind == "qwen2" or (bias and kind != "mistral"),
        attention_output_bias=bias and kind not in ("qwen2", "mistral"),
        qk_norm=kind in ("qwen3", "gemma3_text"),
        query_pre_attn_scalar=raw.get("query_pre_attn_scalar", 256) if late_gemma else None,
        logit_softcap=raw.get("final_logit_softcapping", 30.0 if kind == "gemma2" else None),
        attn_softcap=raw.get("attn_logit_softcapping", 50.0 if kind == "gemma2" else None),
        max_position_embeddings=raw.get("max_position_embeddings", 2048),
    )


def _sliding(reader: _Reader, kind: str) -> tuple[int | None, tuple[str, ...] | None]:
    """(window, type of each layer), or (None, None) where no layer slides."""
    raw, layers = reader.raw, reader.need("num_hidden_layers")
    window, types = raw.get("sliding_window"), raw.get("layer_types")
    if types is not None and (len(types) != layers or set(types) - {FULL, SLIDING}):
        reader.refuse("layer_types", types, f"is not supported; {layers} times {FULL} or {SLIDING} is")
    if kind == "mistral":
        types = (FULL if window is None else SLIDING,) * layers
    elif kind.startswith("qwen"):
        # Qwen writes a window that use_sliding_window switches off.
        if not raw.get("use_sliding_window"):
            window = None
        first = raw.get("max_window_layers", 28) if window is not None else layers
        types = types or [SLIDING if i >= first else FULL for i in range(layers)]
    elif kind in ("gemma2", "gemma3_text"):
        window = raw.get("sliding_window", 4096)
        every = 2 if kind == "gemma2" else raw.get("sliding_window_pattern") or raw.get("_sliding_window_pattern") or 6
        types = types or [SLIDING if (i + 1) % every else FULL for i in range(layers)]
    else:
        window, types = None, types or [FULL] * layers
    if SLIDING not in types:
        return None, None
    if window is None:
        reader.refuse("layer_types", raw.get("layer_types"), "has sliding layers, which this model has no window for")
    return window, tuple(types)


def _rope(reader: _Reader, kind: str) -> tuple[float, dict[str, Any] | None, float | None]:
    """(theta, scaling, theta of the sliding layers where they have one of their own)."""
    raw = reader.raw
    key = "rope_parameters" if raw.get("rope_parameters") else "rope_scaling"
    rope, local, default = dict(raw.get(key) or {}), None, 1e4
    if kind == "gemma3_text":
        local, default = raw.get("rope_local_base_freq"), 1e6
        if FULL in rope or SLIDING in rope:
            slow = dict(rope.get(SLIDING) or {})
            if slow.get("rope_type", "default") != "default":
                reader.refuse(f"{key}.{SLIDING}.rope_type", slow["rope_type"])
            rope, local = dict(rope.get(FULL) or {}), slow.get("rope_theta") or local
        local = float(local or 1e4)
    theta = float(rope.get("rope_theta") or raw.get("rope_theta") or default)
    rope_type = rope.get("rope_type") or rope.get("type") or "default"
    if rope.get("partial_rotary_factor") not in (None, 1, 1.0):
        reader.refuse(f"{key}.partial_rotary_factor", rope["partial_rotary_factor"])
    if rope_type == "default":
        return theta, None, local
    names = {
        "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
        "linear": ("factor",),
        "yarn": ("factor",),
    }
    if rope_type not in names:
        # "dynamic" among them: its angles follow the length of the row, so a cache would hold keys of several lengths.
        reader.refuse(f"{key}.rope_type", rope_type, f"is not supported; supported are default, {', '.join(names)}")
    if missing := [name for name in names[rope_type] if rope.get(name) is None]:
        raise ValueError(f"{reader.source}: {key} lacks {', '.join(missing)}")
    scaling = {"rope_type": rope_type} | {name: rope[name] for name in names[rope_type]}
    if rope_type == "yarn":
        scaling["original_max_position_embeddings"] = rope.get("original_max_position_embeddings") or raw.get(
            "max_position_embeddings", 2048
        )
        scaling |= {k: rope[k] for k in ("beta_fast", "beta_slow", "truncate") if rope.get(k) is not None}
        scaling["attention_factor"] = _attention_factor(rope)
    return theta, scaling, local


def _attention_factor(rope: Mapping[str, Any]) -> float:
    if rope.get("attention_factor") is not None:
        return rope["attention_factor"]
    grown = [0.1 * (rope.get(k) or 1.0) * math.log(rope["factor"]) + 1.0 for k in ("mscale", "mscale_all_dim")]
    both = rope.get("mscale") and rope.get("mscale_all_dim")
    return grown[0] / grown[1] if both else 0.1 * math.log(rope["factor"]) + 1.0


def family(config: DecoderConfig) -> str:
    """The model_type under which a model is written; whether it fits there is `config_to_hugging_face`'s to check."""
    if config.learned_positions:
        return "gpt2"
    if config.norm == "gemma":
        return "gemma3_text" if config.qk_norm else "gemma2" if config.post_norms else "gemma"
    if config.qk_norm:
        return "qwen3"
    if config.attention_bias and not config.attention_output_bias:
        return "qwen2"
    return "llama" if config.sliding_window is None else "mistral"


def config_to_hugging_face(config: DecoderConfig, dtype: str = "float32") -> dict[str, Any]:
    """The config.json of a model, in the form that transformers 4 and 5 both read.

    Raises:
      ValueError: a combination of features that no supported architecture has.
    """
    kind = family(config)
    raw = {
        "architectures": [FAMILIES[kind][bool(config.reward_heads)]],
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tie_word_embeddings,
        "dtype": dtype,
        "torch_dtype": dtype,
        # Absent keys would get the architecture's own tokens; the caller's `extra_config` sets the real ones.
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    raw |= _written_gpt2(config) if kind == "gpt2" else _written_llama_like(config, kind)
    if config.reward_heads:
        raw["id2label"] = {str(i): f"reward_{i}" for i in range(config.reward_heads)}
        raw["label2id"] = {f"reward_{i}": i for i in range(config.reward_heads)}
    # What was written must mean the same when it is read: that is the test of whether the layout can express it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = config_from_hugging_face(raw)
    elsewhere = ("reward_heads", "dtype", "param_dtype", "remat", "scan_layers")
    fields = [f.name for f in dataclasses.fields(config) if f.name not in elsewhere]
    if lost := [name for name in fields if getattr(back, name) != getattr(config, name)]:
        said = ", ".join(f"{name}={getattr(config, name)!r}" for name in lost)
        raise ValueError(f"{said} cannot be written: the nearest layout, {kind}, has no place for it")
    return raw


def _written_gpt2(config: DecoderConfig) -> dict[str, Any]:
    return {
        "n_embd": config.hidden_size,
        "n_inner": config.intermediate_size,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_positions": config.max_position_embeddings,
        "activation_function": "gelu_new" if config.activation == "gelu_tanh" else config.activation,
        "layer_norm_epsilon": config.rms_norm_eps,
    }


def _written_llama_like(config: DecoderConfig, kind: str) -> dict[str, Any]:
    activation = "gelu_pytorch_tanh" if config.activation == "gelu_tanh" else config.activation
    raw = {
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
        "attention_bias": config.attention_bias,
    }
    if config.mlp_bias:
        raw["mlp_bias"] = True
    if kind in _GEMMAS:
        raw["hidden_activation"] = activation
    types = list(config.layer_types or (FULL,) * config.num_layers)
    if kind == "mistral":
        raw["sliding_window"] = config.sliding_window
    elif kind.startswith("qwen"):
        raw |= {"use_sliding_window": SLIDING in types, "sliding_window": config.sliding_window, "layer_types": types}
        raw["max_window_layers"] = types.index(SLIDING) if SLIDING in types else config.num_layers
    elif kind in ("gemma2", "gemma3_text"):
        scalar = config.query_pre_attn_scalar or config.head_dim
        raw |= {
            "layer_types": types,
            "sliding_window": config.sliding_window or 4096,
            "query_pre_attn_scalar": int(scalar) if scalar == int(scalar) else scalar,  # transformers insists
            "final_logit_softcapping": config.logit_softcap,
            "attn_logit_softcapping": config.attn_softcap,
        }
    if kind == "gemma3_text":
        raw["rope_local_base_freq"] = config.rope_local_theta or config.rope_theta
    if config.rope_scaling:
        raw["rope_scaling"] = {k: v for k, v in dataclasses.asdict(config.rope_scaling).items() if v is not None}
    return raw


class Tensor(NamedTuple):
    """One tensor of a checkpoint, and what of ours it holds: several parameters stand side by side on its last axis."""

    name: str
    ours: tuple[str, ...]
    layer: int | None
    shape: tuple[int, ...]  # in the file
    transposed: bool  # theirs are mostly [out, in]


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
    **{f"{n}_bias": (f"mlp.{n}_proj.bias", False) for n in ("gate", "up", "down")},
}
_LAYER_POST_NORMS = _LAYER | {
    "attention_post_norm": ("post_attention_layernorm.weight", False),
    "mlp_norm": ("pre_feedforward_layernorm.weight", False),
    "mlp_post_norm": ("post_feedforward_layernorm.weight", False),
}
_GPT2_TOP = {
    "embedding": ("transformer.wte.weight", False),
    "position_embedding": ("transformer.wpe.weight", False),
    "final_norm": ("transformer.ln_f.weight", False),
    "final_norm_bias": ("transformer.ln_f.bias", False),
    "lm_head": ("lm_head.weight", False),
    "reward_head": ("score.weight", True),
}
_GPT2_LAYER = {
    **{n: ("attn.c_attn.weight", False) for n in "qkv"},
    **{f"{n}_bias": ("attn.c_attn.bias", False) for n in "qkv"},
    **{n: (f"{where}.weight", False) for n, where in (("attention_norm", "ln_1"), ("mlp_norm", "ln_2"))},
    **{f"{n}_bias": (f"{where}.bias", False) for n, where in (("attention_norm", "ln_1"), ("mlp_norm", "ln_2"))},
    **{n: (f"{w}.weight", False) for n, w in (("o", "attn.c_proj"), ("up", "mlp.c_fc"), ("down", "mlp.c_proj"))},
    **{
        f"{n}_bias": (f"{w}.bias", False) for n, w in (("o", "attn.c_proj"), ("up", "mlp.c_fc"), ("down", "mlp.c_proj"))
    },
}


def layer_prefix(config: DecoderConfig) -> str:
    return "transformer.h." if family(config) == "gpt2" else "model.layers."


def layer_names(config: DecoderConfig) -> dict[str, tuple[str, bool]]:
    """Our name -> (theirs within a layer, whether it is transposed)."""
    if family(config) == "gpt2":
        return _GPT2_LAYER
    return _LAYER_POST_NORMS if config.post_norms else _LAYER


def top_names(config: DecoderConfig) -> dict[str, tuple[str, bool]]:
    return _GPT2_TOP if family(config) == "gpt2" else _TOP


def tensors(config: DecoderConfig) -> Iterator[Tensor]:
    """Every tensor of the model's checkpoint, in the order of the file."""
    top, layers, names = top_shapes(config), layer_shapes(config), layer_names(config)

    def of(name, ours, shape, transposed, layer):
        *rest, last = shape[::-1] if transposed else shape
        return Tensor(name, ours, layer, (*rest, last * len(ours)), transposed)

    def of_top(ours):
        name, transposed = top_names(config)[ours]
        return of(name, (ours,), top.pop(ours), transposed, None)

    yield of_top("embedding")
    together: dict[str, tuple[str, ...]] = {}
    for ours in layers:
        together[names[ours][0]] = (*together.get(names[ours][0], ()), ours)
    for i in range(config.num_layers):
        for name, ours in together.items():
            yield of(f"{layer_prefix(config)}{i}.{name}", ours, layers[ours[0]], names[ours[0]][1], i)
    for ours in list(top):
        yield of_top(ours)
