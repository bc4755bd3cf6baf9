"""Flex-DPO, a smaller temperature on the rejected side (Yan et al., 2024, arXiv 2406.07327).

python -m experiments.finetune --config=configs/flex_dpo.py --workdir=runs/flex_dpo

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.599 after (512 samples); mean gold reward
-1.06 -> 0.04; 0.77 nats from the start.
"""

from configs import common


def get_config():
    return common.preference({"flex_dpo": {"weight": 1.0, "beta_chosen": 0.5, "beta_rejected": 0.25}})
