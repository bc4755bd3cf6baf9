"""R-DPO, a price on every token (Park et al., 2024, arXiv 2403.19159).

python -m experiments.finetune --config=configs/length_regularized_dpo.py --workdir=runs/length_regularized_dpo

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"length_regularized_dpo": {"weight": 1.0, "beta": 0.5, "alpha": 0.05}})
