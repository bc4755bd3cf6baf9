"""APO-zero (D'Oosterlinck et al., 2024, arXiv 2408.06266).

python -m experiments.finetune --config=configs/apo_zero.py --workdir=runs/apo_zero

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.574 after (512 samples); mean gold reward
-1.06 -> -0.36; 2.30 nats from the start.
"""

from configs import common


def get_config():
    return common.preference({"apo_zero": {"weight": 1.0, "beta": 0.5}})
