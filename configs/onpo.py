"""ONPO (Zhang et al., 2025, arXiv 2502.16852): its loss, in rounds of self-play with the last policy as anchor.

python -m experiments.reinforce --config=configs/onpo.py --workdir=runs/onpo

One policy plays and is anchored to itself; the method keeps an auxiliary policy beside it, and solves for both in turn.

Not measured yet.
"""

from configs import online


def get_config():
    return online.in_rounds(online.on_pairs({"onpo": {"weight": 1.0, "eta": 2.0}}))
