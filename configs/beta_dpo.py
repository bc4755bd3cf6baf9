"""beta-DPO (Wu et al., 2024, arXiv 2407.08639), whose beta follows the margins of the batch, after SFT.

python -m experiments.finetune --config=configs/beta_dpo.py --workdir=runs/beta_dpo

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"beta_dpo": {"weight": 1.0, "beta": 0.5, "alpha": 0.6, "rho": 0.2}})
