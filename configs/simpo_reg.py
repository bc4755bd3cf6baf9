"""SimPO with T-REG's token rewards (Zhou et al., 2024, arXiv 2412.02685) after SFT; the evaluator is the SFT model.

python -m experiments.finetune --config=configs/simpo_reg.py --workdir=runs/simpo_reg

Not measured yet.
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
