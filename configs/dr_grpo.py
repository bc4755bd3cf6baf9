"""Dr. GRPO (Liu et al., 2025, arXiv 2503.20783): no division by the group's deviation nor by the length.

python -m experiments.reinforce --config=configs/dr_grpo.py --workdir=runs/dr_grpo

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"dr_grpo_advantages": {}},
        objective={"ppo": {"weight": 1.0, "reduction": "constant", "reduction_length": 16}},
    )
    return config
