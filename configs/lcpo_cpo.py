"""LCPO (Cao et al., 2025, arXiv 2509.24159) on CPO (Xu et al., 2024, arXiv 2401.08417); 25 % flipped labels.

python -m experiments.finetune --config=configs/lcpo_cpo.py --workdir=runs/lcpo_cpo

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.435 after (512 samples); mean gold reward
-1.06 -> -1.13; 1.28 nats from the start.
"""

from configs import common


def get_config():
    # No metric that reads the reference either: none is kept in memory.
    config = common.after_sft(
        {"lcpo_cpo": {"weight": 1.0, "beta": 0.5, "num_annotators": 4}}, {"chosen_logp": {}, "rejected_logp": {}}
    )
    config.data.label_noise = 0.25
    return config
