"""REINFORCE++ with the group mean as baseline (Hu et al., 2025, arXiv 2501.03262).

python -m experiments.reinforce --config=configs/reinforce_pp_baseline.py --workdir=runs/reinforce_pp_baseline

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"reinforce_pp_baseline_advantages": {}},
        objective={
            "ppo": {"weight": 1.0, "reduction": "token_mean"},
            "kl_k2": {"weight": 0.001, "reduction": "token_mean"},
        },
    )
    return config
