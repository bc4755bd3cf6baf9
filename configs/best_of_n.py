"""Best-of-n (Liu et al., 2025, arXiv 2502.07191; theory: arXiv 2401.01879): the best of 16 samples by a reward model.

The language model is the first stage of configs/dpo.py in runs/dpo, the reward model that of
configs/bt_reward_loss.py in runs/bt_reward_loss.

python -m experiments.generate --config=configs/best_of_n.py --workdir=runs/best_of_n

Measured on 2026-11-22 with runs that an earlier version of the code had made (seed 0), mean gold reward of 192
outputs, 16 for each of the 12 test prompts: sampled -1.15, best of 16 by the reward model 0.54.
"""

from configs import generate


def get_config():
    return generate.on_corpus(
        {"policy": generate.SFT},
        {"best_of_n": {"decoder": "best_of_n", "model": "policy", "n": 16, "temperature": 1.0, "top_p": 1.0}},
        scores={"proxy": {"checkpoint": generate.REWARD}},
    )
