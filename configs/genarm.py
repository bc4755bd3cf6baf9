"""GenARM's reward model (Xu et al., 2024, arXiv 2410.08193): a language model whose log-prob is the reward.

python -m experiments.finetune --config=configs/genarm.py --workdir=runs/genarm

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.446 after (512 samples); mean gold reward
-1.06 -> -1.24; 3.44 nats from the start.
"""

from configs import common


def get_config():
    return common.after_sft(
        {"genarm": {"weight": 1.0, "beta": 0.5}}, {"ranking_accuracy": {}, "chosen_logp": {}, "rejected_logp": {}}
    )
