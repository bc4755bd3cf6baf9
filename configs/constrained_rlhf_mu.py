"""Constrained RLHF, mu-PPO: both rewards at least at their proxy points (Moskovitz et al., 2023, arXiv 2310.04373).

python -m experiments.reinforce --config=configs/constrained_rlhf_mu.py --workdir=runs/constrained_rlhf_mu

Not measured yet.
"""

from configs import online


def get_config():
    return online.two_objectives(
        shaping={},
        advantages={"constrained_rlhf_mu": {"thresholds": (0.7, -0.65)}},
        objective={"ppo": {"weight": 1.0, "reduction": "token_mean"}},
    )
