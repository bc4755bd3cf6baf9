"""IPO-MD (Calandriello et al., 2024, arXiv 2403.08635): IPO on pairs of a mixture of policy and start.

python -m experiments.reinforce --config=configs/ipo_md.py --workdir=runs/ipo_md

`--config.rollout.engine_settings.mixture=0.0` is online IPO.

Not measured yet.
"""

from configs import online


def get_config():
    config = online.on_pairs({"ipo_md": {"weight": 1.0, "tau": 0.1}})
    config.rollout.engine = "experiments.engines:ipo_md"
    config.rollout.engine_settings = {"mixture": 0.25}
    config.rollout.group_size = 2
    return config
