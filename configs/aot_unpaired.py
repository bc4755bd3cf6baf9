"""AOT, unpaired (Melnyk et al., 2024, arXiv 2406.05882) after SFT: sorted log-ratios of both sides compared.

python -m experiments.finetune --config=configs/aot_unpaired.py --workdir=runs/aot_unpaired

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"aot_unpaired": {"weight": 1.0, "beta": 0.5}})
