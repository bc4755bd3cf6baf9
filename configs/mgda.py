"""Multiple-gradient descent over the policy losses of two rewards (Sener and Koltun, 2018, arXiv 1810.04650).

python -m experiments.reinforce --config=configs/mgda.py --workdir=runs/mgda

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
    config.training.gradient = "mgda"
    return config
