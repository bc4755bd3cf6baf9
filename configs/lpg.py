"""Learned policy gradient with training progress (Oh et al., 2020, arXiv 2007.08794; Jackson et al., 2024, 2402.05828).

python -m experiments.evolve --config=configs/lpg.py --workdir=runs/lpg

Not measured yet.
"""

from configs import evolution


def get_config():
    config = evolution.base()
    config.objective.name = "ta_lpg"
    config.evolution.learning_rate = 0.3
    return config
