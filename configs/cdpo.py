"""Conservative DPO (Mitchell, 2023) on pairs of which a quarter are flipped.

python -m experiments.finetune --config=configs/cdpo.py --workdir=runs/cdpo
"""

from configs import common


def get_config():
    config = common.preference({"cdpo": {"weight": 1.0, "beta": 0.5, "label_smoothing": 0.25}})
    config.data.label_noise = 0.25
    return config
