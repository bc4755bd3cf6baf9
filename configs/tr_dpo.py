"""Trust-region DPO (Gorbatovski et al., 2024, arXiv 2404.09656): the reference follows the policy.

python -m experiments.finetune --config=configs/tr_dpo.py --workdir=runs/tr_dpo

Every 40 of the 160 steps the reference becomes 0.6 policy and 0.4 what it was; TRL's 512 steps would never come here.

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.558 after (512 samples); mean gold reward
-1.06 -> -0.47; 1.86 nats from the start.
"""

from configs import common


def get_config():
    config = common.preference({"dpo": {"weight": 1.0, "beta": 0.5}})
    config.reference.update_every = 40
    config.reference.update_weight = 0.6
    return config
