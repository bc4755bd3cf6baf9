"""The unified estimator (Lv et al., 2025, arXiv 2509.04419), reward and imitation in one surrogate.

python -m experiments.reinforce --config=configs/upge.py --workdir=runs/upge

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"grpo_advantages": {}},
        objective={"upge": {"weight": 1.0, "reduction": "token_mean"}},
    )
    config.rollout.demonstrations = 1  # the last of each group
    return config
