"""Rewards worth more while the front advances, with RLOO (Lu et al., 2025, arXiv 2509.11452).

python -m experiments.reinforce --config=configs/hv_guided_weighting.py --workdir=runs/hv_guided_weighting

Not measured yet.
"""

from configs import online


def get_config():
    return online.two_objectives(
        shaping={"hv_guided_rewards": {"weights": (0.5, 0.5), "reference": (0.0, -1.0)}},
        advantages={"rloo_advantages": {}},
        objective=online.PPO_AND_KL,
    )
