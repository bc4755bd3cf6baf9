"""GenARM's reward model (Xu et al., 2024, arXiv 2410.08193): a language model whose log-prob is the reward.

python -m experiments.finetune --config=configs/genarm.py --workdir=runs/genarm

Not measured yet.
"""

from configs import common


def get_config():
    return common.after_sft(
        {"genarm": {"weight": 1.0, "beta": 0.5}}, {"ranking_accuracy": {}, "chosen_logp": {}, "rejected_logp": {}}
    )
