"""Gradient ascent held by the divergence on the retain set (TOFU: Maini et al., 2024, arXiv 2401.06121).

python -m experiments.finetune --config=configs/grad_diff_kl.py --workdir=runs/grad_diff_kl

Measured with the other methods of unlearning: docs/unlearning.md.
"""

from configs import common


def get_config():
    return common.unlearning({"grad_ascent": {"weight": 1.0}, "kl_retain": {"weight": 1.0}})
