"""Prompt Curriculum Learning (Gao et al., 2025, arXiv 2510.01135): prompts that a value head puts nearest to 1/2.

python -m experiments.reinforce --config=configs/pcl.py --workdir=runs/pcl

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"dr_grpo_advantages": {}},
        objective={
            "reinforce": {"weight": 1.0, "reduction": "sequence_mean"},
            "pcl_value_loss": {"weight": 1.0},
        },
    )
    config.value.model = "separate"  # as in the paper
    config.value.learning_rate = 3e-4
    config.curriculum = {"pcl": {"pool_factor": 4, "tau": 0.5}}
    return config
