"""Group Sequence Policy Optimization (Zheng et al., 2025, arXiv 2507.18071).

python -m experiments.reinforce --config=configs/gspo.py --workdir=runs/gspo

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"grpo_advantages": {}},
        objective={"gspo": {"weight": 1.0}},
    )
    return config
