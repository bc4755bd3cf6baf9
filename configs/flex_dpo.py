"""Flex-DPO, a smaller temperature on the rejected side (Yan et al., 2024, arXiv 2406.07327).

python -m experiments.finetune --config=configs/flex_dpo.py --workdir=runs/flex_dpo

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"flex_dpo": {"weight": 1.0, "beta_chosen": 0.5, "beta_rejected": 0.25}})
