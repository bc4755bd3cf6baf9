"""Learned policy gradient with training progress (Oh et al., 2020, arXiv 2007.08794; Jackson et al., 2024, 2402.05828).

python -m experiments.evolve --config=configs/lpg.py --workdir=runs/lpg

Bandits of five arms with noise, agents of 20 updates. Measured on 2026-11-21, jax 0.10.2, one seed, 400 generations:
final expected return on 512 new bandits -0.198 before and 1.078 after evolution; A2C 1.122, PPO 1.119 and the
discovered drift 1.108, each at its best learning rate (the best arm is worth 1.163 on average). 100 CPU-seconds.
"""

from configs import evolution


def get_config():
    config = evolution.base()
    config.objective.name = "ta_lpg"
    config.evolution.learning_rate = 0.3
    config.evaluation.learning_rates = (0.3, 1.0, 3.0, 10.0)
    return config
