"""Knapsack RL (Li et al., 2025, arXiv 2509.25849): a fixed budget of rollouts goes where groups are likely to be mixed.

python -m experiments.reinforce --config=configs/knapsack_rl.py --workdir=runs/knapsack_rl

The budget is given out by rows of two completions: 16 prompts with 2 to 98 each, 8 on average. Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"grpo_advantages": {}},
        objective={
            "ppo": {"weight": 1.0, "reduction": "sequence_mean"},
            "kl_k3": {"weight": 0.04, "reduction": "sequence_mean"},
        },
    )
    config.rollout.prompts, config.rollout.group_size = 64, 2  # rows, and the completions of each
    # Rates of 0 and 1 from a few rollouts must not rule a prompt out for ever.
    config.curriculum = {"knapsack_rl": {"rows_per_prompt": 4, "clamp": 0.05}}
    return config
