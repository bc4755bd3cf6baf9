"""Contrastive Preference Learning (Hejna et al., 2023, arXiv 2310.13639) on ranked lists of four after SFT.

python -m experiments.finetune --config=configs/cpl_list.py --workdir=runs/cpl_list

Not measured yet.
"""

from configs import common


def get_config():
    config = common.after_sft(
        {"cpl_list": {"weight": 1.0, "alpha": 0.5, "contrastive_bias": 0.5}}, {"token_nll": {"side": "responses"}}
    )
    config.data.kind = "lists"
    config.data.batch_size = 16
    return config
