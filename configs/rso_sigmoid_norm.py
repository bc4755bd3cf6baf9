"""RSO's logistic loss with a reference, which is DPO (Liu et al., 2023, arXiv 2309.06657).

python -m experiments.finetune --config=configs/rso_sigmoid_norm.py --workdir=runs/rso_sigmoid_norm

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.579 after (512 samples); mean gold reward
-1.06 -> -0.21; 1.43 nats from the start.
"""

from configs import common


def get_config():
    return common.preference({"rso_sigmoid_norm": {"weight": 1.0, "gamma": 0.5}})
