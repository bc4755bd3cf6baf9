"""LUFFY (Yan et al., 2025, arXiv 2504.14945): a right demonstration in each group, shaped off-policy.

python -m experiments.reinforce --config=configs/luffy.py --workdir=runs/luffy

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"dr_grpo_advantages": {}},
        objective={"luffy": {"weight": 1.0, "gamma": 0.1, "reduction": "constant", "reduction_length": 16}},
    )
    config.rollout.demonstrations = 1  # the last of each group
    return config
