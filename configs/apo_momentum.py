"""Accelerated preference optimization (He et al., 2024, arXiv 2410.06293): iterative DPO with momentum.

python -m experiments.reinforce --config=configs/apo_momentum.py --workdir=runs/apo_momentum

Not measured yet.
"""

from configs import online


def get_config():
    config = online.in_rounds(online.on_pairs({"dpo": {"weight": 1.0, "beta": 0.1}}))
    config.optimizer.momentum_every = config.reference.update_every
    config.optimizer.momentum_alpha = 0.3
    return config
