"""Pairwise proximal policy optimization (Wu et al., 2023, arXiv 2310.00212).

python -m experiments.reinforce --config=configs/p3o.py --workdir=runs/p3o

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={},
        objective={"p3o_separate": {"weight": 1.0, "beta": 0.05}},
    )
    config.rollout.group_size = 2
    config.rollout.prompts = 64
    return config
