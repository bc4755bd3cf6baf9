"""DeAL (Huang et al., 2024, arXiv 2402.06147): tokens chosen by log-prob and by where a greedy look ahead leads.

The language model is the first stage of configs/dpo.py in runs/dpo, the reward model that of
configs/bt_reward_loss.py in runs/bt_reward_loss.

python -m experiments.generate --config=configs/deal.py --workdir=runs/deal

Not measured yet.
"""

from configs import generate


def get_config():
    deal = {"decoder": "deal", "model": "policy", "width": 4, "beams": 1}
    return generate.on_corpus(
        {"policy": generate.SFT},
        {"beam_search": {**deal, "weight": 0.0, "lookahead": 0}, "deal": {**deal, "weight": 1.0, "lookahead": 8}},
        scores={"proxy": {"checkpoint": generate.REWARD}},
    )
