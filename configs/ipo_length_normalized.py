"""IPO with per-token averaged log-ratios (Azar et al., 2023, arXiv 2310.12036), as the peers run it.

python -m experiments.finetune --config=configs/ipo_length_normalized.py --workdir=runs/ipo_length_normalized
"""

from configs import common


def get_config():
    return common.preference({"ipo_length_normalized": {"weight": 1.0, "tau": 0.1}})
