"""Practical DNO (Rosset et al., 2024, arXiv 2404.03715): samples and a demonstration ranked together.

python -m experiments.reinforce --config=configs/dno_prct.py --workdir=runs/dno_prct

Not measured yet.
"""

from configs import online


def get_config():
    config = online.in_rounds(online.on_pairs({"dno_prct": {"weight": 1.0, "eta": 0.1}}))
    config.rollout.group_size, config.rollout.demonstrations = 6, 1
    # Of win rates; the paper's are of a score of six points: at least 5, 2 apart, 1 where the winner is a sample.
    config.rollout.pair_floor, config.rollout.pair_margin, config.rollout.pair_margin_of_own = 0.5, 0.2, 0.1
    config.training.epochs, config.reference.update_every = 1, 4  # at most one epoch a round
    return config
