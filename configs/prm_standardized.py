"""Step values with hindsight (Shen et al., 2025, arXiv 2510.01167): step labels plus the discounted outcome.

As in the paper only the head is trained; alignment.rewards.process.guided_solution decodes by such a score.

python -m experiments.finetune --config=configs/prm_standardized.py --workdir=runs/prm_standardized

Not measured yet.
"""

from configs import common


def get_config():
    config = common.reward_model({"prm_value_loss": {"weight": 1.0}}, {})
    config.model.reward_heads = 1
    config.data.kind = "steps"
    config.optimizer.only = ("reward_head",)
    config.optimizer.learning_rate = 3e-3
    return config
