"""INPO (Zhang et al., 2024, arXiv 2407.00617): a mirror-descent step of self-play per round.

python -m experiments.reinforce --config=configs/inpo.py --workdir=runs/inpo

The paper has eta = 0.0075 and tau = 0.0025 at learning rate 5e-7.

Not measured yet.
"""

from configs import online


def get_config():
    config = online.in_rounds(online.on_pairs({"inpo": {"weight": 1.0, "eta": 0.3, "tau": 0.1}}))
    config.reference.update_every = 0  # the tie is to where the run began; the round's policy is the behaviour
    return config
