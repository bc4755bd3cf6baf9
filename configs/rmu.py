"""RMU: hidden states of what is to be forgotten are steered to a random direction (Li et al., 2024, arXiv 2403.03218).

python -m experiments.finetune --config=configs/rmu.py --workdir=runs/rmu

Measured with the other methods of unlearning: docs/unlearning.md.
"""

from configs import common


def get_config():
    config = common.unlearning({"rmu_forget": {"weight": 1.0, "coefficient": 6.5}, "rmu_retain": {"weight": 10.0}})
    config.training.features_layer = 1
    config.optimizer.only = ("down",)
    config.optimizer.learning_rate = 1e-2  # of one matrix; at 3e-4 twenty steps do nothing
    return config
