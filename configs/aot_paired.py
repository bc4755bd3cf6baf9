"""AOT on pairs (Melnyk et al., 2024, arXiv 2406.05882) after SFT: sorted margins of policy and reference compared.

python -m experiments.finetune --config=configs/aot_paired.py --workdir=runs/aot_paired

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"aot_paired": {"weight": 1.0, "beta": 0.5}})
