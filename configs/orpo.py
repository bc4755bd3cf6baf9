"""ORPO (Hong et al., 2024, arXiv 2403.07691), here after SFT as its neighbours; the paper starts from the base model.

python -m experiments.finetune --config=configs/orpo.py --workdir=runs/orpo

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.557 after (512 samples); mean gold reward
-1.06 -> -0.09; 0.38 nats from the start.
"""

from configs import common


def get_config():
    # No metric that reads the reference either: none is kept in memory.
    return common.after_sft({"orpo": {"weight": 1.0, "lambda_": 0.1}}, {"chosen_logp": {}, "rejected_logp": {}})
