"""Contrastive Preference Learning (Hejna et al., 2023, arXiv 2310.13639) after SFT, without a reference model.

python -m experiments.finetune --config=configs/cpl.py --workdir=runs/cpl

Not measured yet.
"""

from configs import common


def get_config():
    # No metric that reads the reference either: none is kept in memory.
    return common.after_sft(
        {"cpl": {"weight": 1.0, "alpha": 0.5, "contrastive_bias": 0.5}}, {"chosen_logp": {}, "rejected_logp": {}}
    )
