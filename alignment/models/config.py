"""What fixes the shape and the arithmetic of a decoder: `DecoderConfig` and the scaling of its rotary positions."""

import dataclasses
from collections.abc import Mapping

from alignment.segments import LEVELS

ACTIVATIONS = ("silu", "gelu_tanh")
NORMS = ("llama", "gemma", "layer")
REMATS = ("none", "full", "dots")
DTYPES = ("float32", "bfloat16", "float16")
ROPE_TYPES = ("llama3", "linear", "yarn")
FULL, SLIDING = "full_attention", "sliding_attention"


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are slowed down for contexts longer than those of pre-training.

    llama3: Grattafiori et al. 2024, arXiv:2407.21783; needs the two frequency factors and the original context.
    linear: every frequency divided by `factor` (Chen et al. 2023, arXiv:2306.15595).
    yarn: Peng et al. 2023, arXiv:2309.00071; needs the original context.
    """

    factor: float
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    original_max_position_embeddings: int | None = None
    rope_type: str = "llama3"
    attention_factor: float | None = None  # yarn: cosines and sines are multiplied by it; None: 0.1 ln(factor) + 1
    beta_fast: float = 32.0  # yarn: turns within the original context from which on a frequency is kept
    beta_slow: float = 1.0  # yarn: turns up to which it is divided by `factor`
    truncate: bool = True  # yarn: round the bounds of the blend outwards to whole pairs

    def __post_init__(self):
        if self.rope_type not in ROPE_TYPES:
            raise ValueError(f"rope_scaling.rope_type must be one of {ROPE_TYPES}, got {self.rope_type!r}")
        if self.factor < 1:
            raise ValueError(f"rope_scaling.factor must be >= 1, got {self.factor}")
        if self.rope_type == "llama3" and not 0 < (self.low_freq_factor or 0) < (self.high_freq_factor or 0):
            raise ValueError(
                "rope_scaling needs 0 < low_freq_factor < high_freq_factor, got "
                f"{self.low_freq_factor} and {self.high_freq_factor}"
            )
        if self.rope_type != "linear" and (self.original_max_position_embeddings or 0) < 1:
            raise ValueError("rope_scaling.original_max_position_embeddings must be >= 1")
        if self.rope_type == "yarn" and not 0 < self.beta_slow <= self.beta_fast:
            raise ValueError(f"rope_scaling needs 0 < beta_slow <= beta_fast, got {self.beta_slow}, {self.beta_fast}")


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Everything that fixes the shape and the arithmetic of a decoder; names follow Hugging Face's configs."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int | None = None  # None: one per query head
    head_dim: int | None = None  # None: hidden_size / num_heads
    learned_positions: bool = False  # a table of positions instead of rotations, as in GPT-2
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None  # a mapping with the same keys is converted
    rope_local_theta: float | None = None  # of sliding layers, unscaled, as in Gemma 3; None: they rotate as the others
    sliding_window: int | None = None  # a sliding layer sees the last this many positions, its own included
    layer_types: tuple[str, ...] | None = None  # of every layer; None: all sliding if there is a window, else all full
    rms_norm_eps: float = 1e-6  # also of "layer" norms
    norm: str = "llama"  # "llama": w * x, "gemma": (1 + w) * x; "layer": less the mean, w * x + bias
    post_norms: bool = False  # a norm also after attention and after the MLP, as in Gemma 2
    activation: str = "silu"  # or "gelu_tanh"
    gated_mlp: bool = True  # False: down(activation(up(x)))
    mlp_bias: bool = False
    tie_word_embeddings: bool = False
    embedding_scale: bool = False  # multiply embeddings by sqrt(hidden_size), as Gemma does
    attention_bias: bool = False  # on q, k and v
    attention_output_bias: bool = False  # on o (Llama's attention_bias sets both, Qwen2 only the former)
    qk_norm: bool = False  # RMSNorm over each head's q and k before the rotation, as Qwen3 does
    query_pre_attn_scalar: float | None = None  # scores are divided by its square root; None: by that of head_dim
    logit_softcap: float | None = None
    attn_softcap: float | None = None
    max_position_embeddings: int = 2048
    reward_heads: int = 0
    num_instruction_levels: int = 0  # embeddings of who said a token (`alignment.segments.LEVELS`); 0: none
    causal: bool = True  # False: a token also sees what stands after it (for masked diffusion)
    dtype: str = "float32"  # of the computation
    param_dtype: str = "float32"
    remat: str = "none"  # "full": keep only layer inputs; "dots": also keep matrix products of weights
    scan_layers: bool = True

    def __post_init__(self):
        if self.num_kv_heads is None:
            object.__setattr__(self, "num_kv_heads", self.num_heads)
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads")
        for name in (*sizes, "max_position_embeddings"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads ({self.num_heads}) must be a multiple of num_kv_heads ({self.num_kv_heads})")
        if self.head_dim is None:
            if self.hidden_size % self.num_heads:
                raise ValueError(
                    f"hidden_size ({self.hidden_size}) must be a multiple of num_heads ({self.num_heads}) "
                    "when head_dim is None"
                )
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_heads)
        if self.head_dim < 2 or self.head_dim % 2:
            raise ValueError(f"head_dim must be even and >= 2 for rotary positions, got {self.head_dim}")
        if isinstance(self.rope_scaling, Mapping):
            known = {f.name for f in dataclasses.fields(RopeScaling)}
            if unknown := set(self.rope_scaling) - known:
                raise ValueError(f"unknown keys in rope_scaling: {sorted(unknown)}; known are {sorted(known)}")
            object.__setattr__(self, "rope_scaling", RopeScaling(**self.rope_scaling))
        for name, allowed in (
            ("norm", NORMS),
            ("activation", ACTIVATIONS),
            ("remat", REMATS),
            ("dtype", DTYPES),
            ("param_dtype", DTYPES),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        positive = ("rope_theta", "rope_local_theta", "sliding_window", "rms_norm_eps", "query_pre_attn_scalar")
        for name in (*positive, "logit_softcap", "attn_softcap"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be > 0, got {value}")
        # One form of each meaning.
        if self.query_pre_attn_scalar == self.head_dim:
            object.__setattr__(self, "query_pre_attn_scalar", None)
        if self.rope_local_theta == self.rope_theta and self.rope_scaling is None:
            object.__setattr__(self, "rope_local_theta", None)
        if self.qk_norm and self.norm == "layer":
            raise ValueError("qk_norm is a norm without bias, which norm='layer' has none of")
        if self.reward_heads < 0:
            raise ValueError(f"reward_heads must be >= 0, got {self.reward_heads}")
        if self.num_instruction_levels and self.num_instruction_levels < len(LEVELS):
            raise ValueError(
                f"num_instruction_levels must be 0 (none) or at least {len(LEVELS)} ({', '.join(LEVELS)}), got "
                f"{self.num_instruction_levels}"
            )
        self._settle_layer_types()

    def _settle_layer_types(self):
        """One form of each meaning: a window and the type of every layer, or neither when no layer slides."""
        types = self.layer_types
        if types is None:
            types = (FULL if self.sliding_window is None else SLIDING,) * self.num_layers
        if len(types) != self.num_layers or set(types) - {FULL, SLIDING}:
            raise ValueError(
                f"layer_types must name {FULL!r} or {SLIDING!r} for each of the {self.num_layers} layers, got {types}"
            )
        slides = SLIDING in types
        if slides and self.sliding_window is None:
            raise ValueError("layer_types has sliding layers, but sliding_window is None")
        if self.rope_local_theta is not None and not slides:
            raise ValueError("rope_local_theta is of sliding layers, and there are none")
        object.__setattr__(self, "layer_types", tuple(types) if slides else None)
        object.__setattr__(self, "sliding_window", self.sliding_window if slides else None)
