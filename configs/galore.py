"""SFT by GaLore: Adam in a low-rank projection of every layer's gradient (Zhao et al., 2024, arXiv 2403.03507).

python -m experiments.finetune --config=configs/galore.py --workdir=runs/galore

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.260 (512 samples) and 0.296 nats per token held out;
with Adam's learning rate of 3e-3 0.000 (0.575).
"""

from configs import common


def get_config():
    config = common.sft()
    config.optimizer.name = "galore"
    config.optimizer.projection_rank = 16
    config.optimizer.eps = 1e-6
    config.optimizer.learning_rate = 1e-2  # three times Adam's: the projected update is scaled down
    return config
