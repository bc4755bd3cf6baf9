"""SimPO with T-REG's token rewards (Zhou et al., 2024, arXiv 2412.02685) after SFT; the evaluator is the SFT model.

python -m experiments.finetune --config=configs/simpo_reg.py --workdir=runs/simpo_reg

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.389 after (512 samples); mean gold reward
-1.06 -> -1.83; 4.12 nats from the start.
"""

from configs import common


def get_config():
    config = common.after_sft(
        {"simpo_reg": {"weight": 1.0, "beta": 2.0, "gamma": 0.5, "alpha": 0.25}},
        {"chosen_logp": {}, "rejected_logp": {}},
    )
    config.data.revision_prompts.better = "Be kind. "
    config.data.revision_prompts.worse = "Be rude. "
    return config
