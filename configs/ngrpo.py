"""NGRPO (2025, arXiv 2509.18851): advantages calibrated by a virtual reward, so that groups of failures teach too.

python -m experiments.reinforce --config=configs/ngrpo.py --workdir=runs/ngrpo

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"ngrpo_advantages": {}},
        objective={"ppo": {"weight": 1.0, "reduction": "token_mean"}},
    )
    return config
