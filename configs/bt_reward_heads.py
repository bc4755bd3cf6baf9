"""An ensemble of five reward heads on one trunk (after Coste et al., 2023, arXiv 2310.02743), each on 4/5 of the pairs.

configs/grpo_reward_model.py optimises a policy on what the ensemble is sure of.

python -m experiments.finetune --config=configs/bt_reward_heads.py --workdir=runs/bt_reward_heads

Not measured yet.
"""

from configs import common


def get_config():
    config = common.reward_model(
        {"bt_reward_heads_loss": {"weight": 1.0, "share": 0.8}},
        {"reward_heads_accuracy": {}, "reward_model_accuracy": {}},
    )
    config.model.reward_heads = 5
    return config
