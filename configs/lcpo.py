"""Latent Collective Preference Optimization (Cao et al., 2025, arXiv 2509.24159) on pairs, a quarter of them flipped.

python -m experiments.finetune --config=configs/lcpo.py --workdir=runs/lcpo
"""

from configs import common


def get_config():
    config = common.preference({"lcpo": {"weight": 1.0, "beta": 0.5, "num_annotators": 4, "eta_0": 0.9, "alpha": 0.1}})
    config.data.label_noise = 0.25
    return config
