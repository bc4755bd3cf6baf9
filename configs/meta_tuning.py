"""Meta-tuning (Zhong et al., 2021, arXiv 2104.04670): yes/no questions, tested on descriptions not asked before.

python -m experiments.finetune --config=configs/meta_tuning.py --workdir=runs/meta_tuning

"Is it kind? the cat is kind and slow. " The questions of the test split are about words that training never asks about.

Not measured yet.
"""

from configs import common


def get_config():
    config = common.after_sft({"meta_tuning": {"weight": 1.0}}, {"ranking_accuracy": {}})
    config.data.source = "recipe:meta_tuning"
    config.data.prompt_length, config.data.completion_length = 72, 4
    config.optimizer.learning_rate = 3e-4
    config.gold.samples = 0
    return config
