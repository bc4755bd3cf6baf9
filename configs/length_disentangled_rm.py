"""ODIN (Chen et al., 2024, arXiv 2402.07319): head 0 takes what is length, head 1 is the reward.

python -m experiments.finetune --config=configs/length_disentangled_rm.py --workdir=runs/length_disentangled_rm

Not measured yet.
"""

from configs import common


def get_config():
    config = common.reward_model({"length_disentangled_rm": {"weight": 1.0}}, {"reward_heads_accuracy": {}})
    config.model.reward_heads = 2
    return config
