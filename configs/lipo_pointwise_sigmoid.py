"""LiPO, pointwise cross-entropy (Liu et al., 2024, arXiv 2402.01878), on ranked lists of four after SFT.

python -m experiments.finetune --config=configs/lipo_pointwise_sigmoid.py --workdir=runs/lipo_pointwise_sigmoid

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.489 after (512 samples); mean gold reward
-1.06 -> -1.10; 3.73 nats from the start.
"""

from configs import common


def get_config():
    config = common.after_sft(
        {"lipo_pointwise_sigmoid": {"weight": 1.0, "beta": 0.05}}, {"token_nll": {"side": "responses"}}
    )
    config.data.kind = "lists"
    config.data.batch_size = 16
    return config
