"""SPARK (Liu et al., 2025, arXiv 2509.22624): GRPO on problems and on judging the answers to them, in one batch.

python -m experiments.reinforce --config=configs/spark.py --workdir=runs/spark

Not measured yet.
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
    config.data.prompt_length = 48  # a prompt of a judge holds two answers
    config.rollout.recycle = "alignment.rewards.feedback:judging_tasks"
    config.rollout.recycled = 4  # of the 16 prompts; the judged answers are those to the other 12
    config.rewards = {"solved_or_judged": {"function": "alignment.rewards.feedback:solved_or_judged"}}
    return config
