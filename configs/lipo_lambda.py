"""LiPO-lambda (Liu et al., 2024, arXiv 2402.01878) on ranked lists of four after SFT.

python -m experiments.finetune --config=configs/lipo_lambda.py --workdir=runs/lipo_lambda

Cost after the SFT stage that configs/dpo.py shares: 118 CPU-seconds. Measured on 2 shared cores, seed 0, 2026-11-21,
evaluation: loss 0.8944, token_nll 0.4746. Gold win rate against demonstrations 0.406 before, 0.479 after; mean gold
reward -1.04 before, -1.27 after.
"""

from configs import common


def get_config():
    config = common.after_sft(
        {"lipo_lambda": {"weight": 1.0, "beta": 0.05}},
        {"token_nll": {"side": "responses"}},
    )
    config.data.kind = "lists"
    config.data.batch_size = 16
    return config
