"""ArmoRM (Wang et al., 2024, arXiv 2406.12845): three ratings are regressed, then a gate mixes them by the prompt.

Only the gate learns in the second stage, from pairs. The gate is linear in the prompt's state; features taken out of a
model go with the three layers of alignment.rewards.armo.

python -m experiments.finetune --config=configs/armo_rm.py --workdir=runs/armo_rm

Not measured yet.
"""

from configs import common


def get_config():
    ratings = common.reward_model({"multi_label_reward_regression": {"weight": 1.0}}, {})
    ratings.data.kind = "ratings"
    config = common.starting_from(common.base(), ratings)
    config.objective = {"armo_gate_loss": {"weight": 1.0, "temperature": 10.0}}
    config.before_heads = 3  # the ratings
    config.model.reward_heads = 2 * 3  # and a gate for each
    config.optimizer.only = ("reward_head",)
    config.optimizer.learning_rate = 3e-3
    config.data.batch_size = 32
    config.gold.samples = 0
    return config
