"""f-DPO with the alpha-divergence half way between both KLs (Wang et al., 2023, arXiv 2309.16240).

python -m experiments.finetune --config=configs/f_dpo.py --workdir=runs/f_dpo

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.594 after (512 samples); mean gold reward
-1.06 -> -0.10; 1.04 nats from the start.
"""

from configs import common


def get_config():
    return common.preference({"f_dpo": {"weight": 1.0, "beta": 0.5, "alpha": 0.5}})
