"""Dice loss and its relatives (Li et al., 2019, arXiv 1911.02855): tokens tagged by a head, for labels that are rare.

python -m experiments.finetune --config=configs/dice_loss.py --workdir=runs/dice_loss
python -m experiments.finetune --config=configs/dice_loss.py:tversky_loss --workdir=runs/tversky_loss

Also self_adjusting_dice_loss, self_adjusting_dice_loss_per_token and focal_tagging_loss. The tags are those of the
corpus' steps: is what is said here right?

Not measured yet.
"""

from configs import common


def get_config(loss="dice_loss"):
    config = common.reward_model({loss: {"weight": 1.0}}, {})
    config.data.kind = "steps"
    return config
