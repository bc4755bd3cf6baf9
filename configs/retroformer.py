"""Retroformer (Yao et al., 2023, arXiv 2308.02151): PPO on reflections; a frozen actor that reads them gains or loses.

python -m experiments.reinforce --config=configs/retroformer.py --workdir=runs/retroformer

Not measured yet.
"""

from configs import online, ppo


def get_config():
    config = online.on_task(ppo.get_config(), "retrospection")
    config.rewards = {"improvement": {"function": "alignment.rewards.assisted_tasks:improvement"}}
    return config
