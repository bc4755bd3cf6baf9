"""Reward difference prediction (Deng et al., 2024, arXiv 2402.08714) on groups of samples.

python -m experiments.reinforce --config=configs/rdp.py --workdir=runs/rdp

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={},
        objective={"rdp": {"weight": 1.0, "beta": 0.1}},
    )
    config.rollout.group_size = 2
    config.rollout.prompts = 64
    return config
