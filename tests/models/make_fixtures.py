"""Makes tests/models/fixtures with torch and transformers: `python tests/models/make_fixtures.py`.

Two tiny random Llamas (llama3 rope scaling with grouped queries and its own output matrix; tied with attention biases,
two shards, bfloat16), each with the tokens and float32 logits transformers computes.
"""

import pathlib
import shutil

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
SIZES = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
MODELS = {
    "llama3": {
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
    "tied": {"num_key_value_heads": 1, "tie_word_embeddings": True, "attention_bias": True},
}


def main():
    for seed, (name, extra) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**SIZES, **extra)).eval()
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
