"""Hybrid post-training (Lv et al., 2025, arXiv 2509.04419): imitation where a group has no right answer.

python -m experiments.reinforce --config=configs/hpt.py --workdir=runs/hpt

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={"hpt_rows": {"gives": "valid"}},
        advantages={"dr_grpo_advantages": {}},
        objective={
            "hpt_rollouts": {"weight": 1.0, "reduction": "constant", "reduction_length": 16},
            "demonstration_nll": {"weight": 1.0, "reduction": "token_mean"},
        },
    )
    config.rollout.demonstrations = 1  # the last of each group
    return config
