"""Robust DPO for labels flipped at a known rate (Chowdhury et al., 2024, arXiv 2403.00409).

python -m experiments.finetune --config=configs/robust_dpo.py --workdir=runs/robust_dpo

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"robust_dpo": {"weight": 1.0, "beta": 0.5, "flip_rate": 0.1}})
