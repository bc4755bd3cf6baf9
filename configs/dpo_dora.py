"""DPO of low-rank adapters with trained magnitudes (DoRA, Liu et al., 2024, arXiv 2402.09353) after SFT.

python -m experiments.finetune --config=configs/dpo_dora.py --workdir=runs/dpo_dora
"""

from configs import common


def get_config():
    config = common.preference({"dpo": {"weight": 1.0, "beta": 0.5}})
    config.adapter.rank = 8
    config.adapter.alpha = 16.0
    config.adapter.magnitudes = True
    config.optimizer.learning_rate = 4e-4
    return config
