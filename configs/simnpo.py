"""NPO without a reference, by token means (Fan et al., 2024, arXiv 2410.07163), with their weights for TOFU.

python -m experiments.finetune --config=configs/simnpo.py --workdir=runs/simnpo

Measured with the other methods of unlearning: docs/unlearning.md.
"""

from configs import common


def get_config():
    return common.unlearning({"simnpo": {"weight": 0.1375, "beta": 2.5}, "sft": {"weight": 1.0, "side": "retain"}})
