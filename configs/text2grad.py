"""Text2Grad (Wang et al., 2025, arXiv 2505.22338): PPO on the stretches that a critique praises and blames.

python -m experiments.reinforce --config=configs/text2grad.py --workdir=runs/text2grad

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={"span_shaped_rewards": {"beta": 0.05}},
        advantages={"gae_whitened": {}},
        objective={
            "ppo": {"weight": 1.0, "reduction": "token_mean"},
            "ppo_value_loss": {"weight": 0.1, "reduction": "token_mean"},
        },
        metrics=online.PPO_METRICS,
    )
    config.model.reward_heads = 1  # the value head
    # A program writes the critiques of sorted digits; a model that quotes would stand behind the same function.
    config.rollout.critique = "alignment.rewards.feedback:critique"
    return config
