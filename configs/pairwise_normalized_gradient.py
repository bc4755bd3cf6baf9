"""DPO by pairwise normalised gradients (Yuan et al., 2024, arXiv 2410.13828): both sides of a pair pull equally hard.

python -m experiments.finetune --config=configs/pairwise_normalized_gradient.py --workdir=runs/pairwise_normalized_gradient

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.593 after (512 samples); mean gold reward
-1.06 -> -0.17; 1.41 nats from the start.
"""  # noqa: E501

from configs import common


def get_config():
    config = common.preference({"dpo": {"weight": 1.0, "beta": 0.5}})
    config.training.gradient = "pairwise_normalized"
    return config
