"""XPO (Xie et al., 2024, arXiv 2405.21046): online DPO that leaves what the reference already writes.

python -m experiments.reinforce --config=configs/xpo.py --workdir=runs/xpo

Not measured yet.
"""

from configs import online


def get_config():
    config = online.on_pairs({"xpo": {"weight": 1.0, "beta": 0.1, "alpha": 1e-5}})
    config.rollout.engine = "experiments.engines:nash_md"
    config.rollout.engine_settings = {"mixture": 1.0}  # the opponent is the reference
    config.rollout.group_size = 2
    return config
