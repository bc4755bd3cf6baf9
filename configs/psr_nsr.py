"""Weighted REINFORCE on positive and negative samples (Zhu et al., 2025, arXiv 2506.01347).

python -m experiments.reinforce --config=configs/psr_nsr.py --workdir=runs/psr_nsr

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"weighted_reinforce_advantages": {"positive_weight": 0.1}},
        objective={"ppo": {"weight": 1.0, "reduction": "token_mean"}},
    )
    return config
