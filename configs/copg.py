"""Contrastive policy gradient (Flet-Berliac et al., 2024, arXiv 2406.19185) on groups of samples.

python -m experiments.reinforce --config=configs/copg.py --workdir=runs/copg

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={},
        objective={"copg": {"weight": 1.0, "beta": 0.1}},
    )
    return config
