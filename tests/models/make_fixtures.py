"""Makes tests/models/fixtures with torch and transformers: `python tests/models/make_fixtures.py`.

Two tiny random Llamas (llama3 rope scaling with grouped queries and its own output matrix; tied with attention biases,
two shards, bfloat16) and one tiny model of each family with an arithmetic of its own, each with the tokens and float32
logits transformers computes.
"""

import pathlib
import shutil

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
SIZES = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
TINY = {"hidden_size": 16, "intermediate_size": 20, "num_key_value_heads": 1, "num_attention_heads": 2}
SOFTCAPS = {"final_logit_softcapping": 4.0, "attn_logit_softcapping": 3.0}
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "rope_theta": 500.0,
    "beta_fast": 2.0,
}
LINEAR = {"rope_type": "linear", "factor": 4.0}
MODELS = {
    "llama3": (
        "llama",
        {
            "num_key_value_heads": 2,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        },
    ),
    "tied": ("llama", {"num_key_value_heads": 1, "tie_word_embeddings": True, "attention_bias": True}),
    "qwen2": (
        "qwen2",
        TINY | {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1, "rope_parameters": YARN},
    ),
    "gemma2": ("gemma2", TINY | SOFTCAPS | {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 12}),
    "gemma3": (
        "gemma3_text",
        {
            **TINY,
            **{"num_hidden_layers": 3, "head_dim": 8, "sliding_window": 5, "sliding_window_pattern": 2},
            **{"query_pre_attn_scalar": 12, "rope_local_base_freq": 50.0, "rope_theta": 700.0, "rope_scaling": LINEAR},
        },
    ),
    "gpt2": ("gpt2", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}),
}


def main():
    for seed, (name, (kind, extra)) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        sizes = {"vocab_size": SIZES["vocab_size"]} if kind == "gpt2" else SIZES
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes | extra)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0.0, 0.3 if parameter.ndim == 1 else 0.15)
        directory = FIXTURES / name
        shutil.rmtree(directory, ignore_errors=True)
        if name == "tied":
            model = model.bfloat16()
        model.save_pretrained(directory, max_shard_size="20KB" if name == "tied" else "5GB")
        (directory / "generation_config.json").unlink(missing_ok=True)
        tokens = np.random.default_rng(seed).integers(0, SIZES["vocab_size"], (2, 40))
        with torch.no_grad():
            logits = model.float()(torch.tensor(tokens)).logits.numpy()
        np.savez_compressed(FIXTURES / f"{name}.npz", tokens=tokens.astype(np.int32), logits=logits)


if __name__ == "__main__":
    main()
