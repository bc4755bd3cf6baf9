"""Directional preference alignment: rejection sampling for a told direction (Wang et al., 2024, arXiv 2402.18571).

python -m experiments.reinforce --config=configs/directional_preference_alignment.py --workdir=runs/dpa

Not measured yet.
"""

from configs import online


def get_config():
    config = online.two_objectives(
        shaping={"preference_scalarization": {}},
        advantages={"best_of_group_advantages": {}},
        objective={"reinforce": {"weight": 1.0, "reduction": "sequence_mean"}},
    )
    config.rollout.preferences = "arc"
    return config
