"""SFT by Fira: GaLore and what lies outside of its subspace (Chen et al., 2024, arXiv 2410.01623).

python -m experiments.finetune --config=configs/fira.py --workdir=runs/fira

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.353 (512 samples) and 0.281 nats per token held out;
with Adam's learning rate of 3e-3 0.093.
"""

from configs import common


def get_config():
    config = common.sft()
    config.optimizer.name = "fira"
    config.optimizer.projection_rank = 16
    config.optimizer.eps = 1e-6
    config.optimizer.learning_rate = 1e-2
    return config
