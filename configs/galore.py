"""SFT by GaLore: Adam in a low-rank projection of every layer's gradient (Zhao et al., 2024, arXiv 2403.03507).

python -m experiments.finetune --config=configs/galore.py --workdir=runs/galore

Not measured yet.
"""

from configs import common


def get_config():
    config = common.sft()
    config.optimizer.name = "galore"
    config.optimizer.projection_rank = 16
    config.optimizer.eps = 1e-6
    return config
