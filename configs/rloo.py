"""REINFORCE leave-one-out (Ahmadian et al., 2024, arXiv 2402.14740).

python -m experiments.reinforce --config=configs/rloo.py --workdir=runs/rloo

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"rloo_advantages": {}},
        objective={"reinforce": {"weight": 1.0, "reduction": "sequence_sum"}},
    )
    return config
