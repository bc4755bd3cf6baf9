"""Monte Carlo tree search with PUCT over steps of eight tokens (Liu et al., 2025, arXiv 2502.07191).

The language model is the first stage of configs/dpo.py in runs/dpo, the reward model that of
configs/bt_reward_loss.py in runs/bt_reward_loss.

python -m experiments.generate --config=configs/mcts_puct.py --workdir=runs/mcts_puct

Not measured yet.
"""

from configs import generate


def get_config():
    return generate.on_corpus(
        {"policy": generate.SFT},
        {"mcts": {"decoder": "mcts", "model": "policy", "n": 3, "simulations": 5, "block": 8}},
        scores={"proxy": {"checkpoint": generate.REWARD}},
    )
