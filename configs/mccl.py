"""Cyclical curriculum (Kesgin and Amasyali, 2024, arXiv 2402.09141): epochs grow and shrink, easy examples first.

python -m experiments.finetune --config=configs/mccl.py --workdir=runs/mccl

An example is easy if the model that the run starts from gives it a small loss.

Not measured yet.
"""

from ml_collections import ConfigDict

from configs import common


def get_config():
    config = common.after_sft({"sft": {"weight": 1.0, "reduction": "token_mean"}}, {"token_nll": {}})
    config.data.kind = "completion"
    config.data.curriculum = ConfigDict({"mccl": {"smallest": 0.25, "largest": 1.0, "multiplier": 0.5}})
    config.optimizer.learning_rate = 3e-4
    return config
