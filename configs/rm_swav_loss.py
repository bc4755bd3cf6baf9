"""Bradley-Terry and SwAV on the features of the reward model (Wang et al., 2024, arXiv 2401.06080): 16 prototypes.

python -m experiments.finetune --config=configs/rm_swav_loss.py --workdir=runs/rm_swav_loss

Not measured yet.
"""

from configs import common


def get_config():
    config = common.reward_model(
        {"bt_reward_loss": {"weight": 1.0}, "rm_swav_loss": {"weight": 1.0}}, {"reward_model_accuracy": {}}
    )
    config.model.reward_heads = 17
    return config
