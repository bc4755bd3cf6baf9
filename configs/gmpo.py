"""Geometric-mean policy optimization (Zhao et al., 2025, arXiv 2507.20673).

python -m experiments.reinforce --config=configs/gmpo.py --workdir=runs/gmpo

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"grpo_advantages": {}},
        objective={"gmpo": {"weight": 1.0}},
    )
    return config
