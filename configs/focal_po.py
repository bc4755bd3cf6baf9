"""FocalPO (Liu et al., 2025, arXiv 2501.06645) after SFT.

python -m experiments.finetune --config=configs/focal_po.py --workdir=runs/focal_po
"""

from configs import common


def get_config():
    return common.preference({"focal_po": {"weight": 1.0, "beta": 0.5, "gamma": 0.05}})
