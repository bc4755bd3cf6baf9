"""Stratified GRPO (Zhu et al., 2025, arXiv 2510.06214): advantages within strata, blended with those of the group.

python -m experiments.reinforce --config=configs/stratified_grpo.py --workdir=runs/stratified_grpo

The paper's strata are numbers of searches (`alignment.rewards.strata:tool_calls`); here they are lengths of the answer.
Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"stratified_grpo_advantages": {"alpha": 0.8}},
        objective={"ppo": {"weight": 1.0, "reduction": "sequence_mean"}},
    )
    config.rollout.strata = "alignment.rewards.strata:number_of_characters"
    return config
