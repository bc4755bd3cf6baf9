"""Several ratings of a completion by one model (Li et al., 2025, arXiv 2503.21819): noun, adjectives and verbosity.

A run names the sum it wants: {"checkpoint": WORKDIR, "combine": "weighted_sum", "weights": (1, 1, -0.4)},
or "transformed_sum" for rewards that must all be good.

python -m experiments.finetune --config=configs/multi_label_reward_regression.py --workdir=runs/multi_label

Not measured yet.
"""

from configs import common


def get_config():
    config = common.reward_model({"multi_label_reward_regression": {"weight": 1.0}}, {})
    config.model.reward_heads = 3
    config.data.kind = "ratings"
    return config
