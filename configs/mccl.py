"""Cyclical curriculum (Kesgin and Amasyali, 2024, arXiv 2402.09141): epochs grow and shrink, easy examples first.

python -m experiments.finetune --config=configs/mccl.py --workdir=runs/mccl

An example is easy if the model that the run starts from gives it a small loss.

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.445 after (512 samples); mean gold reward
-1.06 -> -0.71; 0.13 nats from the start.
"""

from ml_collections import ConfigDict

from configs import common


def get_config():
    config = common.after_sft({"sft": {"weight": 1.0, "reduction": "token_mean"}}, {"token_nll": {}})
    config.data.kind = "completion"
    config.data.curriculum = ConfigDict({"mccl": {"smallest": 0.25, "largest": 1.0, "multiplier": 0.5}})
    config.optimizer.learning_rate = 3e-4
    return config
