"""PPO-max (Zheng et al., 2023, arXiv 2307.04964): scaled and clipped rewards, clipped advantages.

python -m experiments.reinforce --config=configs/ppo_max.py --workdir=runs/ppo_max

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={
            "reward_scaling": {},
            "clip_rewards": {"limit": 10.0, "order": 1},
            "kl_shaped_rewards": {"beta": 0.02, "order": 2},
        },
        advantages={"gae_whitened": {}, "clip_advantages": {"limit": 0.5, "order": 1}},
        objective={
            "ppo": {"weight": 1.0, "reduction": "token_mean"},
            "ppo_value_loss": {"weight": 1.0, "reduction": "token_mean"},
        },
        metrics=online.PPO_METRICS,
    )
    config.model.reward_heads = 1  # the value head
    return config
