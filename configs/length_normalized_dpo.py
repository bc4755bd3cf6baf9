"""Length-normalised DPO of Tulu 3 (Lambert et al., 2024, arXiv 2411.15124).

python -m experiments.finetune --config=configs/length_normalized_dpo.py --workdir=runs/length_normalized_dpo

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.532 after (512 samples); mean gold reward
-1.06 -> -0.73; 2.40 nats from the start.
"""

from configs import common


def get_config():
    return common.preference({"length_normalized_dpo": {"weight": 1.0, "beta": 5.0}})
