"""DPO plus the summed likelihood of the chosen side (Yan et al., 2024, arXiv 2406.07327).

python -m experiments.finetune --config=configs/sft_dpo.py --workdir=runs/sft_dpo

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"sft_dpo": {"weight": 1.0, "beta": 0.5, "lambda_": 0.01}})
