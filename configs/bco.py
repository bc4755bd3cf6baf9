"""Binary Classifier Optimization (Jung et al., 2024, arXiv 2404.04656) on single labelled completions, after SFT.

python -m experiments.finetune --config=configs/bco.py --workdir=runs/bco

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.557 after (512 samples); mean gold reward
-1.06 -> -0.33; 1.78 nats from the start.
"""

from configs import common


def get_config():
    config = common.after_sft({"bco": {"weight": 1.0, "beta": 0.5}}, {"kl_to_reference": {}})
    config.data.kind = "unpaired"
    return config
