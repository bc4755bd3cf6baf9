"""Quantiles of every rating by the pinball loss (Dorka, 2024, arXiv 2409.10164): 19 heads for each of three ratings.

python -m experiments.finetune --config=configs/quantile_rm.py --workdir=runs/quantile_rm

Not measured yet.
"""

from configs import common


def get_config():
    config = common.reward_model({"quantile_rm": {"weight": 1.0}}, {})
    config.model.reward_heads = 3 * 19
    config.data.kind = "ratings"
    return config
