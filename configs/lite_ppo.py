"""Lite PPO (Liu et al., 2025, arXiv 2508.08221): group mean, batch deviation, token mean.

python -m experiments.reinforce --config=configs/lite_ppo.py --workdir=runs/lite_ppo

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"lite_ppo_advantages": {}},
        objective={"ppo": {"weight": 1.0, "reduction": "token_mean"}},
    )
    return config
