"""Bradley-Terry and a contrast towards goal states (Nath et al., 2024, arXiv 2407.13887), as in its public code.

--config=configs/goal_contrastive_loss.py:goal_contrastive_mean_log_loss is the paper's form.

python -m experiments.finetune --config=configs/goal_contrastive_loss.py --workdir=runs/goal_contrastive_loss

Not measured yet.
"""

from configs import common


def get_config(loss="goal_contrastive_loss"):
    return common.reward_model(
        {"bt_reward_loss": {"weight": 1.0}, loss: {"weight": 1.0}}, {"reward_model_accuracy": {}}
    )
