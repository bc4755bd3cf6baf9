"""GOLD (Pang and He, 2020, arXiv 2009.07839): off-policy weights from the policy itself.

python -m experiments.reinforce --config=configs/gold.py --workdir=runs/gold

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={},
        objective={"gold": {"weight": 1.0}},
    )
    return config
