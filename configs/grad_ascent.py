"""Gradient ascent on what is to be forgotten, and nothing else (TOFU: Maini et al., 2024, arXiv 2401.06121).

python -m experiments.finetune --config=configs/grad_ascent.py --workdir=runs/grad_ascent

Measured with the other methods of unlearning: docs/unlearning.md.
"""

from configs import common


def get_config():
    return common.unlearning({"grad_ascent": {"weight": 1.0}})
