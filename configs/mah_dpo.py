"""MAH-DPO: one trunk, an output head for each of two objectives (Shen et al., 2025, arXiv 2510.01167).

python -m experiments.finetune --config=configs/mah_dpo.py --workdir=runs/mah_dpo

Not measured yet.
"""

from configs import common


def get_config():
    config = common.preference({"mah_dpo": {"weight": 1.0, "beta": 0.5}})
    config.data.source, config.gold.samples = "trade_offs", 0
    config.model.output_heads = 2
    return config
