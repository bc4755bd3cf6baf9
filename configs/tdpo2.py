"""Token-level DPO, second form (Zeng et al., 2024, arXiv 2404.11999) after SFT.

python -m experiments.finetune --config=configs/tdpo2.py --workdir=runs/tdpo2
"""

from configs import common


def get_config():
    config = common.preference({"tdpo2": {"weight": 1.0, "beta": 0.5, "alpha": 0.5}})
    config.metrics.chosen_kl = {"kernel": "sequence_forward_kls", "side": "chosen"}
    config.metrics.rejected_kl = {"kernel": "sequence_forward_kls", "side": "rejected"}
    return config
