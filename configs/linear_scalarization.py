"""GRPO on the weighted sum of two rewards (the baseline of Zhou et al., 2023, arXiv 2310.03708).

python -m experiments.reinforce --config=configs/linear_scalarization.py --workdir=runs/linear_scalarization

Not measured yet.
"""

from configs import online


def get_config():
    return online.two_objectives(
        shaping={"linear_scalarization": {"weights": (0.5, 0.5)}},
        advantages={"grpo_advantages": {}},
        objective=online.PPO_AND_KL,
    )
