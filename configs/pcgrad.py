"""Gradient surgery between the policy losses of two rewards (Yu et al., 2020, arXiv 2001.06782).

python -m experiments.reinforce --config=configs/pcgrad.py --workdir=runs/pcgrad

Not measured yet.
"""

from configs import online


def get_config():
    config = online.two_objectives(
        shaping={},
        advantages={"objective_advantages": {"gives": "objective_advantages"}},
        objective={
            "solved": {"kernel": "ppo_of_objective", "objective": 0, "reduction": "sequence_mean"},
            "terse": {"kernel": "ppo_of_objective", "objective": 1, "reduction": "sequence_mean"},
        },
    )
    config.training.gradient = "pcgrad"
    return config
