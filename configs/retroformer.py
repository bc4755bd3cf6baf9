"""Retroformer (Yao et al., 2023, arXiv 2308.02151): PPO on reflections; a frozen actor that reads them gains or loses.

python -m experiments.reinforce --config=configs/retroformer.py --workdir=runs/retroformer

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
    config = online.on_task(config, "retrospection")
    config.rewards = {"improvement": {"function": "alignment.rewards.assisted_tasks:improvement"}}
    return config
