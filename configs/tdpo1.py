"""Token-level DPO, first form (Zeng et al., 2024, arXiv 2404.11999) after SFT.

python -m experiments.finetune --config=configs/tdpo1.py --workdir=runs/tdpo1
"""

from configs import common


def get_config():
    config = common.preference({"tdpo1": {"weight": 1.0, "beta": 0.5}})
    config.metrics.chosen_kl = {"kernel": "sequence_forward_kls", "side": "chosen"}
    config.metrics.rejected_kl = {"kernel": "sequence_forward_kls", "side": "rejected"}
    return config
