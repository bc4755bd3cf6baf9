"""A simplification reward (Rahman et al., 2024, arXiv 2401.15043): a classifier of plain text and a content term, PPO.

python -m experiments.reinforce --config=configs/health_text_simplification_reward.py --workdir=runs/plain_words

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={"kl_shaped_rewards": {"beta": 0.05}},
        advantages={"gae_whitened": {}},
        objective={
            "ppo": {"weight": 1.0, "reduction": "token_mean"},
            "ppo_value_loss": {"weight": 0.1, "reduction": "token_mean"},
        },
        metrics=online.PPO_METRICS,
    )
    config.model.reward_heads = 1  # the value head
    config = online.on_task(config, "plain_words")
    config.rewards = {"simplicity": {"function": "alignment.rewards.simplification:reward"}}
    return config
