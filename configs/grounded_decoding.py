"""Grounded decoding (Huang et al., 2023, arXiv 2303.00855): the language model times a grounded model's probability.

The language model is the first stage of configs/dpo.py in runs/dpo, the reward model that of
configs/bt_reward_loss.py in runs/bt_reward_loss.
Its head, through the logistic function, is the probability that the prefix is wanted.

python -m experiments.generate --config=configs/grounded_decoding.py --workdir=runs/grounded_decoding

Not measured yet.
"""

from configs import generate


def get_config():
    return generate.on_corpus(
        {"policy": generate.SFT, "grounding": generate.REWARD},
        {"grounded": {"decoder": "grounded", "base": "policy", "grounding": "grounding", "candidates": 20}},
    )
