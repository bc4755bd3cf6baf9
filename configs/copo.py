"""COPO (Han et al., 2025, arXiv 2508.04138): where a group agrees, advantages come from all groups.

python -m experiments.reinforce --config=configs/copo.py --workdir=runs/copo

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={
            "grpo_advantages": {},
            "copo_global_advantages": {"gives": "global_advantages"},
            "copo_blend_weights": {"gives": "blend_weights"},
        },
        objective={"copo_surrogate": {"weight": 1.0, "reduction": "sequence_mean"}},
    )
    return config
