"""Seconds per DPO step and tokens per second at the shape of the benchmark issue.

    python -m benchmarks.dpo_step [--pairs=8 --prompt=128 --completion=128 --vocabulary=8192]

Vocabulary 8192, width 256, 4 layers, 4 query and 2 key/value heads, SwiGLU 704, float32, random weights; 8 pairs of
128 prompt and 2 x 128 completion tokens, the reference scored in the step. Tokens are counted as the peers process
them, once per side: pairs x 2 x (prompt + completion); the shared prompt is computed once here.
"""

from __future__ import annotations

import functools
import importlib.metadata
import statistics as stats
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

import alignment.losses
from alignment import objective
from alignment.data import rows
from alignment.models import decoder
from alignment.training import state, step

_PAIRS = flags.DEFINE_integer("pairs", 8, "pairs per step")
_PROMPT = flags.DEFINE_integer("prompt", 128, "prompt tokens")
_COMPLETION = flags.DEFINE_integer("completion", 128, "tokens of each completion")
_VOCABULARY = flags.DEFINE_integer("vocabulary", 8192, "vocabulary size")
_STEPS = flags.DEFINE_integer("steps", 12, "timed steps, after two to warm up")


def matmul_rate(size: int = 1536, repeats: int = 5) -> float:
    """The machine's own float32 matmul rate just now, in FLOP/s: a share of it says more than seconds."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(size, size)), jnp.float32)
    product = jax.jit(lambda x: x @ x)
    product(x).block_until_ready()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        product(x).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds)


def main(_) -> None:
    pairs, prompt, completion, vocabulary = _PAIRS.value, _PROMPT.value, _COMPLETION.value, _VOCABULARY.value
    config = decoder.DecoderConfig(
        vocab_size=vocabulary, hidden_size=256, intermediate_size=704, num_layers=4, num_heads=4, num_kv_heads=2,
        max_position_embeddings=1024, tie_word_embeddings=True,
    )  # fmt: skip
    model = decoder.build(config)
    params = model.init(jax.random.key(0))
    rng = np.random.default_rng(0)

    def draw(n: int) -> np.ndarray:
        return rng.integers(0, vocabulary, n).astype(np.int32)

    examples = [
        rows.Tokenized(i, draw(prompt), (draw(completion), draw(completion)), where=f"random:{i}") for i in range(pairs)
    ]
    batch = rows.collate_trees(examples, prompt, completion, 2)
    sides = ("chosen", "rejected")
    terms = objective.bind({"dpo": {"beta": 0.1}}, alignment.losses, "objective", sides, ())
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-5))
    losses = step.make_losses(model, {"reference": model}, terms, (), sides)
    train_step = jax.jit(step.make_step(losses, terms, (), sides, optimizer), donate_argnums=0)
    frozen = {"reference": jax.tree.map(jnp.copy, params)}
    matrices = decoder.parameter_count(params) - vocabulary * config.hidden_size  # the head is counted on its own
    train = jax.jit(functools.partial(state.create, optimizer=optimizer, method_state={}))(
        params, rng=jax.random.key(1)
    )
    began = time.perf_counter()
    for _ in range(2):
        train, logs = train_step(train, frozen, batch)
    jax.block_until_ready(logs)
    compile_seconds = time.perf_counter() - began
    rate = matmul_rate()
    seconds = []
    for _ in range(_STEPS.value):
        began = time.perf_counter()
        train, logs = train_step(train, frozen, batch)
        jax.block_until_ready((train, logs))
        seconds.append(time.perf_counter() - began)

    row_tokens, scored = pairs * (prompt + 2 * completion), pairs * 2 * completion
    # Two FLOP per parameter and token forward; the policy's forward and backward cost three of them, the reference one.
    flop = 4 * 2 * (matrices * row_tokens + vocabulary * config.hidden_size * scored)
    median = stats.median(seconds)
    tokens = pairs * 2 * (prompt + completion)
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("jax", "optax"))
    print(
        f"device {jax.devices()[0].device_kind}, {versions}; {_STEPS.value} steps after two of warm-up "
        f"({compile_seconds:.1f} s)"
    )
    print(f"loss {float(logs['loss']):.4f}; median {median:.3f} s, min {min(seconds):.3f} s per step")
    print(f"{tokens / median:,.0f} tokens/s counted per side ({row_tokens / median:,.0f} computed)")
    print(f"float32 matmul {rate / 1e9:.0f} GFLOP/s; the step's matrices reach {flop / median / rate:.0%} of it")


if __name__ == "__main__":
    app.run(main)
