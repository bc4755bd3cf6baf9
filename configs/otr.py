"""One-token rollout (OTR; Ming et al., 2025, arXiv 2509.26313) on demonstrations, after SFT.

python -m experiments.finetune --config=configs/otr.py --workdir=runs/otr

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.563 after (512 samples); mean gold reward
-1.06 -> -0.12; 1.35 nats from the start.
"""

from configs import common


def get_config():
    config = common.after_sft({"otr": {"weight": 1.0, "reduction": "sequence_mean"}}, {"token_nll": {}})
    config.data.kind = "completion"
    config.draws.count, config.draws.temperature = 256, 1.3
    return config
