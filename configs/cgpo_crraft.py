"""CGPO with CRRAFT: weighted likelihood of the best eligible completion (Xu et al., 2024, arXiv 2409.20370).

python -m experiments.reinforce --config=configs/cgpo_crraft.py --workdir=runs/cgpo_crraft

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"cgpo_eligible": {"gives": "valid", "kl_max": 5.0}},
        objective={"cgpo_crraft": {"weight": 1.0, "kl_max": 5.0}},
    )
    config.judges = {"ends": {"function": "alignment.rewards.judges:ends_with_full_stop"}}
    return config
