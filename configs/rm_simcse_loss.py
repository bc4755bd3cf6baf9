"""Bradley-Terry and SimCSE on the features of the reward model (Wang et al., 2024, arXiv 2401.06080).

--config=configs/rm_simcse_loss.py:rm_simcse_difference_loss contrasts differences of features.

python -m experiments.finetune --config=configs/rm_simcse_loss.py --workdir=runs/rm_simcse_loss

Not measured yet.
"""

from configs import common


def get_config(loss="rm_simcse_loss"):
    return common.reward_model(
        {"bt_reward_loss": {"weight": 1.0}, loss: {"weight": 1.0}}, {"reward_model_accuracy": {}}
    )
