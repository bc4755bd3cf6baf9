"""SPIN (Chen et al., 2024, arXiv 2401.01335): demonstrations against what the previous iterate wrote.

python -m experiments.reinforce --config=configs/spin.py --workdir=runs/spin

Not measured yet.
"""

from configs import online


def get_config():
    config = online.in_rounds(online.on_pairs({"spin": {"weight": 1.0, "beta": 0.1}}))
    config.rollout.judge, config.rollout.pairs = "", "demonstration_and_sample"
    config.rollout.group_size, config.rollout.demonstrations = 2, 1
    return config
