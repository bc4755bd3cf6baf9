"""A reward model that learns from ties too (Rao and Kupper, 1967): pairs that differ in length alone are ties here.

--config=configs/bt_with_ties.py:bt_with_ties_davidson is Davidson's (1970) model of them.

python -m experiments.finetune --config=configs/bt_with_ties.py --workdir=runs/bt_with_ties

Not measured yet.
"""

from configs import common


def get_config(loss="bt_with_ties"):
    return common.reward_model({loss: {"weight": 1.0}}, {"reward_model_accuracy": {}})
