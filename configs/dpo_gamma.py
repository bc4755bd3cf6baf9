"""DPO with half of the reference's log-ratio (Chen et al., 2024, arXiv 2405.19534).

python -m experiments.finetune --config=configs/dpo_gamma.py --workdir=runs/dpo_gamma

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.545 after (512 samples); mean gold reward
-1.06 -> -0.50; 1.85 nats from the start.
"""

from configs import common


def get_config():
    return common.preference({"dpo_gamma": {"weight": 1.0, "beta": 0.5, "gamma": 0.5}})
