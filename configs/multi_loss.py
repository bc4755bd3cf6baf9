"""A sum of losses on the same pairs: 0.8 DPO, 0.2 BCO and the token-mean NLL of the chosen side (TRL's loss mixtures).

python -m experiments.finetune --config=configs/multi_loss.py --workdir=runs/multi_loss

Each member has hyperparameters of its own. Not measured yet.
"""

from configs import common


def get_config():
    return common.preference(
        {
            "dpo": {"weight": 0.8, "beta": 0.5},
            "bco_pair": {"weight": 0.2, "beta": 0.5},
            "sft": {"weight": 1.0, "side": "chosen", "reduction": "token_mean"},
        }
    )
