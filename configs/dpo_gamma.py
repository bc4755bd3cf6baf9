"""DPO with half of the reference's log-ratio (Chen et al., 2024, arXiv 2405.19534).

python -m experiments.finetune --config=configs/dpo_gamma.py --workdir=runs/dpo_gamma

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"dpo_gamma": {"weight": 1.0, "beta": 0.5, "gamma": 0.5}})
