"""Discovered policy optimisation (Lu et al., 2022, arXiv 2210.05639): a learned drift in place of the clip.

python -m experiments.reinforce --config=configs/lpo.py --workdir=runs/lpo

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"grpo_advantages": {}},
        objective={"discovered_drift": {"weight": 1.0, "reduction": "token_mean"}},
    )
    return config
