"""Cal-DPO (Xiao et al., 2024, arXiv 2412.14516); targets of 2 nats, since completions are short.

python -m experiments.finetune --config=configs/cal_dpo.py --workdir=runs/cal_dpo

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"cal_dpo": {"weight": 1.0, "beta": 0.25, "lambda_": 0.5}})
