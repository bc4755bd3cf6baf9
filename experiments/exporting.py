"""What a finished run leaves for other programs."""

from __future__ import annotations

from pathlib import Path

import jax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from alignment.models import hugging_face, lora


def write(config: ConfigDict, workdir: Path, model_config, adapter, base, params, tokenizer) -> dict[str, str]:
    """A directory that transformers loads, with the tokenizer's files, and the adapters as PEFT writes them.

    `params` is what was trained: all parameters, or the `adapter`'s on the frozen `base`. Nothing is written unless the
    config asks for it, and of a model with a reward head only the adapters. Returns where everything is.
    """
    if not config.checkpoints.export_hugging_face:
        return {}

    def gathered(tree):
        return multihost_utils.process_allgather(tree, tiled=True) if jax.process_count() > 1 else tree

    written = {}
    if adapter:
        adapters, params = gathered(params), lora.merge(adapter, base, params)
        written["adapter"] = str(workdir / "adapter")
        if jax.process_index() == 0:
            source = config.model.hugging_face
            lora.save(workdir / "adapter", adapter, model_config, adapters, base_name=source, overwrite=True)
    if not config.model.reward_heads:
        params = gathered(params)
        written["hugging_face"] = str(workdir / "hugging_face")
        ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
        if jax.process_index() == 0:
            directory = workdir / "hugging_face"
            hugging_face.save(directory, model_config, params, extra_config=ids, overwrite=True)
            tokenizer.copy_files(directory)
    return written
