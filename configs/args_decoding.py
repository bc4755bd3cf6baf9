"""ARGS (Khanov et al., 2024, arXiv 2402.01694): the ten likeliest tokens reranked by a reward model, greedy.

The language model is the first stage of configs/dpo.py in runs/dpo, the reward model that of
configs/bt_reward_loss.py in runs/bt_reward_loss.

python -m experiments.generate --config=configs/args_decoding.py --workdir=runs/args_decoding

Measured on 2026-11-22 with runs that an earlier version of the code had made (seed 0), mean gold reward of the 12 test
prompts: sampled (16 for each) -1.15, ARGS -4.61: it writes the same kind word three times, which pleases the reward
model and which the gold reward calls malformed.
"""

from configs import generate


def get_config():
    return generate.on_corpus(
        {"policy": generate.SFT, "reward": generate.REWARD},
        {"args": {"decoder": "args", "base": "policy", "reward": "reward", "candidates": 10, "weight": 1.0}},
    )
