"""Advantage-weighted regression on tokens (Korbak et al., 2023, arXiv 2302.08582), with a value head.

python -m experiments.finetune --config=configs/phf_awr.py --workdir=runs/phf_awr

Data as in configs/phf_losses.py.

Not measured yet.
"""

from configs import common


def get_config():
    config = common.demonstrations("phf_scored", {"phf_awr": {"weight": 1.0, "beta": 0.5}})
    config.data.kind = "segments"
    config.model.reward_heads = 1
    return config
