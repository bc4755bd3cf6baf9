"""Learned policy optimisation (Lu et al., 2022, arXiv 2210.05639): a drift function evolved on small grid worlds.

python -m experiments.evolve --config=configs/lpo_evolved.py --workdir=runs/lpo_evolved

Not measured yet.
"""

from configs import evolution


def get_config():
    config = evolution.base()
    config.objective.name = "lpo"
    config.task.name = "grid"
    config.agent.updates = 8
    config.agent.learning_rate = 10.0
    return config
