"""Learned policy optimisation (Lu et al., 2022, arXiv 2210.05639): a drift function evolved on small grid worlds.

python -m experiments.evolve --config=configs/lpo_evolved.py --workdir=runs/lpo_evolved

Grids of three by three, agents of 10 updates. Measured on 2026-11-21, jax 0.10.2, one seed, 400 generations: final
expected return on 512 new grids 0.849 before and 0.876 after evolution; A2C 0.879, PPO 0.869 and the discovered drift
0.854, each at its best learning rate. 50 CPU-seconds. At an evolution rate of 0.3 the weights walk at random, to
0.669 in one run.
"""

from configs import evolution


def get_config():
    config = evolution.base()
    config.objective.name = "lpo"
    config.task.name = "grid"
    config.agent.updates = 10
    config.agent.learning_rate = 3.0
    config.evolution.sigma = 0.2
    config.evolution.learning_rate = 0.1
    return config
