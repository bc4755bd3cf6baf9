"""CPL-KL (Hejna et al., 2023, arXiv 2310.13639), Contrastive Preference Learning against a reference, after SFT.

python -m experiments.finetune --config=configs/cpl_kl.py --workdir=runs/cpl_kl

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.579 after (512 samples); mean gold reward
-1.06 -> -0.17; 1.16 nats from the start.
"""

from configs import common


def get_config():
    return common.preference({"cpl_kl": {"weight": 1.0, "alpha": 0.5, "contrastive_bias": 0.75}})
