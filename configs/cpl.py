"""Contrastive Preference Learning (Hejna et al., 2023, arXiv 2310.13639) after SFT, without a reference model.

python -m experiments.finetune --config=configs/cpl.py --workdir=runs/cpl

Not measured yet.
"""

from configs import common


def get_config():
    config = common.preference({"cpl": {"weight": 1.0, "alpha": 0.5, "contrastive_bias": 0.5}})
    # Without a reference there is no implicit reward to log.
    del config.metrics.reward_accuracy, config.metrics.reward_margin
    return config
