"""Bradley-Terry reward model (Ouyang et al., 2022, arXiv 2203.02155): a scalar head on the SFT model.

python -m experiments.finetune --config=configs/bt_reward_loss.py --workdir=runs/bt_reward_loss

Cost after the SFT stage that configs/dpo.py shares: 103 CPU-seconds. Measured on 2 shared cores, seed 0, 2026-11-21,
evaluation: loss 0.3481, reward_model_accuracy 0.8516.
"""

from configs import common


def get_config():
    config = common.after_sft({"bt_reward_loss": {"weight": 1.0}}, {"reward_model_accuracy": {}})
    config.model.reward_heads = 1
    config.optimizer.learning_rate = 3e-4
    config.gold.samples = 0  # the policy itself is not what is trained
    return config
