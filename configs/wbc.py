"""Weighted behaviour cloning, a baseline of Baheti et al. (2023, arXiv 2305.14718), on samples of its own.

python -m experiments.reinforce --config=configs/wbc.py --workdir=runs/wbc

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={},
        objective={"wbc": {"weight": 1.0}},
    )
    return config
