"""Length-desensitised DPO (Liu et al., 2024, arXiv 2409.06411) after SFT.

python -m experiments.finetune --config=configs/ld_dpo.py --workdir=runs/ld_dpo

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"ld_dpo": {"weight": 1.0, "beta": 0.5, "alpha": 0.5}})
