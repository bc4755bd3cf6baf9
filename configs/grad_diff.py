"""Gradient ascent on the forget set and descent on the retain set (TOFU: Maini et al., 2024, arXiv 2401.06121).

python -m experiments.finetune --config=configs/grad_diff.py --workdir=runs/grad_diff

Measured with the other methods of unlearning: docs/unlearning.md.
"""

from configs import common


def get_config():
    return common.unlearning({"grad_ascent": {"weight": 1.0}, "sft": {"weight": 1.0, "side": "retain"}})
