"""Weighted Preference Optimization (Zhou et al., 2024, arXiv 2406.11827) after SFT.

python -m experiments.finetune --config=configs/wpo.py --workdir=runs/wpo

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"wpo": {"weight": 1.0, "beta": 0.5}})
