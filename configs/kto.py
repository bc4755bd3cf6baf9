"""Kahneman-Tversky Optimization (Ethayarajh et al., 2024, arXiv 2402.01306) on single labelled completions, after SFT.

python -m experiments.finetune --config=configs/kto.py --workdir=runs/kto

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.573 after (512 samples); mean gold reward
-1.06 -> -0.18; 1.75 nats from the start.
"""

from configs import common


def get_config():
    config = common.after_sft({"kto": {"weight": 1.0, "beta": 0.5}}, {"kl_to_reference": {}})
    config.data.kind = "unpaired"
    return config
