"""Preference ranking optimisation (PRO; Song et al., 2023, arXiv 2306.17492) on ranked lists of four after SFT.

python -m experiments.finetune --config=configs/pro.py --workdir=runs/pro

Not measured yet.
"""

from configs import common


def get_config():
    config = common.after_sft({"pro": {"weight": 1.0, "sft_weight": 0.05}}, {"token_nll": {"side": "responses"}})
    config.data.kind = "lists"
    config.data.batch_size = 16
    return config
