"""PAMA: the min-norm combination of two advantages, none of them negative (He and Maghsudi, 2025, arXiv 2508.07768).

python -m experiments.reinforce --config=configs/pama.py --workdir=runs/pama

Not measured yet.
"""

from configs import online


def get_config():
    return online.two_objectives(
        shaping={},
        advantages={
            "objective_advantages": {"order": 0, "gives": "objective_advantages"},
            "pama_advantages": {"order": 1},
        },
        objective={
            "ppo": {"weight": 1.0, "reduction": "token_mean"},
            "kl_k3": {"weight": 0.2, "reduction": "token_mean"},
        },
    )
