"""RRHF (Yuan et al., 2023, arXiv 2304.05302) on pairs after SFT.

python -m experiments.finetune --config=configs/rrhf.py --workdir=runs/rrhf

Not measured yet.
"""

from configs import common


def get_config():
    # No metric that reads the reference either: none is kept in memory.
    return common.after_sft({"rrhf": {"weight": 1.0, "lambda_": 1.0}}, {"chosen_logp": {}, "rejected_logp": {}})
