"""Denoised reward modelling (Wang et al., 2024, arXiv 2401.06080): voters turn pairs round, labels are soft.

The ten voters are the heads of a reward model that sees the pairs once; a quarter of the labels is wrong.
--config=configs/denoised_bt_loss.py:denoised_bt_margin_loss also asks for the gap that the voters see, and
--config=configs/denoised_bt_loss.py:bt_reward_loss is the same run without the cure.

python -m experiments.finetune --config=configs/denoised_bt_loss.py --workdir=runs/denoised_bt_loss

Measured on 2 shared cores, seed 0, 2026-11-21, evaluation (its labels are right): reward_model_accuracy 0.7500, and
0.7500 without the cure, so it has cured nothing here. After one pass the voters agree with 60 % of the noisy labels and
with 75 % of the right ones: they are no better than the model that they advise.
"""

from configs import common


def get_config(loss="denoised_bt_loss"):
    config = common.reward_model({loss: {"weight": 1.0}}, {"reward_model_accuracy": {}})
    config.data.label_noise = 0.25
    if loss == "bt_reward_loss":
        return config
    voters = common.reward_model({"bt_reward_heads_loss": {"weight": 1.0}}, {"reward_heads_accuracy": {}})
    voters.data.label_noise = config.data.label_noise
    voters.model.reward_heads = 10
    voters.training.steps = 128  # 4096 pairs once: who reads them twice remembers the wrong labels
    config.voters = voters
    return config
