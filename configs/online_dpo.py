"""Online DPO (Guo et al., 2024, arXiv 2402.04792): DPO on two fresh samples of the policy.

python -m experiments.reinforce --config=configs/online_dpo.py --workdir=runs/online_dpo

Not measured yet.
"""

from configs import online


def get_config():
    config = online.on_pairs({"online_dpo": {"weight": 1.0, "beta": 0.1}})
    config.rollout.group_size = 2
    config.rollout.prompts = 64
    return config
