"""A simplification reward (Rahman et al., 2024, arXiv 2401.15043): a classifier of plain text and a content term, PPO.

python -m experiments.reinforce --config=configs/health_text_simplification_reward.py --workdir=runs/plain_words

Not measured yet.
"""

from configs import online, ppo


def get_config():
    config = online.on_task(ppo.get_config(), "plain_words")
    config.rewards = {"simplicity": {"function": "alignment.rewards.simplification:reward"}}
    return config
