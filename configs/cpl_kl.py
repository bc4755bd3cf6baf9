"""CPL-KL (Hejna et al., 2023, arXiv 2310.13639), Contrastive Preference Learning against a reference, after SFT.

python -m experiments.finetune --config=configs/cpl_kl.py --workdir=runs/cpl_kl

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"cpl_kl": {"weight": 1.0, "alpha": 0.5, "contrastive_bias": 0.75}})
