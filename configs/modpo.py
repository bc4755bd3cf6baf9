"""MODPO: DPO on quality, brevity entering as a margin (Zhou et al., 2023, arXiv 2310.03708).

python -m experiments.finetune --config=configs/modpo.py --workdir=runs/modpo

Not measured yet.
"""

from configs import common


def get_config():
    config = common.preference({"modpo": {"weight": 1.0, "beta": 0.5, "share": 0.5}})
    config.data.source, config.gold.samples = "trade_offs:quality", 0
    return config
