"""LCPO (Cao et al., 2025, arXiv 2509.24159) on IPO (Azar et al., 2023, arXiv 2310.12036); 25 % flipped labels.

python -m experiments.finetune --config=configs/lcpo_ipo.py --workdir=runs/lcpo_ipo

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.523 after (512 samples); mean gold reward
-1.06 -> -0.33; 0.23 nats from the start.
"""

from configs import common


def get_config():
    config = common.preference({"lcpo_ipo": {"weight": 1.0, "tau": 2.0, "num_annotators": 4}})
    config.data.label_noise = 0.25
    return config
