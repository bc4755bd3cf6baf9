"""ONPO (Zhang et al., 2025, arXiv 2502.16852): self-play with an auxiliary policy, solved for on the same pairs.

python -m experiments.reinforce --config=configs/onpo.py --workdir=runs/onpo

An iteration's first pass makes the new auxiliary policy, which is the reference; its second the policy that plays.

Not measured yet.
"""

from configs import online


def get_config():
    config = online.in_rounds(online.on_pairs({"onpo": {"weight": 1.0, "eta": 2.0}}))
    config.training.auxiliary, config.reference.update_every = True, 0
    return config
