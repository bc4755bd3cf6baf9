"""Noise contrastive alignment of pairs (Chen et al., 2024, arXiv 2402.05369).

python -m experiments.finetune --config=configs/nca_pair.py --workdir=runs/nca_pair

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"nca_pair": {"weight": 1.0, "beta": 0.5}})
