"""DPO plus the summed likelihood of the chosen side (Yan et al., 2024, arXiv 2406.07327).

python -m experiments.finetune --config=configs/sft_dpo.py --workdir=runs/sft_dpo

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.579 after (512 samples); mean gold reward
-1.06 -> -0.20; 1.37 nats from the start.
"""

from configs import common


def get_config():
    return common.preference({"sft_dpo": {"weight": 1.0, "beta": 0.5, "lambda_": 0.01}})
