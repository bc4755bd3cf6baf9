"""Trust-region DPO (Gorbatovski et al., 2024, arXiv 2404.09656): the reference follows the policy.

python -m experiments.finetune --config=configs/tr_dpo.py --workdir=runs/tr_dpo

Every 40 of the 160 steps the reference becomes 0.6 policy and 0.4 what it was; TRL's 512 steps would never come here.

Not measured yet.
"""

from configs import common


def get_config():
    config = common.preference({"dpo": {"weight": 1.0, "beta": 0.5}})
    config.reference.update_every = 40
    config.reference.update_weight = 0.6
    return config
