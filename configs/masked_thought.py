"""Masked thought (Chen et al., 2024, arXiv 2403.02178): SFT that reads its own past with tokens missing.

python -m experiments.finetune --config=configs/masked_thought.py --workdir=runs/masked_thought

Token 259 is the first one that is neither a byte nor special.

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.000 before and 0.334 after (512 samples); mean gold reward
-6.27 -> -1.73.
"""

from ml_collections import ConfigDict

from configs import common


def get_config():
    config = common.sft()
    config.data.corruption = ConfigDict({"masked_thought": {"mask_id": 259, "share": 0.4}})
    return config
