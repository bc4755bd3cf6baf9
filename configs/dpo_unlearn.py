"""DPO of a refusal over the memorised answer (TOFU: Maini et al., 2024, arXiv 2401.06121), with a retain term.

python -m experiments.finetune --config=configs/dpo_unlearn.py --workdir=runs/dpo_unlearn

Measured with the other methods of unlearning: docs/unlearning.md.
"""

from configs import common


def get_config():
    return common.unlearning({"dpo_unlearn": {"weight": 1.0, "beta": 0.1}, "sft": {"weight": 1.0, "side": "retain"}})
