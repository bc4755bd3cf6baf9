"""HAPO (2025, arXiv 2505.11225): shorter than the shortest correct answer of the prompt so far.

python -m experiments.reinforce --config=configs/hapo.py --workdir=runs/hapo

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={"hapo": {}},
        advantages={"grpo_advantages": {}},
        objective={"ppo": {"weight": 1.0, "reduction": "sequence_mean"}},
    )
    return config
