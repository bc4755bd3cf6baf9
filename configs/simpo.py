"""SimPO (Meng et al., 2024, arXiv 2405.14734) after SFT: no reference, mean log-probs, a target margin.

python -m experiments.finetune --config=configs/simpo.py --workdir=runs/simpo

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.499 after (512 samples); mean gold reward
-1.06 -> -1.06; 3.97 nats from the start.
"""

from configs import common


def get_config():
    # No metric that reads the reference either: none is kept in memory.
    return common.after_sft(
        {"simpo": {"weight": 1.0, "beta": 2.0, "gamma": 0.5}}, {"chosen_logp": {}, "rejected_logp": {}}
    )
