"""A two-class head as a reward (Rahman et al., 2024, arXiv 2401.15043): is the completion a wanted one?

A run names it as {"checkpoint": WORKDIR, "combine": "class_log_odds"}.

python -m experiments.finetune --config=configs/classifier_reward.py --workdir=runs/classifier_reward

Not measured yet.
"""

from configs import common


def get_config():
    config = common.reward_model({"classifier_reward_loss": {"weight": 1.0}}, {})
    config.model.reward_heads = 2
    config.data.kind = "unpaired"
    return config
