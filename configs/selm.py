"""SELM (Zhang et al., 2024, arXiv 2405.19332): rounds of DPO with an optimistic bonus.

python -m experiments.reinforce --config=configs/selm.py --workdir=runs/selm

Not measured yet.
"""

from configs import online


def get_config():
    config = online.in_rounds(online.on_pairs({"selm": {"weight": 1.0, "beta": 0.1, "alpha": 1e-3}}))
    config.rollout.engine = "experiments.engines:selm"
    config.rollout.engine_settings = {"opponents": 1, "refresh_every": 1}  # as the reference is, once in 8 steps
    config.rollout.group_size = 3
    return config
