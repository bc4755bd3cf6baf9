"""Contrastive Preference Optimization (Xu et al., 2024, arXiv 2401.08417) after SFT.

python -m experiments.finetune --config=configs/cpo.py --workdir=runs/cpo

Not measured yet.
"""

from configs import common


def get_config():
    # No metric that reads the reference either: none is kept in memory.
    return common.after_sft(
        {"cpo": {"weight": 1.0, "beta": 0.1, "lambda_": 1.0}}, {"chosen_logp": {}, "rejected_logp": {}}
    )
