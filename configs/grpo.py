"""Group Relative Policy Optimization (Shao et al., 2024, arXiv 2402.03300): the default online run.

python -m experiments.reinforce --config=configs/grpo.py --workdir=runs/grpo

Not measured yet.
"""

from configs import online


def get_config():
    return online.after_warm_up(
        shaping={},
        advantages={"grpo_advantages": {}},
        objective={
            "ppo": {"weight": 1.0, "reduction": "sequence_mean"},
            "kl_k3": {"weight": 0.04, "reduction": "sequence_mean"},
        },
    )
