"""MOGFN: draws answers in proportion to a reward that is told in the prompt (Jain et al., 2022, arXiv 2210.12765).

python -m experiments.reinforce --config=configs/mogfn.py --workdir=runs/mogfn

Not measured yet.
"""

from configs import online


def get_config():
    config = online.two_objectives(
        shaping={"preference_scalarization": {}},
        advantages={},
        objective={"mogfn_trajectory_balance": {"weight": 1.0, "beta": 4.0, "floor": 0.01}},
    )
    config.rewards.terse = {"function": "alignment.rewards.lengths:shortness"}
    config.rollout.preferences = "simplex"
    config.model.reward_heads = 1  # log Z, read before the first token
    return config
