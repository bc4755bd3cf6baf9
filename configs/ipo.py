"""Identity Preference Optimization (Azar et al., 2023, arXiv 2310.12036) after SFT, summed log-probs as in the paper.

python -m experiments.finetune --config=configs/ipo.py --workdir=runs/ipo
"""

from configs import common


def get_config():
    return common.preference({"ipo": {"weight": 1.0, "tau": 0.1}})
