"""Positive sample reinforcement (Zhu et al., 2025, arXiv 2506.01347): learn from what was right only.

python -m experiments.reinforce --config=configs/psr.py --workdir=runs/psr

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"psr_advantages": {}},
        objective={"ppo": {"weight": 1.0, "reduction": "token_mean"}},
    )
    return config
