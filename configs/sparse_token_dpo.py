"""DPO on learnt token gates (Yuan et al., 2024, arXiv 2410.13828) after SFT; the gates are a head of the model.

python -m experiments.finetune --config=configs/sparse_token_dpo.py --workdir=runs/sparse_token_dpo

Not measured yet.
"""

from configs import common


def get_config():
    config = common.preference({"sparse_token_dpo": {"weight": 1.0, "beta": 0.5, "sparsity": 0.01}})
    config.model.reward_heads = 1
    return config
