"""Noise Contrastive Alignment (Chen et al., 2024, arXiv 2402.05369) on lists of four with rewards after SFT.

python -m experiments.finetune --config=configs/nca.py --workdir=runs/nca

Not measured yet.
"""

from configs import common


def get_config():
    config = common.after_sft({"nca": {"weight": 1.0, "beta": 0.5, "alpha": 0.5}}, {"token_nll": {"side": "responses"}})
    config.data.kind = "lists"
    config.data.batch_size = 16
    return config
