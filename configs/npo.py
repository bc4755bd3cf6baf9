"""Negative preference optimisation with a retain term (Zhang et al., 2024, arXiv 2404.05868).

python -m experiments.finetune --config=configs/npo.py --workdir=runs/npo

Measured with the other methods of unlearning: docs/unlearning.md.
"""

from configs import common


def get_config():
    return common.unlearning({"npo": {"weight": 1.0, "beta": 0.1}, "sft": {"weight": 1.0, "side": "retain"}})
