"""Other links than Bradley-Terry's for a reward model (compared in Liu et al., 2024, arXiv 2410.18451): focal here.

The others are --config=configs/rm_loss_variants.py:NAME with NAME one of barrier_reward_loss, hinge_reward_loss,
margin_mse_reward_loss, scaled_bt_reward_loss.

python -m experiments.finetune --config=configs/rm_loss_variants.py --workdir=runs/rm_loss_variants

Not measured yet.
"""

from configs import common


def get_config(loss="focal_reward_loss"):
    return common.reward_model({loss: {"weight": 1.0}}, {"reward_model_accuracy": {}})
