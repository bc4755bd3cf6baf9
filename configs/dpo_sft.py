"""DPO plus 0.1 x the token-mean NLL of the chosen side: two terms of one objective.

python -m experiments.finetune --config=configs/dpo_sft.py --workdir=runs/dpo_sft
"""

from configs import common


def get_config():
    return common.preference(
        {
            "dpo": {"weight": 1.0, "beta": 0.5},
            "sft": {"weight": 0.1, "side": "chosen", "reduction": "token_mean"},
        }
    )
