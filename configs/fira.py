"""SFT by Fira: GaLore and what lies outside of its subspace (Chen et al., 2024, arXiv 2410.01623).

python -m experiments.finetune --config=configs/fira.py --workdir=runs/fira

Not measured yet.
"""

from configs import common


def get_config():
    config = common.sft()
    config.optimizer.name = "fira"
    config.optimizer.projection_rank = 16
    config.optimizer.eps = 1e-6
    return config
