"""Random token substitution and swapped language modelling (Di Liello, 2023, arXiv 2309.08272).

python -m experiments.finetune --config=configs/rts.py --workdir=runs/rts
python -m experiments.finetune --config=configs/rts.py:slm --workdir=runs/slm

rts asks of every token whether it was replaced, slm which token stood there. Both are made for encoders; this decoder
sees what is to the left of a token.

Not measured yet.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(objective="rts"):
    config = common.sft()
    config.data.corruption = ConfigDict({"random_substitution": {"vocabulary": 256}})
    config.gold.samples = 0
    if objective == "slm":
        config.objective = ConfigDict({"sft": {"mask": "trained_mask"}})
        config.metrics = ConfigDict({"token_nll": {"mask": "trained_mask"}})
        return config
    config.model.reward_heads = 1
    config.objective, config.metrics = ConfigDict({objective: {"weight": 1.0}}), ConfigDict()
    return config
