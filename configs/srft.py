"""SRFT (Fu et al., 2025, arXiv 2506.19767): imitation and reinforcement in one stage, weighed by entropy.

python -m experiments.reinforce --config=configs/srft.py --workdir=runs/srft

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"grpo_advantages": {}},
        objective={
            "srft_demonstrations": {"weight": 1.0, "reduction": "token_mean"},
            "srft_reinforcement": {"weight": 1.0, "reduction": "token_mean"},
        },
    )
    config.rollout.demonstrations = 1  # the last of each group
    return config
