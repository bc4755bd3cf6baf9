"""An ensemble of five reward heads on one trunk (after Coste et al., 2023, arXiv 2310.02743), each on 4/5 of the pairs.

configs/grpo_reward_model.py optimises a policy on what the ensemble is sure of.

python -m experiments.finetune --config=configs/bt_reward_heads.py --workdir=runs/bt_reward_heads

Measured on 2 shared cores, seed 0, 2026-11-21, evaluation: loss 0.4117, reward_heads_accuracy 0.8258, and 0.8242 for
their mean, worst case and UWO alike: heads on one trunk agree on nearly everything. The one head of
configs/bt_reward_loss.py, which sees every pair, has 0.8516. Name several checkpoints where members must differ.
"""

from configs import common


def get_config():
    config = common.reward_model(
        {"bt_reward_heads_loss": {"weight": 1.0, "share": 0.8}},
        {"reward_heads_accuracy": {}, "reward_model_accuracy": {}},
    )
    config.model.reward_heads = 5
    return config
